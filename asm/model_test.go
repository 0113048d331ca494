package asm

import (
	"bytes"
	"cmp"

	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/dedup"
	"tollbridge/ipfix"
)

// A tb is a *testing.T or a *rapid.T.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Context() context.Context
}

// A modelJournal is a journal in memory.
type modelJournal struct {
	weaken func(dedup.Identity) dedup.Identity

	entries []acct.Entry
	trimmed uint64 // entries below are gone
	lost    uint64 // this one is damaged; 0 for none
}

func (j *modelJournal) add(kind acct.EntryKind, at time.Time, session uint64, data []byte) acct.Entry {
	e := acct.Entry{
		Position: uint64(len(j.entries) + 1), Kind: kind, Time: at.UnixNano(),
		Session: session, Data: bytes.Clone(data),
	}
	j.entries = append(j.entries, e)
	return e
}

func (j *modelJournal) Read(_ context.Context, position uint64) (acct.Entry, error) {
	if position == j.lost {
		return acct.Entry{}, acct.ErrNoEntry
	}
	if position < j.trimmed || position == 0 || position > uint64(len(j.entries)) {
		return acct.Entry{}, fmt.Errorf("entry %d of %d, trimmed below %d, is not there", position, len(j.entries), j.trimmed)
	}
	return j.entries[position-1], nil
}

// A modelStore is the plainest Store: maps.
type modelStore struct {
	position, needed uint64
	time             int64
	records          []acct.Record
	sessions         map[uint64]acct.SessionState
	ledger           map[acct.LedgerKey]acct.LedgerRow
	suspended        map[uint64]acct.Suspended
	nextSuspended    uint64
	state            map[[2]string][]byte
	identities       map[bucketKey][]byte
	decisions        []acct.Decision
	epoch            uint32

	fail error // of the next Commit, which stores nothing
}

// A bucketKey names a bucket of an exporter's identities.
type bucketKey struct {
	exporter string
	bucket   int64
}

func (k bucketKey) compare(o bucketKey) int {
	return cmp.Or(cmp.Compare(k.exporter, o.exporter), cmp.Compare(k.bucket, o.bucket))
}

func newModelStore() *modelStore {
	return &modelStore{
		sessions:  map[uint64]acct.SessionState{},
		ledger:    map[acct.LedgerKey]acct.LedgerRow{},
		suspended: map[uint64]acct.Suspended{},
		state:     map[[2]string][]byte{}, identities: map[bucketKey][]byte{},
		epoch: 7, nextSuspended: 1,
	}
}

func (s *modelStore) Commit(_ context.Context, b acct.Batch) error {
	if err := s.fail; err != nil {
		s.fail = nil
		return err
	}
	s.position, s.needed, s.time = b.Position, b.Needed, b.Time
	for _, r := range b.Records {
		content, err := r.AppendBinary(nil)
		if err != nil {
			return err
		}
		stored := acct.Record{Shares: slices.Clone(r.Shares)}
		if err := stored.UnmarshalBinary(content); err != nil {
			return err
		}
		s.records = append(s.records, stored)
	}
	for _, x := range b.Sessions {
		if x.Ended {
			delete(s.sessions, x.ID)
			continue
		}
		x.State, x.Open = bytes.Clone(x.State), slices.Clone(x.Open)
		s.sessions[x.ID] = x
	}
	for _, r := range b.Ledger {
		l := s.ledger[r.LedgerKey]
		l.LedgerKey = r.LedgerKey
		for _, c := range []struct{ to, add *acct.Count }{
			{&l.Received, &r.Received}, {&l.Mirrored, &r.Mirrored}, {&l.Accounted, &r.Accounted},
			{&l.Duplicate, &r.Duplicate}, {&l.Suspended, &r.Suspended}, {&l.Resumed, &r.Resumed},
			{&l.Rejected, &r.Rejected}, {&l.Skipped, &r.Skipped}, {&l.Estimated, &r.Estimated},
		} {
			*c.to = c.to.Plus(*c.add)
		}
		l.LostEstimated += r.LostEstimated
		l.LostSuspect += r.LostSuspect
		l.Restarts += r.Restarts
		l.Unscaled += r.Unscaled
		l.UndecodedMessages += r.UndecodedMessages
		l.UndecodedOctets += r.UndecodedOctets
		l.DecodedMessages += r.DecodedMessages
		l.DecodedOctets += r.DecodedOctets
		l.Lost += r.Lost
		l.LostFound += r.LostFound
		s.ledger[r.LedgerKey] = l
	}
	for _, x := range b.Suspended {
		x.Flow = bytes.Clone(x.Flow)
		s.suspended[x.ID] = x
		s.nextSuspended = max(s.nextSuspended, x.ID+1)
	}
	for _, id := range b.Released {
		if _, ok := s.suspended[id]; !ok {
			return fmt.Errorf("released flow %d is not suspended", id)
		}
		delete(s.suspended, id)
	}
	for _, x := range b.State {
		if x.Value == nil {
			delete(s.state, [2]string{x.Kind, x.Key})
			continue
		}
		s.state[[2]string{x.Kind, x.Key}] = bytes.Clone(x.Value)
	}
	for _, i := range b.Identities {
		k := bucketKey{i.Exporter, i.Bucket}
		s.identities[k] = append(s.identities[k], i.Data...)
	}
	for _, f := range b.Floors {
		maps.DeleteFunc(s.identities, func(k bucketKey, _ []byte) bool { return k.exporter == f.Exporter && k.bucket < f.Bucket })
	}
	s.decisions = append(s.decisions, b.Decisions...)
	return nil
}

