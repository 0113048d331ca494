package asm

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
)

// An ackSpool is an exporter with acknowledged export, as the pipeline sees it.
type ackSpool struct {
	b        *bridge
	instance ack.Instance
	untimed  *ipfix.Template
}

func (b *bridge) spool() *ackSpool {
	tmpl := must(ipfix.NewTemplate(300, field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 4)))
	return &ackSpool{b, ack.Instance{1, 2, 3}, tmpl}
}

// message makes a Message of one session: its Templates, its Identity, what
// more adds, and records without any time of so many octets.
func (s *ackSpool) message(position uint64, sequence uint32, more func(*ipfix.Encoder) error, octets ...int) []byte {
	s.b.t.Helper()
	e := ipfix.NewEncoder(1, 0)
	identity := ack.IdentityTemplate(ack.Enterprise)
	id := ack.Identity{Instance: s.instance, Position: position, Version: 1, Wants: ack.Acknowledgements}
	check := func(err error) {
		if err != nil {
			s.b.t.Fatal(err)
		}
	}
	check(e.AppendRecord(identity, id.Append(nil)))
	if more != nil {
		check(more(e))
	}
	for _, n := range octets {
		check(e.AddRecord(s.untimed, netip.MustParseAddr("192.0.2.1"), n))
	}
	msg := bytes.Clone(e.Flush(sequence)) // the header's times differ too
	return msg
}

// open begins a Transport Session in which the Templates are known.
func (s *ackSpool) open(exporter string) uint64 {
	s.b.t.Helper()
	session := s.b.open(ipfix.TCP, exporter, "198.51.100.1:999")
	e := ipfix.NewEncoder(1, 0)
	for _, t := range []*ipfix.Template{ack.IdentityTemplate(ack.Enterprise), ack.GivenUpTemplate(ack.Enterprise), s.untimed} {
		if err := e.AddTemplate(t); err != nil {
			s.b.t.Fatal(err)
		}
	}
	s.b.add(acct.EntryMessage, session, bytes.Clone(e.Flush(1)))
	return session
}

// A Message that is sent again is known by its position, though its records
// have no identity: in another session, after a restart, and hours later.
func TestResentMessages(t *testing.T) {
	b := mapped(t, testSettings)
	x := b.spool()
	one := x.open("router")
	b.add(acct.EntryMessage, one, x.message(1, 1, nil, 100, 100))
	b.add(acct.EntryMessage, one, x.message(2, 2, nil, 100, 100)) // equal records, honest ones
	b.checkpoint()
	b.restart()
	two := x.open("router")
	b.add(acct.EntryMessage, two, x.message(1, 7, nil, 100, 100))
	b.after(3 * time.Hour)
	b.restart()
	b.add(acct.EntryMessage, two, x.message(2, 8, nil, 100, 100))
	b.add(acct.EntryMessage, two, x.message(3, 9, nil, 100, 100))
	sum := b.checkpoint()
	if sum.Received != count(10, 1000, 0) || sum.Duplicate != count(4, 400, 0) || sum.Accounted != count(6, 600, 0) {
		t.Errorf("received %+v, duplicate %+v, accounted %+v", sum.Received, sum.Duplicate, sum.Accounted)
	}
}

// A Message of which one Data Set waits for its Template is not whole when it is
// sent again; the Set that was decoded is a copy all the same.
func TestResentWhileInPart(t *testing.T) {
	b := mapped(t, testSettings)
	x := b.spool()
	one := x.open("router")
	unknown := must(ipfix.NewTemplate(301, field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 4)))
	part := func(e *ipfix.Encoder) error { return e.AddRecord(unknown, netip.MustParseAddr("192.0.2.1"), 1) }
	b.add(acct.EntryMessage, one, x.message(1, 1, part, 100, 100))
	b.checkpoint()
	b.restart()
	two := x.open("router") // the session before has ended, and what waited in it
	b.sendRecords(two, unknown)
	b.add(acct.EntryMessage, two, x.message(1, 7, part, 100, 100))
	sum := b.checkpoint()
	if sum.Duplicate != count(2, 200, 0) || sum.Accounted != count(3, 201, 0) {
		t.Errorf("duplicate %+v, accounted %+v", sum.Duplicate, sum.Accounted)
	}
}

// A position is never trusted blindly: with other content, or of another
// exporter, it says nothing, and the records count.
func TestPositionConflict(t *testing.T) {
	b := mapped(t, testSettings)
	x := b.spool()
	one, other := x.open("router"), x.open("other")
	b.add(acct.EntryMessage, one, x.message(1, 1, nil, 100))
	b.add(acct.EntryMessage, one, x.message(1, 1, nil, 101))   // a spool that was copied
	b.add(acct.EntryMessage, other, x.message(1, 1, nil, 100)) // an exporter that claims to be another's
	if s := b.m.Stats(); s.PositionConflicts != 1 || s.ResentMessages != 0 {
		t.Errorf("stats %+v", s)
	}
	sum := b.checkpoint()
	if sum.Received != count(3, 301, 0) || sum.Accounted != count(3, 301, 0) {
		t.Errorf("received %+v, accounted %+v", sum.Received, sum.Accounted)
	}
}

