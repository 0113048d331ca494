// Package meter is a Metering Process (RFC 5470, Section 4): it observes
// packets, of pcap and pcapng files or of a live interface, sorts them into
// unidirectional flows by addresses, ports, protocol, DSCP and interface, and
// gives a Flow Record of each to an Exporting Process.
//
// Octets are those of the IP layer, header and payload, by the packet's own
// length field, so a capture that kept only the headers is metered in full.
package meter

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"tollbridge/ipfix"
)

// An Exporter takes Flow Records: an Exporting Process. Export copies the
// record, may block to hold the meter up, and fails only for good or when its
// context ends.
type Exporter interface {
	Export(ctx context.Context, t *ipfix.Template, record []byte) error
}

// Config says how a Meter works.
type Config struct {
	Exporter      Exporter      // required
	IdleTimeout   time.Duration // a flow without packets for so long has ended; 0 means 15s
	ActiveTimeout time.Duration // a flow that lasts is reported this often; 0 means 60s
	EndTimeout    time.Duration // a TCP flow stays for its last segments after FIN or RST; 0 means 1s
	MaxFlows      int           // in the cache; 0 means 262,144, which take 26 MiB
	Log           *slog.Logger  // nil discards
}

// ErrConfig says that a Config can't be.
var ErrConfig = errors.New("invalid config")

// batch is how many packets are parsed before their flows are looked up.
const batch = 32

// A Meter turns packets into Flow Records. One goroutine uses it at a time,
// Stats excepted. Time is that of the packets, and of Advance.
type Meter struct {
	config Config
	idle   int64 // timeouts in nanoseconds
	active int64
	final  int64

	templates map[byte]*ipfix.Template // by IP version
	cache     cache
	seed      maphash.Seed
	now       int64 // latest time seen, Unix nanoseconds
	swept     int64 // up to when the sweep has done its share
	hand      uint32
	seen      [batch]observation
	touched   uint64 // makes the touching of flows a visible effect
	record    []byte

	stats    Stats
	verdicts [verdicts]uint64
	reasons  [LackOfResources + 1]uint64

	asked atomic.Bool // there are pulls

	mu        sync.Mutex
	published Stats
	pulls     []*pull
}