func (s *modelStore) Load(context.Context) (acct.Checkpoint, error) {
	cp := acct.Checkpoint{
		Position: s.position, Time: s.time, Epoch: s.epoch, HashKey: [16]byte{1, 2, 3},
		NextSuspended: s.nextSuspended,
	}
	for _, x := range s.sessions {
		cp.Sessions = append(cp.Sessions, x)
	}
	for k, v := range s.state {
		cp.State = append(cp.State, acct.State{Kind: k[0], Key: k[1], Value: v})
	}
	return cp, nil
}

func (s *modelStore) EachIdentity(_ context.Context, visit func(acct.Identities) error) error {
	for _, k := range slices.SortedFunc(maps.Keys(s.identities), bucketKey.compare) {
		if err := visit(acct.Identities{Exporter: k.exporter, Bucket: k.bucket, Data: s.identities[k]}); err != nil {
			return err
		}
	}
	return nil
}

func (s *modelStore) EachSuspended(_ context.Context, after uint64, visit func(acct.Suspended) error) error {
	for _, id := range slices.Sorted(maps.Keys(s.suspended)) {
		if id <= after {
			continue
		}
		if err := visit(s.suspended[id]); err != nil {
			return fmt.Errorf("model: %w", err)
		}
	}
	return nil
}

// A books is the sum of the ledger and of what the amounts in it became.
type books struct {
	acct.LedgerRow
	open, cut acct.Count
}

// audit checks the books in store, by code of its own, and returns their sum.
func audit(t tb, s *modelStore) books {
	t.Helper()
	var sum books
	held := map[acct.LedgerKey]acct.Count{} // accounted, as sessions and records have it
	for _, x := range s.sessions {
		for _, share := range x.Open {
			held[share.LedgerKey] = held[share.LedgerKey].Plus(share.Count)
			sum.open = sum.open.Plus(share.Count)
		}
	}
	for _, r := range s.records {
		for _, share := range r.Shares {
			held[share.LedgerKey] = held[share.LedgerKey].Plus(share.Count)
			if r.Corrects == nil {
				sum.cut = sum.cut.Plus(share.Count)
			}
		}
	}
	waiting := map[acct.LedgerKey]acct.Count{}
	for _, x := range s.suspended {
		waiting[x.Key] = waiting[x.Key].Plus(x.Count)
	}
	for key, l := range s.ledger {
		suspended := l.Suspended.Minus(l.Resumed)
		left := l.Received.Plus(l.Mirrored)
		right := l.Accounted.Plus(l.Duplicate).Plus(suspended).Plus(l.Rejected).Plus(l.Skipped)
		if left != right {
			t.Errorf("%+v does not balance: received + mirrored %+v, the rest %+v", key, left, right)
		}
		if held[key] != l.Accounted {
			t.Errorf("%+v: accounted %+v, in records and sessions %+v", key, l.Accounted, held[key])
		}
		if waiting[key] != suspended {
			t.Errorf("%+v: suspended %+v, in the store %+v", key, suspended, waiting[key])
		}
		if l.Accounted.Minus(l.Estimated).Plus(l.Estimated) != l.Accounted {
			t.Errorf("%+v: estimated %+v of %+v accounted", key, l.Estimated, l.Accounted)
		}
		if l.LostFound > l.Lost || l.LostEstimated+l.LostSuspect > l.Lost {
			t.Errorf("%+v: lost %d, found %d, estimated %d, suspect %d", key, l.Lost, l.LostFound, l.LostEstimated, l.LostSuspect)
		}
		if l.DecodedMessages > l.UndecodedMessages || l.DecodedOctets > l.UndecodedOctets {
			t.Errorf("%+v: decoded more than was undecoded: %+v", key, l)
		}
		delete(held, key)
		delete(waiting, key)
		if key.Exporter == acct.CreditBook || key.Exporter == acct.DebitBook {
			continue // they have sums of their own
		}
		for _, c := range []struct{ to, add *acct.Count }{
			{&sum.Received, &l.Received}, {&sum.Mirrored, &l.Mirrored}, {&sum.Accounted, &l.Accounted},
			{&sum.Duplicate, &l.Duplicate}, {&sum.Suspended, &suspended},
			{&sum.Rejected, &l.Rejected}, {&sum.Skipped, &l.Skipped}, {&sum.Estimated, &l.Estimated},
		} {
			*c.to = c.to.Plus(*c.add)
		}
		sum.UndecodedMessages += l.UndecodedMessages - l.DecodedMessages
		sum.UndecodedOctets += l.UndecodedOctets - l.DecodedOctets
		sum.Lost += l.Lost
		sum.LostFound += l.LostFound
		sum.LostEstimated += l.LostEstimated
		sum.LostSuspect += l.LostSuspect
		sum.Restarts += l.Restarts
		sum.Unscaled += l.Unscaled
	}
	if len(held)+len(waiting) > 0 {
		t.Errorf("amounts of no row of the ledger: %v %v", held, waiting)
	}
	checkSequences(t, s.records)
	return sum
}

