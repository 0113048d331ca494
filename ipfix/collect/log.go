package collect

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"tollbridge/ipfix/ack"
)

// logDue says whether the n-th event of a kind is to be logged, and how many
// the line then stands for: the 1st, 10th, 100th and so on are, each for
// itself and those since the line before.
func logDue(n uint64) (standsFor uint64, due bool) {
	for before, at := uint64(0), uint64(1); ; before, at = at, at*10 {
		if n == at {
			return n - before, true
		}
		if n < at || at > n/10 {
			return 0, false
		}
	}
}

// logRefused logs that a stranger, or one beyond a limit, was turned away.
func (p *Process) logRefused(remote netip.AddrPort) {
	if times, due := logDue(p.refusals.Add(1)); due {
		p.cfg.Log.Warn("exporter refused", "remote", remote, "times", times)
	}
}

// logDrops logs that the count of dropped datagrams rose.
func (p *Process) logDrops(local netip.AddrPort, before, after uint64) {
	if digits(before) != digits(after) {
		p.cfg.Log.Error("datagrams are dropped", "local", local, "dropped", after)
	}
}

// digits returns the number of decimal digits of n, 0 for 0.
func digits(n uint64) (d int) {
	for ; n > 0; n /= 10 {
		d++
	}
	return d
}

// linesPerMinute bounds the lines about the sessions of an exporter, and about
// those of all exporters together where none are configured: addresses over UDP
// cost nothing.
const linesPerMinute = 60

// A ration bounds lines of the log. The zero ration is whole. Its methods may
// be called at once.
type ration struct {
	mu       sync.Mutex
	minute   int64 // the latest, in Unix minutes
	lines    int   // logged in it
	withheld uint64
}

// take reports whether a line may be logged, and how many were withheld since
// the one before.
func (r *ration) take(at time.Time) (withheld uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := at.Unix() / 60; m != r.minute {
		r.minute, r.lines = m, 0
	}
	if r.lines >= linesPerMinute {
		r.withheld++
		return 0, false
	}
	r.lines++
	withheld, r.withheld = r.withheld, 0
	return withheld, true
}

// logSession logs what became of a session of an exporter, within its ration.
func (p *Process) logSession(level slog.Level, msg string, e *exporter, args ...any) {
	withheld, ok := e.lines.take(p.cfg.Now())
	if !ok {
		return
	}
	args = append([]any{"exporter", e.name}, args...)
	if withheld > 0 {
		args = append(args, "withheld", withheld)
	}
	p.cfg.Log.Log(context.Background(), level, msg, args...)
}

// logAcknowledged says that an exporter asked for acknowledged export.
func (p *Process) logAcknowledged(a *answerer, id ack.Identity) {
	p.cfg.Log.Info("exporter asks for acknowledgements", "exporter", a.exporter, "remote", a.remote,
		"instance", id.Instance, "position", id.Position, "version", id.Version)
}