// New returns a Meter without flows. Errors match ErrConfig.
func New(cfg Config) (*Meter, error) {
	if cfg.Exporter == nil {
		return nil, fmt.Errorf("meter: Config.Exporter is required: %w", ErrConfig)
	}
	if cfg.IdleTimeout < 0 || cfg.ActiveTimeout < 0 || cfg.EndTimeout < 0 {
		return nil, fmt.Errorf("meter: Config: a timeout is negative: %w", ErrConfig)
	}
	if cfg.MaxFlows < 0 || cfg.MaxFlows > maxFlows {
		return nil, fmt.Errorf("meter: Config.MaxFlows is not between 1 and %d: %w", maxFlows, ErrConfig)
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 15 * time.Second
	}
	if cfg.ActiveTimeout == 0 {
		cfg.ActiveTimeout = 60 * time.Second
	}
	if cfg.EndTimeout == 0 {
		cfg.EndTimeout = time.Second
	}
	if cfg.MaxFlows == 0 {
		cfg.MaxFlows = 1 << 18
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	v4, err := template(TemplateIPv4, ipfix.SourceIPv4Address, ipfix.DestinationIPv4Address, 4, ipfix.IcmpTypeCodeIPv4)
	if err != nil {
		return nil, fmt.Errorf("meter: %w", err)
	}
	v6, err := template(TemplateIPv6, ipfix.SourceIPv6Address, ipfix.DestinationIPv6Address, 16, ipfix.IcmpTypeCodeIPv6)
	if err != nil {
		return nil, fmt.Errorf("meter: %w", err)
	}
	return &Meter{
		config:    cfg,
		idle:      int64(min(cfg.IdleTimeout, maxTime)),
		active:    int64(min(cfg.ActiveTimeout, maxTime)),
		final:     int64(min(cfg.EndTimeout, cfg.IdleTimeout, maxTime)),
		templates: map[byte]*ipfix.Template{4: v4, 6: v6},
		cache:     newCache(),
		seed:      maphash.MakeSeed(),
	}, nil
}

// Packets meters packets in the order given; the meter keeps nothing of them. An
// error is the Exporter's: the flow that could not be exported stays in the
// cache, and this and the later packets of ps are not metered but counted in
// Stats.Dropped.
func (m *Meter) Packets(ctx context.Context, ps []Packet) error {
	defer m.publish()
	for len(ps) > 0 {
		n := min(len(ps), batch)
		if err := m.meter(ctx, ps[:n]); err != nil {
			rest := uint64(len(ps) - n)
			m.stats.Packets += rest
			m.stats.Dropped += rest
			return err
		}
		ps = ps[n:]
	}
	return nil
}

// meter meters up to batch packets: it parses all of them, then touches the
// flows of all of them, and then counts, so that the processor waits for memory
// once instead of for each packet.
func (m *Meter) meter(ctx context.Context, ps []Packet) error {
	m.stats.Packets += uint64(len(ps))
	n := 0
	for i := range ps {
		o := &m.seen[n]
		v := o.observe(&ps[i])
		m.verdicts[v]++
		if v == ok {
			o.hash = uint32(maphash.Bytes(m.seed, o.key[:]))
			n++
		}
	}
	seen := m.seen[:n]
	for i := range seen {
		m.touched += m.cache.touch(seen[i].hash)
	}
	for i := range seen {
		o := &seen[i]
		if err := m.count(ctx, o); err != nil {
			m.stats.Dropped += uint64(n - i)
			return err
		}
		m.stats.Metered++
		m.stats.Octets += o.octets
		m.now = max(m.now, o.at)
	}
	return m.sweep(ctx)
}

// count adds a packet to its flow.
func (m *Meter) count(ctx context.Context, o *observation) error {
	f := m.cache.find(&o.key, o.hash)
	switch {
	case f == nil:
		if m.cache.used == m.config.MaxFlows {
			if err := m.evict(ctx); err != nil {
				return err
			}
		}
		f = m.cache.insert(o)
	default:
		reason := m.ended(f, o.at)
		if reason == 0 && o.flags&tcpSYN != 0 && f.finished() {
			reason = EndOfFlow // a new connection between the same ports
		}
		if reason != 0 {
			if err := m.export(ctx, f, reason); err != nil {
				return err
			}
			f.reset(o)
		}
	}
	f.add(o)
	return nil
}

// ended says why a flow has ended by the time at, or 0 if it has not. What
// came first counts, so the answer does not depend on when the question is asked.
func (m *Meter) ended(f *flow, at int64) EndReason {
	idle, reason := f.end+m.idle, IdleTimeout
	if f.finished() {
		idle, reason = f.end+m.final, EndOfFlow
	}
	active := f.start + m.active
	switch {
	case at >= idle && idle <= active:
		return reason
	case at >= active && active < idle:
		return ActiveTimeout
	}
	return 0
}

// expel exports the flow of a number and frees its place, for a reason unless
// it has ended for another.
func (m *Meter) expel(ctx context.Context, number uint32, reason EndReason) error {
	f := m.cache.at(number)
	if own := m.ended(f, m.now); own != 0 {
		reason = own
	}
	if err := m.export(ctx, f, reason); err != nil {
		return err
	}
	m.cache.remove(number)
	return nil
}

func (m *Meter) export(ctx context.Context, f *flow, reason EndReason) error {
	m.record = f.appendRecord(m.record[:0], reason)
	if err := m.config.Exporter.Export(ctx, m.templates[f.key[keyVersion]], m.record); err != nil {
		return fmt.Errorf("meter: export flow: %w", err)
	}
	m.reasons[reason]++
	return nil
}

// Advance tells the meter the time, Unix nanoseconds, where no packet does:
// flows that have ended by then are exported within a fourth of the shortest
// timeout. A clock that was set back by more than the active timeout is followed.
// Errors are those of Packets.
func (m *Meter) Advance(ctx context.Context, now int64) error {
	defer m.publish()
	now = min(max(now, 0), maxTime)
	if m.now-now > m.active {
		m.now, m.swept = now, now
	}
	m.now = max(m.now, now)
	return m.sweep(ctx)
}

// Flush exports all flows, those that have not ended with ForcedEnd. Errors are
// those of Packets; the flows not exported stay.
func (m *Meter) Flush(ctx context.Context) error {
	defer m.publish()
	if m.asked.Load() {
		if err := m.servePulls(ctx); err != nil {
			return err
		}
	}
	for number := range m.cache.high {
		f := m.cache.at(number)
		if f.packets == 0 {
			continue
		}
		reason := ForcedEnd
		if f.finished() {
			reason = EndOfFlow
		}
		if err := m.expel(ctx, number, reason); err != nil {
			return err
		}
	}
	return nil
}
