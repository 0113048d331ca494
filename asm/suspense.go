package asm

import (
	"context"
	"errors"
	"fmt"

	"tollbridge/asm/acct"
)

// Reasons of acct.Suspended.
const (
	reasonUnmapped   = "unmapped"       // nobody held an address of the flow
	reasonBelowFloor = "below floor"    // too old to be proven new
	reasonAhead      = "ahead of clock" // ends later than its arrival allows
	reasonConflict   = "conflict"       // it came in a request whose Session-Id and number another has, with other content
	reasonForgotten  = "total unknown"  // its counters are totals, and it may be a flow whose last ones were forgotten
)

// A suspense knows of the suspended flows what must be known without reading
// them: they live in the store.
type suspense struct {
	next     uint64 // ID
	unmapped uint64 // how many wait for a user
	offered  uint64 // up to this ID the fallback user was offered what waits
	since    int64  // the oldest beyond that waits no longer than since then, Unix nanoseconds; 0 for none

	added    []acct.Suspended // since the last checkpoint
	released []uint64         // the same, of those in the store
}

// suspend puts f aside.
func (m *Module) suspend(f *flow, reason string, row *acct.LedgerRow, key acct.LedgerKey) {
	n := f.count()
	row.Suspended = row.Suspended.Plus(n)
	s := &m.suspense
	s.added = append(s.added, acct.Suspended{
		ID: s.next, Key: key, Count: n, Reason: reason, Since: m.now, FlowEnd: f.end,
		Source: f.String(), Position: m.decoder.position, Flow: f.appendBinary(nil),
	})
	s.next++
	if reason == reasonUnmapped {
		s.unmapped++
		if s.since == 0 {
			s.since = m.now
		}
	}
}

// errEnough ends a scan of the store.
var errEnough = errors.New("enough")

// resume offers each suspended flow beyond ID after, in order, to take, which
// says what was accounted of it. A flow of which something was accounted
// leaves suspense. It stops at the first that enough says so of.
func (m *Module) resume(ctx context.Context, after uint64, enough func(*acct.Suspended) bool,
	take func(*flow, acct.LedgerKey) (accounted, mirrored acct.Count)) error {
	s := &m.suspense
	released := make(map[uint64]bool, len(s.released))
	for _, id := range s.released {
		released[id] = true
	}
	// one reports whether the flow left suspense.
	one := func(x *acct.Suspended) (bool, error) {
		if x.Reason != reasonUnmapped {
			return false, nil
		}
		f, err := parseFlow(x.Flow)
		if err != nil {
			return false, fmt.Errorf("asm: suspended flow %d: %w", x.ID, err)
		}
		m.decoder.position = x.Position
		accounted, mirrored := take(&f, x.Key)
		if accounted.IsZero() {
			return false, nil
		}
		row := m.ledger.row(x.Key)
		row.Resumed = row.Resumed.Plus(x.Count)
		f.book(row, accounted, mirrored)
		s.unmapped--
		return true, nil
	}
	err := m.store.EachSuspended(ctx, after, func(x acct.Suspended) error {
		if released[x.ID] {
			return nil
		}
		if enough(&x) {
			return errEnough
		}
		gone, err := one(&x)
		if gone {
			s.released = append(s.released, x.ID)
		}
		return err
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("asm: read suspended flows: %w", err)
	}
	// Those of this checkpoint are not in the store yet.
	kept := s.added[:0]
	for i := range s.added {
		x := &s.added[i]
		gone := false
		if err == nil && x.ID > after {
			if enough(x) {
				err = errEnough
			} else if gone, err = one(x); err != nil {
				return err
			}
		}
		if !gone {
			kept = append(kept, *x)
		}
	}
	clear(s.added[len(kept):])
	s.added = kept
	return nil
}

// retry maps suspended flows again, as the users have changed.
func (m *Module) retry(ctx context.Context) error {
	if m.suspense.unmapped == 0 || m.settings.Mode != ModeASM {
		return nil
	}
	return m.resume(ctx, 0, func(*acct.Suspended) bool { return false }, m.mapped)
}

// fallback accounts to the fallback user, if there is one, what has waited
// for a user for longer than it may. The source stands for the user's side.
func (m *Module) fallback(ctx context.Context) error {
	s := &m.suspense
	limit := m.now - m.settings.Wait.Nanoseconds()
	if m.settings.Fallback == "" || m.settings.Mode != ModeASM || s.since == 0 || s.since > limit {
		return nil
	}
	since := int64(0)
	err := m.resume(ctx, s.offered,
		func(x *acct.Suspended) bool {
			if x.Since > limit {
				since = x.Since
				return true
			}
			s.offered = x.ID
			return false
		},
		func(f *flow, key acct.LedgerKey) (accounted, mirrored acct.Count) {
			n := f.count()
			user := m.open(bindingKey{user: m.settings.Fallback})
			m.accountSide(f, user.tally, false, key, n)
			return n, acct.Count{}
		})
	s.since = since
	return err
}
