package asm

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"tollbridge/asm/acct"
)

// A Tracer is told of which flows the accounting records are made, in the
// order in which that happens. Auditors read the journal again with one; the
// daemon has none.
type Tracer interface {
	// Flow is called for each flow that is accounted to a session, which the
	// pipeline numbers.
	Flow(session uint64, f TracedFlow)

	// Record is called when r is cut of what was accounted to the session since
	// the record before. Session 0 is r's own: it has the flows just told.
	Record(session uint64, r *acct.Record)
}

// A TracedFlow is one flow as it was accounted to one user.
type TracedFlow struct {
	acct.LedgerKey
	Position   uint64 // of the journal entry that brought it
	User       string
	Endpoints  string // addresses and ports, for people
	Start, End time.Time
	Usage      acct.Usage
	Count      acct.Count // as the books have it
}

// traceFlow tells the tracer of f, accounted to s.
func (m *Module) traceFlow(s *session, f *flow, u acct.Usage, key acct.LedgerKey, n acct.Count) {
	m.tracer.Flow(s.id, m.traced(f, s.key.user, u, key, n))
}

func (m *Module) traced(f *flow, user string, u acct.Usage, key acct.LedgerKey, n acct.Count) TracedFlow {
	return TracedFlow{
		LedgerKey: key, Position: m.decoder.position, User: user, Endpoints: f.String(),
		Start: milliTime(f.start), End: milliTime(f.end), Usage: u, Count: n,
	}
}

// traceRecord tells the tracer, if there is one, that r is cut of s.
func (m *Module) traceRecord(s *session, r *acct.Record) {
	if m.tracer != nil {
		m.tracer.Record(s.id, r)
	}
}

// An Opening is what a Module may begin at in place of the journal's first
// entry: a checkpoint without its identities, so that a record whose first copy
// came before is not recognized as a duplicate.
type Opening struct {
	acct.Checkpoint
	Suspended []acct.Suspended // in order of ID
}

// Replay reads the journal again from an opening on, and stores nothing.
type Replay struct {
	m       *Module
	applied int
}

// NewReplay begins at an opening; its zero value but for Epoch and HashKey is
// the journal's beginning. The journal gives the entries from before that
// still wait for a Template.
func NewReplay(ctx context.Context, o Opening, journal Journal, t Tracer, log *slog.Logger) (*Replay, error) {
	m, err := New(ctx, Config{Store: newOpened(o), Journal: journal, Tracer: t, Log: log})
	if err != nil {
		return nil, err
	}
	return &Replay{m: m}, nil
}

// Apply takes in the next entry.
func (r *Replay) Apply(ctx context.Context, e acct.Entry) error {
	if err := r.m.Apply(ctx, e); err != nil {
		return err
	}
	if r.applied++; r.applied%10_000 == 0 {
		return r.m.Checkpoint(ctx) // so that what is cut does not pile up
	}
	return nil
}

// An opened Store holds an opening and keeps what the Module reads back.
type opened struct {
	checkpoint acct.Checkpoint
	suspended  map[uint64]acct.Suspended
}

func newOpened(o Opening) *opened {
	s := &opened{checkpoint: o.Checkpoint, suspended: make(map[uint64]acct.Suspended)}
	for _, x := range o.Suspended {
		s.suspended[x.ID] = x
	}
	return s
}

// Load implements Store.
func (s *opened) Load(context.Context) (acct.Checkpoint, error) { return s.checkpoint, nil }

// EachIdentity implements Store.
func (s *opened) EachIdentity(context.Context, func(acct.Identities) error) error { return nil }

// EachSuspended implements Store.
func (s *opened) EachSuspended(_ context.Context, after uint64, visit func(acct.Suspended) error) error {
	for _, id := range slices.Sorted(maps.Keys(s.suspended)) {
		if id <= after {
			continue
		}
		if err := visit(s.suspended[id]); err != nil {
			return err
		}
	}
	return nil
}

// Commit implements Store.
func (s *opened) Commit(_ context.Context, b acct.Batch) error {
	for _, x := range b.Suspended {
		s.suspended[x.ID] = x
	}
	for _, id := range b.Released {
		delete(s.suspended, id)
	}
	return nil
}