// An exporter that was cut off for hours sends what it kept, in order: none of
// it is below its floor. What is may have come in another Message, and waits.
func TestKeptRecordsComeLate(t *testing.T) {
	b := mapped(t, testSettings)
	x := b.spool()
	s := x.open("router")
	b.send(s, b.flow("192.0.2.1", outside))
	var kept []testFlow
	for range 20 {
		b.after(10 * time.Minute)
		kept = append(kept, b.flow("192.0.2.1", outside))
	}
	b.send(b.open(ipfix.TCP, "other", "198.51.100.2:1"), b.flow("192.0.2.1", "203.0.113.8")) // others went on
	late := func(position uint64, f testFlow) {
		b.add(acct.EntryMessage, s, x.message(position, 1, func(e *ipfix.Encoder) error { return e.AddRecord(testTemplate, f.values()...) }))
	}
	for i, f := range kept {
		late(uint64(1+i), f)
	}
	late(1, kept[0])  // sent again
	late(99, kept[0]) // another Message: nothing proves that it is new
	sum := b.checkpoint()
	if sum.Accounted != count(22, 2200, 44) || sum.Duplicate != count(1, 100, 2) || sum.Suspended != count(1, 100, 2) {
		t.Errorf("accounted %+v, duplicate %+v, suspended %+v", sum.Accounted, sum.Duplicate, sum.Suspended)
	}
}

// What an exporter tells to have dropped is lost, but for what came after all,
// before or after; telling it twice changes nothing.
func TestGivenUp(t *testing.T) {
	b := mapped(t, testSettings)
	x := b.spool()
	s := x.open("router")
	gone := func(all ...ack.GivenUp) func(*ipfix.Encoder) error {
		return func(e *ipfix.Encoder) error {
			for _, g := range all {
				if err := e.AppendRecord(ack.GivenUpTemplate(ack.Enterprise), g.Append(nil)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	b.add(acct.EntryMessage, s, x.message(1, 1, nil, 100))
	report := x.message(50, 1, gone(
		ack.GivenUp{First: 1, Last: 1, Records: 1},    // it came
		ack.GivenUp{First: 2, Last: 2, Records: 3},    // it will come
		ack.GivenUp{First: 3, Last: 3, Records: 5},    // it is told again
		ack.GivenUp{First: 4, Last: 20, Records: 700}, // never sent
	))
	b.add(acct.EntryMessage, s, report)
	b.add(acct.EntryMessage, s, report)
	b.add(acct.EntryMessage, s, x.message(51, 1, gone(ack.GivenUp{First: 3, Last: 3, Records: 5})))
	b.checkpoint()
	b.restart()
	b.add(acct.EntryMessage, s, x.message(2, 1, nil, 1, 2, 3))
	sum := b.checkpoint()
	if sum.Lost != 708 || sum.LostFound != 3 || sum.LostSuspect != 0 {
		t.Errorf("%d lost, %d found, %d doubtful", sum.Lost, sum.LostFound, sum.LostSuspect)
	}
	if sum.Accounted != count(4, 106, 0) {
		t.Errorf("accounted %+v", sum.Accounted)
	}
}

// What is remembered is bounded; what was forgotten goes by the identity of
// its records.
func TestPositionsAreBounded(t *testing.T) {
	b := mapped(t, testSettings)
	x := b.spool()
	s := x.open("router")
	const chunkPositions, maxChunks, maxInstances = 256, 128, 64 // as package positions has them
	for i := range uint64(maxChunks + 5) {
		b.add(acct.EntryMessage, s, x.message(1+i*chunkPositions, 1, nil, 1))
	}
	b.checkpoint()
	b.restart()
	b.add(acct.EntryMessage, s, x.message(1, 1, nil, 1))
	b.add(acct.EntryMessage, s, x.message(1+(maxChunks+4)*chunkPositions, 1, nil, 1))
	if st := b.m.Stats(); st.ForgottenPositions != 1 || st.ResentMessages != 1 {
		t.Errorf("stats %+v", st)
	}
	for i := range maxInstances + 3 {
		x.instance[15] = byte(i)
		b.add(acct.EntryMessage, s, x.message(1, 1, nil, 1))
	}
	b.checkpoint()
	b.restart()
	kept := 0
	for k := range b.s.state {
		if k[0] == statePositions {
			kept++
		}
	}
	if kept != 2*maxInstances {
		t.Errorf("%d values stored of %d instances with a chunk each", kept, maxInstances)
	}
}
