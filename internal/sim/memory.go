package sim

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"tollbridge/asm/acct"
)

// A memory is the disk in memory. A transaction is whole or not there at all;
// the journal can be torn, see tape.
type memory struct {
	tape    tape
	epoch   uint32
	hashKey [16]byte

	position, needed uint64
	time             int64
	sessions         map[uint64]acct.SessionState
	ledger           map[acct.LedgerKey]*memoryRow
	suspended        map[uint64]acct.Suspended
	nextSuspended    uint64
	state            map[[2]string][]byte
	identities       map[bucketKey][]byte

	rows    []*parcel // of the outbox, by ID from 1; nil for none
	endings uint32    // End-to-End Identifiers after error answers
	wake    chan struct{}
}

// A bucketKey names a bucket of an exporter's identities.
type bucketKey struct {
	exporter string
	bucket   int64
}

func (k bucketKey) compare(o bucketKey) int {
	return cmp.Or(cmp.Compare(k.exporter, o.exporter), cmp.Compare(k.bucket, o.bucket))
}

type memoryRow struct {
	acct.LedgerRow
	acknowledged acct.Count
}

// A parcel is a record in the outbox.
type parcel struct {
	id       uint64
	content  []byte
	shares   []acct.Share
	session  string
	number   uint32
	kind     acct.RecordType
	part     bool // it says not all of its classes
	state    acct.DeliveryState
	sent     bool
	attempts uint32
	endToEnd uint32
}

func newMemory() *memory {
	return &memory{
		sessions: map[uint64]acct.SessionState{}, ledger: map[acct.LedgerKey]*memoryRow{},
		suspended: map[uint64]acct.Suspended{}, state: map[[2]string][]byte{}, identities: map[bucketKey][]byte{},
		epoch: 7, hashKey: [16]byte{1, 2, 3}, nextSuspended: 1, wake: make(chan struct{}, 1),
	}
}

func (m *memory) close()                   {}
func (m *memory) write(group []acct.Entry) { m.tape.write(group) }
func (m *memory) sync() error              { m.tape.sync(); return nil }
func (m *memory) crash(rng randomness)     { m.tape.crash(rng); m.drainWake() }
func (m *memory) last() uint64             { return max(m.tape.end, m.position) }
func (m *memory) Wake() <-chan struct{}    { return m.wake }
func (m *memory) row(id uint64) *parcel    { return m.rows[id-1] }
func (m *memory) notify() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
func (m *memory) drainWake() {
	select {
	case <-m.wake:
	default:
	}
}

func (m *memory) entries(after uint64, max int) ([]acct.Entry, error) {
	return m.tape.after(after, max), nil
}

func (m *memory) Read(_ context.Context, position uint64) (acct.Entry, error) {
	return m.tape.entry(position)
}

func (m *memory) Trim(_ context.Context, below uint64) error {
	m.tape.trim(min(below, m.tape.end+1))
	return nil
}

// Commit implements asm.Store.
func (m *memory) Commit(_ context.Context, b acct.Batch) error {
	if b.Position < m.position || b.Needed > b.Position+1 {
		return fmt.Errorf("checkpoint at %d that needs %d, after one at %d", b.Position, b.Needed, m.position)
	}
	parcels := make([]*parcel, len(b.Records))
	for i := range b.Records {
		p, err := pack(&b.Records[i])
		if err != nil {
			return err
		}
		parcels[i] = p
	}
	for _, id := range b.Released {
		if _, ok := m.suspended[id]; !ok {
			return fmt.Errorf("released flow %d is not suspended", id)
		}
	}

	m.position, m.needed, m.time = b.Position, b.Needed, b.Time
	for _, p := range parcels {
		m.add(p)
	}
	for _, s := range b.Sessions {
		if s.Ended {
			delete(m.sessions, s.ID)
			continue
		}
		s.State, s.Open = bytes.Clone(s.State), slices.Clone(s.Open)
		m.sessions[s.ID] = s
	}
	for _, r := range b.Ledger {
		l := m.ledgerRow(r.LedgerKey)
		for _, c := range [...]struct{ to, add *acct.Count }{
			{&l.Received, &r.Received}, {&l.Mirrored, &r.Mirrored}, {&l.Accounted, &r.Accounted},
			{&l.Duplicate, &r.Duplicate}, {&l.Suspended, &r.Suspended}, {&l.Resumed, &r.Resumed},
			{&l.Rejected, &r.Rejected}, {&l.Skipped, &r.Skipped},
		} {
			*c.to = c.to.Plus(*c.add)
		}
	}
	for _, s := range b.Suspended {
		s.Flow = bytes.Clone(s.Flow)
		m.suspended[s.ID] = s
		m.nextSuspended = max(m.nextSuspended, s.ID+1)
	}
	for _, id := range b.Released {
		delete(m.suspended, id)
	}
	for _, s := range b.State {
		if s.Value == nil {
			delete(m.state, [2]string{s.Kind, s.Key})
			continue
		}
		m.state[[2]string{s.Kind, s.Key}] = bytes.Clone(s.Value)
	}
	for _, i := range b.Identities {
		k := bucketKey{i.Exporter, i.Bucket}
		m.identities[k] = append(m.identities[k], i.Data...)
	}
	for _, f := range b.Floors {
		maps.DeleteFunc(m.identities, func(k bucketKey, _ []byte) bool { return k.exporter == f.Exporter && k.bucket < f.Bucket })
	}
	if len(parcels) > 0 {
		m.notify()
	}
	return nil
}

