package asm

import (
	"context"
	"errors"
	"fmt"
	"time"

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

// Reasons returns why flows may be suspended, as acct.Suspended has it.
func Reasons() []string {
	return []string{reasonUnmapped, reasonBelowFloor, reasonAhead, reasonForgotten, reasonConflict}
}

// A suspense knows of the suspended flows what must be known without reading
// them: they live in the store.
type suspense struct {
	next     uint64 // ID
	unmapped uint64 // how many wait for a user
	offered  uint64 // up to this ID the fallback user was offered what waits
	remap    int64  // when what waits for a user is mapped again, Unix nanoseconds; 0 for not
	since    int64  // the oldest beyond that waits no longer than since then, Unix nanoseconds; 0 for none

	setBacks []setBack // of the clock, while flows wait that it matters to

	added    []acct.Suspended // since the last checkpoint
	released []uint64         // the same, of those in the store
	again    []acct.Suspended // suspended while resume looks through what was before
	resuming bool             // it does

	backstage backstage
	err       error // of the store, until the entry at hand is through
}

// suspend puts f aside.
func (m *Module) suspend(f *flow, reason string, r heldRecord, row *acct.LedgerRow, key acct.LedgerKey) {
	n := f.count()
	row.Suspended = row.Suspended.Plus(n)
	s := &m.suspense
	to := &s.added
	if s.resuming {
		to = &s.again
	}
	s.backstage.set(s.next, f.behind)
	*to = append(*to, acct.Suspended{
		ID: s.next, Key: key, Count: n, Reason: reason, Since: m.now, FlowEnd: f.end,
		Source: f.String(), Position: m.decoder.position, Flow: appendHeld(nil, f, r),
	})
	s.next++
	if reason == reasonUnmapped {
		s.waits(m.now)
	}
}

// waits notes one more flow without a user.
func (s *suspense) waits(now int64) {
	s.unmapped++
	if s.since == 0 {
		s.since = now
	}
}

// wait suspends x, which leaves suspense otherwise, for want of a user.
func (m *Module) wait(x *acct.Suspended, h *held) {
	s := &m.suspense
	row := m.ledger.row(x.Key)
	row.Suspended = row.Suspended.Plus(x.Count)
	y := *x
	y.ID, y.Reason, y.Since = s.next, reasonUnmapped, m.now
	y.Flow = appendHeld(nil, &h.flow, heldRecord{})
	s.backstage.set(s.next, h.flow.behind)
	s.again = append(s.again, y)
	s.next++
	s.waits(m.now)
}

// errEnough ends a scan of the store.
var errEnough = errors.New("enough")

// resume offers each suspended flow beyond ID after that is wanted, in order,
// to take, which books what becomes of one that leaves suspense and reports
// whether it does. It stops at the first that enough says so of.
func (m *Module) resume(ctx context.Context, after uint64, wanted, enough func(*acct.Suspended) bool,
	take func(*acct.Suspended, *held) (bool, error)) error {
	s := &m.suspense
	s.resuming = true
	defer func() { s.resuming = false }()
	// one reports whether the flow left suspense.
	one := func(x *acct.Suspended) (bool, error) {
		if !wanted(x) {
			return false, nil
		}
		h, err := s.held(x)
		if err != nil {
			return false, err
		}
		m.decoder.position = x.Position
		gone, err := take(x, &h)
		if !gone || err != nil {
			return false, err
		}
		row := m.ledger.row(x.Key)
		row.Resumed = row.Resumed.Plus(x.Count)
		if s.backstage.set(x.ID, nil); x.Reason == reasonUnmapped {
			s.unmapped--
		}
		return true, nil
	}
	err := m.eachStored(ctx, after, func(x *acct.Suspended) error {
		if enough(x) {
			return errEnough
		}
		gone, err := one(x)
		if gone {
			s.released = append(s.released, x.ID)
		}
		return err
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
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
	s.added = append(kept, s.again...)
	clear(s.again)
	s.again = s.again[:0]
	return nil
}

// eachStored visits the suspended flows beyond ID after that the store has and
// that are not released since, in order. It returns the error of visit.
func (m *Module) eachStored(ctx context.Context, after uint64, visit func(*acct.Suspended) error) error {
	released := make(map[uint64]bool, len(m.suspense.released))
	for _, id := range m.suspense.released {
		released[id] = true
	}
	err := m.store.EachSuspended(ctx, after, func(x acct.Suspended) error {
		if released[x.ID] {
			return nil
		}
		return visit(&x)
	})
	if err != nil {
		return fmt.Errorf("asm: read suspended flows: %w", err)
	}
	return nil
}

// held returns the flow that x is of.
func (s *suspense) held(x *acct.Suspended) (h held, err error) {
	if h, err = parseHeld(x.Flow); err != nil {
		return h, fmt.Errorf("asm: suspended flow %d: %w", x.ID, err)
	}
	h.flow.behind = s.backstage.of[x.ID]
	return h, nil
}

func isUnmapped(x *acct.Suspended) bool { return x.Reason == reasonUnmapped }

// retry maps suspended flows again, as the users have changed.
func (m *Module) retry(ctx context.Context) error {
	m.suspense.remap = 0
	if m.suspense.unmapped == 0 || m.settings.Mode != ModeASM {
		return nil
	}
	return m.resume(ctx, 0, isUnmapped, func(*acct.Suspended) bool { return false },
		func(x *acct.Suspended, h *held) (bool, error) {
			accounted, mirrored := m.mapped(&h.flow, x.Key)
			if accounted.IsZero() {
				return false, nil
			}
			h.flow.book(m.ledger.row(x.Key), accounted, mirrored)
			return true, nil
		})
}

// Flows wait for events of user sessions for remapAfter and, as there may be
// many of both, for another remapEach for each flow that waits.
const (
	remapAfter = time.Second
	remapEach  = 50 * time.Microsecond
)

// retryLater lets suspended flows be mapped again soon.
func (m *Module) retryLater() {
	s := &m.suspense
	if s.remap == 0 && s.unmapped > 0 && m.settings.Mode == ModeASM {
		s.remap = m.now + int64(remapAfter) + int64(min(s.unmapped, 1<<20))*int64(remapEach)
	}
}

// fallback accounts to the fallback user, if there is one, what has waited
// for a user for longer than it may. The source stands for the user's side,
// unless that is known.
func (m *Module) fallback(ctx context.Context) error {
	s := &m.suspense
	limit := m.now - m.settings.Wait.Nanoseconds()
	if m.settings.Fallback == "" || m.settings.Mode != ModeASM || s.since == 0 || s.since > limit {
		return nil
	}
	since := int64(0)
	err := m.resume(ctx, s.offered, isUnmapped,
		func(x *acct.Suspended) bool {
			if at := s.waitsSince(x.ID, x.Since); at > limit {
				since = at
				return true
			}
			s.offered = x.ID
			return false
		},
		func(x *acct.Suspended, h *held) (bool, error) {
			user := m.open(bindingKey{user: m.settings.Fallback})
			m.accountSide(&h.flow, user.tally, h.flow.half == destinationEnd, x.Key, x.Count)
			h.flow.book(m.ledger.row(x.Key), x.Count, acct.Count{})
			return true, nil
		})
	s.since = since
	return err
}
