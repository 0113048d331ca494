package aaaclient

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"tollbridge/asm/acct"
)

// An outboxModel is the plainest Outbox: a slice in memory. It checks what a
// client may never do: settle a record that it has settled before, or one
// that was not marked, or mark one while an earlier one of its session is not
// settled.
type outboxModel struct {
	mu       sync.Mutex
	rows     []*row              // by ID, from 1
	open     map[string][]uint64 // not settled, in order, by Session-Id
	fresh    uint32              // End-to-End Identifiers of new requests, with the top bit
	pending  int
	wake     chan struct{}
	finished chan struct{} // receives when nothing is pending any more
	faults   []string
	fail     func(call string) error // nil never fails
	read     func()                  // called behind each reading; nil for nothing
}

type row struct {
	acct.Delivery
	state   acct.DeliveryState
	marked  bool
	settled []acct.Settlement // all, in order
}

func newOutbox() *outboxModel {
	return &outboxModel{open: map[string][]uint64{}, wake: make(chan struct{}, 1), finished: make(chan struct{}, 1)}
}

func (o *outboxModel) add(records ...acct.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range records {
		id := uint64(len(o.rows) + 1)
		o.rows = append(o.rows, &row{Delivery: acct.Delivery{ID: id, Record: r, EndToEnd: uint32(id)}})
		o.open[r.SessionID] = append(o.open[r.SessionID], id)
		o.pending++
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outboxModel) Wake() <-chan struct{} { return o.wake }

func (o *outboxModel) failing(call string) error {
	if o.fail == nil {
		return nil
	}
	return o.fail(call)
}

func (o *outboxModel) Pending(_ context.Context, after uint64, max int) ([]acct.Delivery, error) {
	if o.read != nil {
		defer o.read()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.failing("pending"); err != nil {
		return nil, err
	}
	var out []acct.Delivery
	for i := after; i < uint64(len(o.rows)) && len(out) < max; i++ {
		if r := o.rows[i]; r.state == acct.Pending {
			d := r.Delivery
			d.MaySent = d.MaySent || r.marked
			out = append(out, d)
		}
	}
	return out, nil
}

func (o *outboxModel) MarkSent(_ context.Context, ids []uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.failing("mark"); err != nil {
		return err
	}
	for _, id := range ids {
		r := o.rows[id-1]
		if open := o.open[r.Record.SessionID]; len(open) > 0 && open[0] < id {
			o.faults = append(o.faults, fmt.Sprintf("record %d is marked before record %d of its session is settled", id, open[0]))
		}
		r.marked = true
	}
	return nil
}

func (o *outboxModel) Settle(_ context.Context, settlements []acct.Settlement) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.failing("settle"); err != nil {
		return err
	}
	for _, s := range settlements {
		r := o.rows[s.ID-1]
		if r.state != acct.Pending {
			o.faults = append(o.faults, fmt.Sprintf("record %d is settled again: %v after %v", s.ID, s.State, r.state))
		}
		if !r.marked {
			o.faults = append(o.faults, fmt.Sprintf("record %d is settled and was not marked", s.ID))
		}
		r.settled = append(r.settled, s)
		if r.state = s.State; s.State == acct.Pending {
			o.fresh++
			r.EndToEnd, r.marked, r.MaySent = 1<<31|o.fresh, s.MaySent, s.MaySent
			r.Attempts++
			continue
		}
		session := r.Record.SessionID
		o.open[session] = slices.DeleteFunc(o.open[session], func(id uint64) bool { return id == s.ID })
		if o.pending--; o.pending == 0 {
			select {
			case o.finished <- struct{}{}:
			default:
			}
		}
	}
	return nil
}

// isMarked reports whether a record may be on the wire.
func (o *outboxModel) isMarked(id uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rows[id-1].marked || o.rows[id-1].MaySent
}

// check reports what the model has found wrong, and any record in another
// state than want.
func (o *outboxModel) check(t *testing.T, want acct.DeliveryState, except ...uint64) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range o.faults {
		t.Error(f)
	}
	for _, r := range o.rows {
		if r.state != want && !slices.Contains(except, r.ID) {
			t.Errorf("record %d is %v, want %v: %+v", r.ID, r.state, want, r.settled)
		}
	}
}

func (o *outboxModel) state(id uint64) (acct.DeliveryState, []acct.Settlement) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rows[id-1].state, slices.Clone(o.rows[id-1].settled)
}

// records makes n records over some sessions, each START, INTERIM ..., STOP.
func records(sessions, perSession int) []acct.Record {
	var out []acct.Record
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for number := range perSession {
		for s := range sessions {
			typ := acct.Interim
			switch number {
			case 0:
				typ = acct.Start
			case perSession - 1:
				typ = acct.Stop
			}
			out = append(out, acct.Record{
				SessionID: fmt.Sprintf("bridge.visited.example;1;%d", s+1), Number: uint32(number), Type: typ,
				User: fmt.Sprintf("user%d", s+1), Start: start, End: start.Add(time.Minute), Event: start.Add(time.Minute),
				SessionTime: time.Duration(number) * time.Minute,
				Usage:       acct.Usage{InputOctets: uint64(number) * 1000, OutputOctets: uint64(number) * 5000, InputPackets: uint64(number), OutputPackets: uint64(number) * 2},
			})
		}
	}
	return out
}

// requeue puts a record once more to the end, as an operator does.
func (o *outboxModel) requeue(id uint64) {
	o.mu.Lock()
	r := o.rows[id-1].Record
	o.mu.Unlock()
	o.add(r)
}

// PendingOf looks at ten records at once.
func (o *outboxModel) PendingOf(ctx context.Context, after uint64, max int, of func(realm []byte) bool) (list []acct.Delivery, through uint64, more bool, err error) {
	all, err := o.Pending(ctx, after, 10)
	if err != nil {
		return nil, after, true, err
	}
	through = after
	for _, r := range all {
		if len(list) == max {
			return list, through, true, nil
		}
		if through = r.ID; of([]byte(r.Record.Realm)) {
			list = append(list, r)
		}
	}
	return list, through, len(all) == 10, nil
}