// checkSequences checks what RFC 6733 asks of records: unique Session-Id and
// number, START 0, then 1, 2 ..., nothing after the STOP, usage never less.
func checkSequences(t tb, records []acct.Record) {
	t.Helper()
	last := map[string]acct.Record{}
	for _, r := range records {
		if r.Received != nil {
			continue // another node's session
		}
		before, known := last[r.SessionID]
		switch {
		case r.Type == acct.Event || r.Type == acct.Start:
			if known || r.Number != 0 {
				t.Errorf("%s/%d %v: not the first of its session", r.SessionID, r.Number, r.Type)
			}
		case !known || r.Number != before.Number+1 || before.Type == acct.Stop || before.Type == acct.Event:
			t.Errorf("%s/%d %v follows %d %v", r.SessionID, r.Number, r.Type, before.Number, before.Type)
		case r.Usage.InputOctets < before.Usage.InputOctets || r.Usage.OutputOctets < before.Usage.OutputOctets:
			t.Errorf("%s/%d: usage %+v is less than before, %+v", r.SessionID, r.Number, r.Usage, before.Usage)
		}
		if !known {
			before = acct.Record{}
		}
		if r.Parts == 0 && before.Parts == 0 && before.Usage.Plus(r.Increase) != r.Usage {
			t.Errorf("%s/%d: usage %+v is not %+v and the increase %+v", r.SessionID, r.Number, r.Usage, before.Usage, r.Increase)
		}
		if len(r.Classes) > 0 && r.Parts == 0 {
			var sum, increase acct.Usage
			for _, c := range r.Classes {
				sum = sum.Plus(c.Usage)
				increase = increase.Plus(c.Increase)
			}
			if increase != r.Increase {
				t.Errorf("%s/%d: classes increase by %+v, all by %+v", r.SessionID, r.Number, increase, r.Increase)
			}
			if sum != r.Usage {
				t.Errorf("%s/%d: classes sum to %+v, usage %+v", r.SessionID, r.Number, sum, r.Usage)
			}
		}
		last[r.SessionID] = r
	}
}

// A bridge is a Module under test with its journal and store.
type bridge struct {
	t     tb
	j     *modelJournal
	s     *modelStore
	m     *Module
	clock time.Time
	enc   map[uint32]*ipfix.Encoder
}

// epoch is when tests begin, at the start of an interval.
var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func newBridge(t tb, s Settings) *bridge {
	t.Helper()
	b := &bridge{t: t, j: &modelJournal{}, s: newModelStore(), clock: epoch, enc: map[uint32]*ipfix.Encoder{}}
	b.restart()
	b.configure(s)
	return b
}

