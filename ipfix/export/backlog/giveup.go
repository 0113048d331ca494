package backlog

import (
	"fmt"
	"os"
	"slices"
)

// A Loss is a Message that is given up, or can't be read any more.
type Loss struct {
	Entry
	Sent bool // it may have arrived

	// Damaged is set where the Message, or a Template that it needs, is not
	// there as it was written. Octets are nil then, Records what is left of it
	// says: 0 where nothing does.
	Damaged bool
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
	r.of(victim)
	for {
		e, ok, err := r.next()
		if err != nil {
			return fmt.Errorf("backlog: %w", err)
		}
		if !ok {
			losses = append(losses, b.damaged(victim, r.missing(victim.last+1), acked)...)
			break
		}
		if e.Kind == Template {
			continue
		}
		losses = append(losses, b.damaged(victim, r.missing(e.Position), acked)...)
		r.from = e.Position + 1
		if e.Position > acked {
			if e.Kind == Report {
				e.Octets = slices.Clone(e.Octets)
			} else {
				e.Octets = nil
			}
			losses = append(losses, Loss{Entry: e, Sent: e.Position <= sent})
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

// damaged returns those of the Messages missing in a segment that are behind a
// position, and says so in the log.
func (b *Backlog) damaged(s *segment, losses []Loss, behind uint64) []Loss {
	losses = slices.DeleteFunc(losses, func(l Loss) bool { return l.Position <= behind })
	if n := len(losses); n > 0 {
		b.cfg.Log.Error("messages of the spool are damaged: they are lost", "file", s.path,
			"first", losses[0].Position, "last", losses[n-1].Position, "messages", n)
	}
	return losses
}
