package asm

import (
	"maps"
	"slices"
	"time"
)

// ClockStats is how an exporter's clock stands to ours.
type ClockStats struct {
	Exporter string
	// Offset is how far the exporter's clock is behind the collector's, less
	// than nothing if it is ahead: the least difference between arrival and
	// Export Time of the Messages of a minute. So the delay of their way is in
	// it at its shortest, and up to a second, as Export Times are whole
	// seconds.
	Offset time.Duration
	At     time.Time // of the latest Message of that minute
}

// An exporterClock gathers the offset of one exporter's clock. It changes no
// record, so it is not part of checkpoints.
type exporterClock struct {
	began  int64 // of the minute, Unix nanoseconds
	least  int64 // of the minute, nanoseconds
	latest int64 // Unix nanoseconds
	told   ClockStats
}

const (
	clockSpan    = time.Minute
	clockSuspect = 5 * time.Second // a larger offset is worth a warning
	maxClocks    = 4096            // exporters
)

// see takes in a Message that an exporter sent at a time in Unix seconds and
// that arrived at a time in Unix nanoseconds.
func (m *Module) see(t *transport, exported uint32, arrived int64) {
	c := t.clock
	if c == nil {
		if c = m.clocks[t.info.Exporter]; c == nil {
			if len(m.clocks) >= maxClocks {
				clear(m.clocks)
			}
			c = &exporterClock{began: arrived, least: 1<<63 - 1}
			m.clocks[t.info.Exporter] = c
		}
		t.clock = c
	}
	if arrived-c.began >= int64(clockSpan) {
		m.tell(c, t.info.Exporter)
		c.began, c.least = arrived, 1<<63-1
	}
	c.least = min(c.least, arrived-int64(exported)*int64(time.Second))
	if c.latest = arrived; c.told.Exporter == "" {
		m.tell(c, t.info.Exporter) // the first Message tells something already
	}
}

// tell makes the offset of c part of the Stats, and warns of a large one.
func (m *Module) tell(c *exporterClock, exporter string) {
	c.told = ClockStats{Exporter: exporter, Offset: time.Duration(c.least), At: time.Unix(0, c.latest)}
	all := make([]ClockStats, 0, len(m.clocks))
	for _, name := range slices.Sorted(maps.Keys(m.clocks)) {
		if told := m.clocks[name].told; told.Exporter != "" {
			all = append(all, told)
		}
	}
	m.stats.Clocks = all // those who have the old one keep it
	if off := c.told.Offset; off < -clockSuspect || off-time.Second > clockSuspect {
		const text = "export times and arrival differ: an exporter's clock is wrong, or these are old messages"
		if n, ok := m.logs.lets(limiterKey{text: text, exporter: exporter}); ok {
			m.log.Warn(text, "exporter", exporter, "behind", off.Round(time.Millisecond), "times", n)
		}
	}
}