// restart makes a Module from the last checkpoint and lets it read on.
func (b *bridge) restart() {
	b.t.Helper()
	m, err := New(b.t.Context(), Config{Store: b.s, Journal: b.j, Weaken: b.j.weaken})
	if err != nil {
		b.t.Fatal(err)
	}
	b.m = m
	for _, e := range b.j.entries[m.position:] {
		if err := m.Apply(b.t.Context(), e); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bridge) add(kind acct.EntryKind, session uint64, data []byte) uint64 {
	b.t.Helper()
	e := b.j.add(kind, b.clock, session, data)
	if err := b.m.Apply(b.t.Context(), e); err != nil {
		b.t.Fatal(err)
	}
	return e.Position
}

func (b *bridge) configure(s Settings) {
	b.t.Helper()
	if err := s.Validate(); err != nil {
		b.t.Fatal(err)
	}
	data, err := s.AppendBinary(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.add(acct.EntryConfig, 0, data)
}

func (b *bridge) users(source string, bindings ...users.Binding) {
	b.t.Helper()
	b.add(acct.EntryUsers, 0, users.AppendList(nil, source, bindings))
}

func (b *bridge) open(transport ipfix.Transport, exporter, remote string) uint64 {
	b.t.Helper()
	info := SessionInfo{transport, exporter, netip.MustParseAddrPort(remote), netip.MustParseAddrPort("127.0.0.1:4739")}
	data, err := info.AppendBinary(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.add(acct.EntryOpen, 0, data)
}

// after moves the clock and, as the Runner does, ticks.
func (b *bridge) after(d time.Duration) {
	b.t.Helper()
	b.clock = b.clock.Add(d)
	b.add(acct.EntryTick, 0, nil)
}

// checkpoint makes one, trims the journal, and audits the books.
func (b *bridge) checkpoint() books {
	b.t.Helper()
	if err := b.m.Checkpoint(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.j.trimmed = b.s.needed
	return audit(b.t, b.s)
}

// testTemplate is of a flow record with times, ports and all counters.
var testTemplate = must(ipfix.NewTemplate(256,
	field(ipfix.FlowStartMilliseconds, 8), field(ipfix.FlowEndMilliseconds, 8),
	field(ipfix.SourceIPv4Address, 4), field(ipfix.DestinationIPv4Address, 4),
	field(ipfix.ProtocolIdentifier, 1), field(ipfix.IpDiffServCodePoint, 1),
	field(ipfix.SourceTransportPort, 2), field(ipfix.DestinationTransportPort, 2),
	field(ipfix.OctetDeltaCount, 8), field(ipfix.PacketDeltaCount, 4),
))

func field(id uint16, length uint16) ipfix.FieldSpecifier {
	return ipfix.FieldSpecifier{ID: id, Length: length}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A testFlow is a record of testTemplate.
type testFlow struct {
	from, to         string
	fromPort, toPort int
	protocol, dscp   int
	end              time.Time
	octets, packets  int
}

func (f testFlow) values() []any {
	return []any{
		f.end.Add(-time.Second), f.end, netip.MustParseAddr(f.from), netip.MustParseAddr(f.to),
		f.protocol, f.dscp, f.fromPort, f.toPort, f.octets, f.packets,
	}
}

// message encodes a Message of domain 1 with testTemplate and flows.
func (b *bridge) message(template bool, flows ...testFlow) []byte {
	b.t.Helper()
	return b.encode(1, template, flows...)
}

func (b *bridge) encode(domain uint32, template bool, flows ...testFlow) []byte {
	b.t.Helper()
	e := b.enc[domain]
	if e == nil {
		e = ipfix.NewEncoder(domain, 0)
		b.enc[domain] = e
	}
	if template {
		if err := e.AddTemplate(testTemplate); err != nil {
			b.t.Fatal(err)
		}
	}
	for _, f := range flows {
		if err := e.AddRecord(testTemplate, f.values()...); err != nil {
			b.t.Fatal(err)
		}
	}
	return bytes.Clone(e.Flush(uint32(b.clock.Unix())))
}

// send lets session carry flows.
func (b *bridge) send(session uint64, flows ...testFlow) {
	b.t.Helper()
	b.add(acct.EntryMessage, session, b.message(true, flows...))
}

// flow is one of 100 octets and 2 packets that ends now.
func (b *bridge) flow(from, to string) testFlow {
	return testFlow{from: from, to: to, fromPort: 40000, toPort: 443, protocol: 6, end: b.clock, octets: 100, packets: 2}
}

func bind(prefix, user string) users.Binding {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		a := netip.MustParseAddr(prefix)
		p = netip.PrefixFrom(a, a.BitLen())
	}
	return users.Binding{Prefix: p, User: user}
}

// lines describes records in a few words each.
func lines(records []acct.Record) []string {
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = fmt.Sprintf("%s %s %s/%d %s in %d out %d", r.Event.Format("15:04:05"), r.User, r.SessionID, r.Number, r.Type,
			r.Usage.InputOctets, r.Usage.OutputOctets)
		for _, c := range r.Classes {
			out[i] += fmt.Sprintf(" %s %d/%d", c.Class, c.InputOctets, c.OutputOctets)
		}
		if r.Parts > 0 {
			out[i] += fmt.Sprintf(" part %d of %d", r.Part, r.Parts)
		}
	}
	return out
}

func wantLines(t tb, got []acct.Record, want ...string) {
	t.Helper()
	have := lines(got)
	if !slices.Equal(have, want) {
		t.Errorf("records:\n%s\nwant:\n%s", join(have), join(want))
	}
}

func join(lines []string) string {
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString("\t" + l + "\n")
	}
	return b.String()
}

var testSettings = Settings{
	OriginHost: "asm.example", DestinationRealm: "example",
	Interval: time.Minute, Linger: 30 * time.Second, Late: 10 * time.Minute,
}

var errDisk = errors.New("disk is full")
