package ipfix

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// A sequenceStep is a Message and what its numbers mean.
type sequenceStep struct {
	sequence   uint32
	records    uint64
	exportTime uint32
	unknown    int // Data Sets without their Template

	lost, found uint64
	restarted   bool
}

// accountRecords accounts a Message of r.Records, none of options.
func (q *sequence) accountRecords(h Header, r *Result) {
	n := uint32(r.Records)
	q.account(&h, &tally{n, n, n, 1, 0}, 0, r)
}

func TestSequence(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps []sequenceStep
	}{
		{"the first number is taken as it is", []sequenceStep{{sequence: 4000000000, records: 10}, {sequence: 4000000010}}},
		{"the number counts Data Records modulo 2^32 (3.1)", []sequenceStep{
			{sequence: 1<<32 - 5, records: 10}, {sequence: 5, records: 1}, {sequence: 6, records: 1}}},
		{"Messages of Templates alone share the next one's number", []sequenceStep{
			{sequence: 7, records: 1}, {sequence: 8}, {sequence: 8}, {sequence: 8, records: 2}, {sequence: 10}}},
		{"a gap is a loss", []sequenceStep{{sequence: 0, records: 10}, {sequence: 30, records: 10, lost: 20}, {sequence: 40}}},
		{"a gap across 2^32", []sequenceStep{{sequence: 1<<32 - 10, records: 5}, {sequence: 5, records: 1, lost: 10}}},
		{"late Messages are found", []sequenceStep{
			{sequence: 0, records: 10}, {sequence: 30, records: 10, lost: 20}, {sequence: 20, records: 10, found: 10},
			{sequence: 40, records: 10}, {sequence: 10, records: 10, found: 10}, {sequence: 50}}},
		{"a late Message is found once", []sequenceStep{
			{sequence: 0, records: 10}, {sequence: 20, records: 10, lost: 10}, {sequence: 10, records: 10, found: 10},
			{sequence: 10, records: 10}, {sequence: 30}}},
		{"found in the middle of a gap", []sequenceStep{
			{sequence: 0}, {sequence: 30, lost: 30}, {sequence: 10, records: 10, found: 10},
			{sequence: 0, records: 10, found: 10}, {sequence: 20, records: 10, found: 10}, {sequence: 30}}},
		{"duplicates mean nothing", []sequenceStep{
			{sequence: 0, records: 10}, {sequence: 0, records: 10}, {sequence: 10, records: 10}, {sequence: 0, records: 10},
			{sequence: 10, records: 10}, {sequence: 20, records: 1}}},
		{"a number behind in a Message exported later is a restart", []sequenceStep{
			{sequence: 500, records: 10, exportTime: 100}, {sequence: 0, records: 5, exportTime: 101, restarted: true},
			{sequence: 5, records: 5, exportTime: 101}, {sequence: 15, exportTime: 102, lost: 5}}},
		{"a number far behind is a restart", []sequenceStep{
			{sequence: 5000000, records: 10, exportTime: 100}, {sequence: 3, records: 5, exportTime: 50, restarted: true},
			{sequence: 8, records: 5, exportTime: 50}}},
		{"a number further ahead than an exporter can send is a restart", []sequenceStep{
			{sequence: 0, records: 10, exportTime: 100}, {sequence: 1 << 30, records: 5, exportTime: 101, restarted: true},
			{sequence: 1<<30 + 5, exportTime: 101}}},
		{"a large gap after a long silence is a loss", []sequenceStep{
			{sequence: 0, records: 10, exportTime: 100}, {sequence: 100000010, exportTime: 200, lost: 100000000}}},
		{"half the number space ahead is a restart", []sequenceStep{
			{sequence: 0, exportTime: 100}, {sequence: 1 << 31, records: 1, exportTime: 100000, restarted: true}}},
		{"after an undecoded Data Set the number is taken on trust", []sequenceStep{
			{sequence: 0, records: 10, unknown: 1}, {sequence: 100, records: 10}, {sequence: 120, records: 1, lost: 10}}},
		{"numbers of Messages of Templates alone may be odd", []sequenceStep{
			{sequence: 5000, records: 10, exportTime: 100}, {sequence: 0, exportTime: 101}, {sequence: 5010, exportTime: 102}}},
		{"an exporter that counts Messages never loses absurdly", []sequenceStep{
			{sequence: 1, records: 24, exportTime: 100}, {sequence: 2, records: 24, exportTime: 100},
			{sequence: 3, records: 24, exportTime: 101, restarted: true}, {sequence: 4, records: 24, exportTime: 101}}},
		{"old gaps are forgotten, not those before them", func() []sequenceStep {
			steps := []sequenceStep{{sequence: 0, records: 1}}
			for i := range uint32(maxGaps + 1) {
				steps = append(steps, sequenceStep{sequence: 2 + 2*i, records: 1, lost: 1})
			}
			return append(steps, sequenceStep{sequence: 1, records: 1}, sequenceStep{sequence: 3, records: 1, found: 1})
		}()},
	} {
		t.Run(test.name, func(t *testing.T) {
			var q sequence
			for i, step := range test.steps {
				r := Result{Records: step.records, Unknown: step.unknown}
				q.accountRecords(Header{Sequence: step.sequence, ExportTime: step.exportTime}, &r)
				if r.Lost != step.lost || r.Found != step.found || r.Restarted != step.restarted {
					t.Fatalf("message %d: lost %d, found %d, restarted %t", i, r.Lost, r.Found, r.Restarted)
				}
			}
		})
	}
}