func pack(r *acct.Record) (*parcel, error) {
	content, err := r.AppendBinary(nil)
	return &parcel{
		content: content, shares: slices.Clone(r.Shares), session: r.SessionID, number: r.Number, kind: r.Type, part: r.Parts > 1,
	}, err
}

func (m *memory) add(p *parcel) {
	p.id = uint64(len(m.rows) + 1)
	p.endToEnd = uint32(p.id)
	m.rows = append(m.rows, p)
}

func (m *memory) ledgerRow(key acct.LedgerKey) *memoryRow {
	l := m.ledger[key]
	if l == nil {
		l = &memoryRow{}
		l.LedgerKey = key
		m.ledger[key] = l
	}
	return l
}

// Load implements asm.Store. What it returns is a copy, as of what was read
// from a disk.
func (m *memory) Load(context.Context) (acct.Checkpoint, error) {
	cp := acct.Checkpoint{
		Position: m.position, Time: m.time, Epoch: m.epoch, HashKey: m.hashKey, NextSuspended: m.nextSuspended,
	}
	for _, id := range slices.Sorted(maps.Keys(m.sessions)) {
		s := m.sessions[id]
		s.State, s.Open = bytes.Clone(s.State), slices.Clone(s.Open)
		cp.Sessions = append(cp.Sessions, s)
	}
	keys := slices.SortedFunc(maps.Keys(m.state), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	for _, k := range keys {
		cp.State = append(cp.State, acct.State{Kind: k[0], Key: k[1], Value: bytes.Clone(m.state[k])})
	}
	return cp, nil
}

// EachIdentity implements asm.Store.
func (m *memory) EachIdentity(_ context.Context, visit func(acct.Identities) error) error {
	for _, k := range slices.SortedFunc(maps.Keys(m.identities), bucketKey.compare) {
		if err := visit(acct.Identities{Exporter: k.exporter, Bucket: k.bucket, Data: m.identities[k]}); err != nil {
			return err
		}
	}
	return nil
}

// EachSuspended implements asm.Store.
func (m *memory) EachSuspended(_ context.Context, after uint64, visit func(acct.Suspended) error) error {
	for _, id := range slices.Sorted(maps.Keys(m.suspended)) {
		if id <= after {
			continue
		}
		if err := visit(m.suspended[id]); err != nil {
			return err
		}
	}
	return nil
}

// Pending implements aaaclient.Outbox.
func (m *memory) Pending(_ context.Context, after uint64, max int) ([]acct.Delivery, error) {
	var out []acct.Delivery
	for i := after; i < uint64(len(m.rows)) && len(out) < max; i++ {
		p := m.rows[i]
		if p == nil || p.state != acct.Pending {
			continue
		}
		d := acct.Delivery{ID: p.id, EndToEnd: p.endToEnd, MaySent: p.sent, Attempts: p.attempts}
		if err := d.Record.UnmarshalBinary(p.content); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// MarkSent implements aaaclient.Outbox.
func (m *memory) MarkSent(_ context.Context, ids []uint64) error {
	for _, id := range ids {
		m.row(id).sent = true
	}
	return nil
}

// Settle implements aaaclient.Outbox.
func (m *memory) Settle(_ context.Context, list []acct.Settlement) error {
	for _, s := range list {
		p := m.row(s.ID)
		if p == nil || p.state != acct.Pending {
			continue
		}
		switch s.State {
		case acct.Pending:
			m.endings++
			p.endToEnd, p.sent = 1<<31|m.endings, s.MaySent
			p.attempts++
			continue
		case acct.Acknowledged:
			m.acknowledge(p, acct.Acknowledged)
			if p.kind == acct.Interim || p.kind == acct.Stop {
				m.cover(p)
			}
		case acct.Quarantined:
			p.state, p.sent = acct.Quarantined, s.Result == 0
			if p.kind == acct.Interim && !p.part && m.covered(p) {
				m.acknowledge(p, acct.Covered)
			}
		default:
			return errors.New("settled as " + s.State.String())
		}
	}
	return nil
}

func (m *memory) acknowledge(p *parcel, as acct.DeliveryState) {
	p.state = as
	for _, s := range p.shares {
		l := m.ledgerRow(s.LedgerKey)
		l.acknowledged = l.acknowledged.Plus(s.Count)
	}
}

// cover settles the INTERIMs that were quarantined before p, as p says it all
// again.
func (m *memory) cover(p *parcel) {
	for _, q := range m.rows {
		if q != nil && q.session == p.session && q.number < p.number && q.kind == acct.Interim && !q.part && q.state == acct.Quarantined {
			m.acknowledge(q, acct.Covered)
		}
	}
}

// covered reports whether a later record of p's session has been
// acknowledged.
func (m *memory) covered(p *parcel) bool {
	return slices.ContainsFunc(m.rows, func(q *parcel) bool {
		return q != nil && q.session == p.session && q.number > p.number && q.state == acct.Acknowledged && q.kind != acct.Event
	})
}

func (m *memory) quarantined() []uint64 {
	var ids []uint64
	for _, p := range m.rows {
		if p != nil && p.state == acct.Quarantined {
			ids = append(ids, p.id)
		}
	}
	return ids
}

func (m *memory) requeue(_ context.Context, ids []uint64) error {
	for _, id := range ids {
		old := m.row(id)
		m.rows[id-1] = nil
		m.add(&parcel{content: old.content, shares: old.shares, session: old.session, number: old.number, kind: old.kind, part: old.part, sent: old.sent})
	}
	m.notify()
	return nil
}

func (m *memory) contents() map[cdrKey][]byte {
	all := map[cdrKey][]byte{}
	for _, p := range m.rows {
		if p != nil {
			all[cdrKey{p.session, p.number}] = p.content
		}
	}
	return all
}

// books implements disk.
func (m *memory) books() (sums, error) {
	type held struct{ open, pending, quarantined, acknowledged acct.Count }
	become := map[acct.LedgerKey]*held{}
	at := func(k acct.LedgerKey) *held {
		h := become[k]
		if h == nil {
			h = &held{}
			become[k] = h
		}
		return h
	}
	for _, s := range m.sessions {
		for _, share := range s.Open {
			h := at(share.LedgerKey)
			h.open = h.open.Plus(share.Count)
		}
	}
	total := sums{rows: map[acct.LedgerKey]amounts{}}
	for _, p := range m.rows {
		if p == nil {
			continue
		}
		total.records++
		if p.state == acct.Covered {
			total.covered++
		}
		for _, share := range p.shares {
			h := at(share.LedgerKey)
			to := &h.acknowledged
			switch p.state {
			case acct.Pending:
				to = &h.pending
			case acct.Quarantined:
				to = &h.quarantined
			}
			*to = to.Plus(share.Count)
		}
	}
	waiting := map[acct.LedgerKey]acct.Count{}
	for _, s := range m.suspended {
		waiting[s.Key] = waiting[s.Key].Plus(s.Count)
	}
	var errs []error
	for _, key := range slices.SortedFunc(maps.Keys(m.ledger), compareKeys) {
		l, h := m.ledger[key], at(key)
		suspended := l.Suspended.Minus(l.Resumed)
		left := l.Received.Plus(l.Mirrored)
		right := l.Accounted.Plus(l.Duplicate).Plus(suspended).Plus(l.Rejected).Plus(l.Skipped)
		if left != right {
			errs = append(errs, fmt.Errorf("%+v: received + mirrored are %+v, accounted + duplicate + suspended + rejected + skipped %+v", key, left, right))
		}
		if got := h.open.Plus(h.pending).Plus(l.acknowledged).Plus(h.quarantined); got != l.Accounted {
			errs = append(errs, fmt.Errorf("%+v: accounted are %+v, open + pending + acknowledged + quarantined %+v", key, l.Accounted, got))
		}
		if l.acknowledged != h.acknowledged {
			errs = append(errs, fmt.Errorf("%+v: acknowledged are %+v, in the records %+v", key, l.acknowledged, h.acknowledged))
		}
		if waiting[key] != suspended {
			errs = append(errs, fmt.Errorf("%+v: suspended are %+v, in suspense %+v", key, suspended, waiting[key]))
		}
		for _, c := range [...]struct {
			to  *acct.Count
			add acct.Count
		}{
			{&total.received, l.Received}, {&total.mirrored, l.Mirrored}, {&total.accounted, l.Accounted},
			{&total.duplicate, l.Duplicate}, {&total.suspended, suspended}, {&total.rejected, l.Rejected},
			{&total.open, h.open}, {&total.pending, h.pending}, {&total.acknowledged, l.acknowledged}, {&total.quarantined, h.quarantined},
		} {
			*c.to = c.to.Plus(c.add)
		}
		total.rows[key] = amounts{l.Received, l.Mirrored, l.Accounted, l.Duplicate, suspended, l.Rejected}
		delete(become, key)
		delete(waiting, key)
	}
	for key := range become {
		errs = append(errs, fmt.Errorf("%+v: amounts of a row that the ledger does not have", key))
	}
	for key := range waiting {
		errs = append(errs, fmt.Errorf("%+v: suspended flows of a row that the ledger does not have", key))
	}
	return total, errors.Join(errs...)
}

func compareKeys(a, b acct.LedgerKey) int {
	return cmp.Or(cmp.Compare(a.Exporter, b.Exporter), cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Interval, b.Interval))
}
