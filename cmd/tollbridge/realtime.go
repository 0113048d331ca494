package main

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"tollbridge/aaaclient"
	"tollbridge/asm/acct"
)

// A realtime enforces Accounting-Realtime-Required DELIVER_AND_GRANT (RFC 6733,
// Section 9.8.7): while no peer takes the records of a realm whose server
// demands that, it has the sessions ended of which a record waits, once each.
type realtime struct {
	client interface {
		Stats() aaaclient.Stats
		RouteOf(realm []byte) int
	}
	outbox interface {
		PendingOf(ctx context.Context, after uint64, max int, of func(realm []byte) bool) ([]acct.Delivery, uint64, bool, error)
	}
	withdraw func(withdrawal) bool // does not block; false where its NAS has no room for now
	log      *slog.Logger
	patience time.Duration // how long a peer may be away

	away   map[int]time.Time     // since when no peer takes a route's requests
	denied []int                 // routes of which sessions are ended
	after  uint64                // records up to this ID are looked at
	ended  map[string]bool       // Session-Ids of these
	waits  map[string]withdrawal // of these, by Session-Id, which are to be withdrawn yet
	count  atomic.Uint64         // that were withdrawn
}

// run looks once a second until ctx ends.
func (r *realtime) run(ctx context.Context) error {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-every.C:
			if err := r.look(ctx, now); err != nil && ctx.Err() == nil {
				r.log.Error("sessions whose records can't be delivered are not looked for", "error", err)
			}
		}
	}
}

// look ends the sessions of which a record waits now that must not. Whoever
// ends them hears of it once, until all routes have peers again.
func (r *realtime) look(ctx context.Context, now time.Time) error {
	denied := r.routes(now)
	if !slices.Equal(denied, r.denied) {
		r.denied, r.after = denied, 0
		for id := range r.waits { // it may go on now, or is found again
			delete(r.ended, id)
		}
		clear(r.waits)
	}
	if len(denied) == 0 {
		r.ended = nil
		return nil
	}
	for more := true; more; {
		var list []acct.Delivery
		var through uint64
		var err error
		list, through, more, err = r.outbox.PendingOf(ctx, r.after, pendingAtOnce, func(realm []byte) bool {
			return slices.Contains(denied, r.client.RouteOf(realm))
		})
		if err != nil {
			return err
		}
		for i := range list {
			r.deny(&list[i].Record)
			r.after = list[i].ID
		}
		r.after = max(r.after, through)
	}
	for id, w := range r.waits {
		if r.withdraw(w) {
			delete(r.waits, id)
			r.count.Add(1)
		}
	}
	return nil
}

// pendingAtOnce is how many records of the outbox are read at once.
const pendingAtOnce = 512

// routes returns the routes that no peer has served for too long though one
// demands it.
func (r *realtime) routes(now time.Time) []int {
	if r.away == nil {
		r.away = make(map[int]time.Time)
	}
	var denied []int
	for i, s := range r.client.Stats().Routes {
		if s.Ready || !s.Realtime {
			delete(r.away, i)
			continue
		}
		if _, known := r.away[i]; !known {
			r.away[i] = now
		}
		if now.Sub(r.away[i]) >= r.patience {
			denied = append(denied, i)
		}
	}
	return denied
}

// deny notes that the session of a record is to be ended, if it is ours and has
// not been noted, and forgets one that is over.
func (r *realtime) deny(rec *acct.Record) {
	id := rec.SessionID
	switch {
	case rec.Type == acct.Stop:
		delete(r.waits, id)
		return
	case rec.Type != acct.Start && rec.Type != acct.Interim || rec.Received != nil || r.ended[id]:
		return
	case r.ended == nil:
		r.ended = make(map[string]bool)
	}
	if r.waits == nil {
		r.waits = make(map[string]withdrawal)
	}
	r.ended[id] = true
	r.waits[id] = withdrawal{id, rec.User, rec.Attributes, rec.Source, rec.NAS, "its records can't be delivered, and the server demands DELIVER_AND_GRANT"}
}