// Sequence numbers count per Observation Domain (3.1).
func TestSequencePerObservationDomain(t *testing.T) {
	s := NewSession(UDP)
	for i, test := range []struct {
		domain, sequence uint32
		lost             uint64
	}{{1, 100, 0}, {2, 5000, 0}, {1, 103, 3}, {2, 5000, 0}, {2, 5001, 1}} {
		r, err := s.Decode(Header{Length: HeaderLength, Sequence: test.sequence, Domain: test.domain}.Append(nil), nil)
		if err != nil || r.Lost != test.lost {
			t.Errorf("message %d: lost %d, %v", i, r.Lost, err)
		}
	}
}

// Over any loss, reordering and duplication, what is Lost and not Found again
// is what never came, counted from the first Message on.
func TestSequenceModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOfN(rapid.Uint64Range(0, 30), 1, maxGaps).Draw(t, "records")
		next := rapid.Uint32().Draw(t, "first")
		type message struct {
			header  Header
			records uint64
		}
		var sent []message
		for i, n := range counts {
			sent = append(sent, message{Header{Sequence: next, ExportTime: uint32(i / 3)}, n})
			next += uint32(n)
		}
		order := rapid.Permutation(sent).Draw(t, "order")
		arrivals := append([]message{sent[0]}, rapid.SliceOfN(rapid.SampledFrom(order), 0, 60).Draw(t, "arrivals")...)

		var q sequence
		var lost, found uint64
		arrived := map[uint32]bool{}
		last := sent[0].header.Sequence
		for i, m := range arrivals {
			r := Result{Records: m.records}
			q.accountRecords(m.header, &r)
			lost += r.Lost
			found += r.Found
			if r.Restarted {
				t.Fatalf("restarted at message %d", i)
			}
			for k := range uint32(m.records) {
				arrived[m.header.Sequence+k] = true
			}
			if end := m.header.Sequence + uint32(m.records); int32(end-last) > 0 {
				last = end
			}
			missing := uint64(last-sent[0].header.Sequence) - uint64(len(arrived))
			if lost-found != missing {
				t.Fatalf("message %d: lost %d, found %d, but %d are missing", i, lost, found, missing)
			}
		}
	})
}

func TestSequenceSurvivesCheckpoint(t *testing.T) {
	s := NewSession(UDP)
	decode := func(s *Session, sequence uint32, sets ...[]byte) Result {
		r, err := s.Decode(wireMessage(sequence, sets...), nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	data := wireSet(256, make([]byte, 12))
	decode(s, 0, wireSet(2, wire(256, 1, 1, 4)), data)
	decode(s, 6, data)
	b, err := s.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	again := NewSession(TCP)
	if err := again.UnmarshalBinary(b); err != nil || again.Transport() != UDP {
		t.Fatalf("%v, transport %v", err, again.Transport())
	}
	if r := decode(again, 3, data); r.Found != 3 || r.Records != 3 {
		t.Errorf("late message: %+v", r)
	}
	if r := decode(again, 10, data); r.Lost != 1 {
		t.Errorf("gap: %+v", r)
	}
	if b2, _ := again.AppendBinary(nil); bytes.Equal(b, b2) {
		t.Error("the state is as before")
	}
}
