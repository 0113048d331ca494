package backlog

import (
	"fmt"
	"os"
	"slices"
)

// A Loss is a Message that is given up.
type Loss struct {
	Entry
	Sent bool // it may have arrived
}

// GiveUp removes the oldest segment with Messages that are not acknowledged,
// after report has returned nil for them, which appends what tells of it. It
// does nothing if there is none but the one that is appended to.
func (b *Backlog) GiveUp(report func([]Loss) error) error {
	b.mu.Lock()
	var victim *segment
	if len(b.segments) > 1 || len(b.segments) == 1 && b.active == nil {
		victim = b.segments[0]
	}
	acked, sent := b.acked, b.sent
	if victim != nil {
		b.floor = max(b.floor, victim.last)
	}
	b.mu.Unlock()
	if victim == nil {
		return nil
	}
	f, err := os.Open(victim.path)
	if err != nil {
		return fmt.Errorf("backlog: %w", err)
	}
	defer f.Close()
	var losses []Loss
	r := reading{f: f, end: victim.end, instance: b.instance}
	for {
		e, ok, err := r.next()
		if err != nil {
			return fmt.Errorf("backlog: %w", err)
		}
		if !ok {
			break
		}
		if e.Kind != Template && e.Position > acked {
			if e.Kind == Report {
				e.Octets = slices.Clone(e.Octets)
			} else {
				e.Octets = nil
			}
			losses = append(losses, Loss{e, e.Position <= sent})
		}
	}
	if len(losses) > 0 {
		if err := report(losses); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.segments, victim); i >= 0 {
		b.segments = slices.Delete(b.segments, i, i+1)
		b.remove(victim)
		b.free()
	}
	return nil
}
