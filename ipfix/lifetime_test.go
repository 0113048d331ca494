package ipfix

import (
	"testing"
	"time"
)

// Templates over UDP may have a lifetime (8.4), which Export Times
// tell and a refresh extends.
func TestTemplateLifetime(t *testing.T) {
	message := func(at uint32, sets ...[]byte) []byte {
		b := wireMessage(0, sets...)
		h := Header{Length: uint16(len(b)), ExportTime: at, Domain: 1}
		h.Append(b[:0])
		return b
	}
	template := wireSet(2, wire(256, 1, 1, 4))
	data := wireSet(256, make([]byte, 4))
	type step struct {
		msg              []byte
		expired, unknown int
	}
	for _, test := range []struct {
		name      string
		transport Transport
		lifetime  time.Duration
		steps     []step
	}{
		{"holds for its lifetime (8.4)", UDP, time.Minute, []step{
			{message(100, template), 0, 0}, {message(160, data), 0, 0}, {message(161, data), 1, 1}, {message(162, data), 0, 1}}},
		{"a refresh extends it (8.4)", UDP, time.Minute, []step{
			{message(100, template), 0, 0}, {message(150, template), 0, 0}, {message(210, data), 0, 0}, {message(211, data), 1, 1},
			{message(212, template), 0, 0}, {message(213, data), 0, 0}}},
		{"in the same Message", UDP, time.Minute, []step{
			{message(100, template), 0, 0}, {message(500, template, data), 0, 0}}},
		{"DTLS too", DTLS, time.Minute, []step{{message(100, template), 0, 0}, {message(161, data), 1, 1}}},
		{"none over TCP (8.4)", TCP, time.Minute, []step{{message(100, template), 0, 0}, {message(90000, data), 0, 0}}},
		{"none unless asked for", UDP, 0, []step{{message(100, template), 0, 0}, {message(90000, data), 0, 0}}},
		{"a late Message does not end it", UDP, time.Minute, []step{{message(100, template), 0, 0}, {message(10, data), 0, 0}}},
		{"across 2^32 seconds", UDP, time.Minute, []step{
			{message(1<<32-10, template), 0, 0}, {message(50, data), 0, 0}, {message(51, data), 1, 1}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := NewSession(test.transport)
			s.TemplateLifetime = test.lifetime
			for i, step := range test.steps {
				r, err := s.Decode(step.msg, nil)
				if err != nil || r.Expired != step.expired || r.Unknown != step.unknown || step.expired > 0 && !r.TemplatesChanged {
					t.Fatalf("message %d: %+v, %v", i, r, err)
				}
				// A restart makes no difference.
				b, _ := s.AppendBinary(nil)
				if err := s.UnmarshalBinary(b); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A malformed Message neither ends a lifetime nor extends it (9.1).
func TestTemplateLifetimeMalformed(t *testing.T) {
	s := NewSession(UDP)
	s.TemplateLifetime = time.Minute
	if _, err := s.Decode(wireMessage(0, wireSet(2, wire(256, 1, 1, 4))), nil); err != nil {
		t.Fatal(err)
	}
	before, _ := s.AppendBinary(nil)
	for _, sets := range [][][]byte{
		{wireSet(2, wire(256, 1, 1, 4)), wire(256, 3)},
		{wireSet(256, make([]byte, 4)), wire(256, 3)},
	} {
		msg := wireMessage(0, sets...)
		h := Header{Length: uint16(len(msg)), ExportTime: 1784851200 + 90, Domain: 1}
		h.Append(msg[:0])
		if _, err := s.Decode(msg, nil); err == nil {
			t.Fatal("a malformed message decodes")
		}
		if after, _ := s.AppendBinary(nil); string(after) != string(before) {
			t.Error("the session is changed")
		}
	}
}

// What a malformed Message undoes it undoes to the letter: a Template of before
// there were lifetimes holds on, and one that was refreshed is as old as it was.
func TestTemplateLifetimeUndone(t *testing.T) {
	template, data := wireSet(2, wire(256, 1, 1, 4)), wireSet(256, wire(0, 1))
	old := NewSession(UDP)
	if _, err := old.Decode(wireMessage(0, template), nil); err != nil {
		t.Fatal(err)
	}
	delete(old.domains[domainKey(Version)<<32|1].defined, 256) // as a checkpoint of before has it
	old.TemplateLifetime = time.Minute
	for _, msg := range [][]byte{wireMessage(0, template, wire(256, 3)), wireMessage(0, data)} {
		r, err := old.Decode(msg, nil)
		if err == nil && (r.Expired != 0 || r.Unknown != 0) {
			t.Errorf("%+v", r)
		}
	}
}

// Lifetimes go by arrival, where that is known: an exporter's clock may be set.
// A lifetime that is taken away and given again has seen the refreshes between.
// A Message that comes late makes no Template older.
func TestTemplateLifetimeByArrival(t *testing.T) {
	template, data := wireSet(2, wire(256, 1, 1, 4)), wireSet(256, wire(0, 1))
	s := NewSession(UDP)
	for i, step := range []struct {
		arrival  uint32
		lifetime time.Duration
		set      []byte
		unknown  int
	}{
		{1000, time.Minute, template, 0},
		{1030, 0, template, 0},
		{1085, time.Minute, data, 0}, // 55 s after the refresh
		{1000, time.Minute, template, 0},
		{1090, time.Minute, data, 0},
		{1091, time.Minute, data, 1},
	} {
		s.Arrival, s.TemplateLifetime = step.arrival, step.lifetime
		if r, err := s.Decode(wireMessage(0, step.set), nil); err != nil || r.Unknown != step.unknown {
			t.Errorf("message %d: %+v, %v", i, r, err)
		}
	}
}

// An exporter that has used all Template IDs must free some: over UDP by
// redefinition, else by withdrawal (RFC 7011, 8.1; RFC 5472, 4.5).
func TestTemplateIDsExhausted(t *testing.T) {
	for _, transport := range []Transport{UDP, TCP} {
		s := NewSession(transport)
		s.Limits = Limits{Templates: 1 << 16, AllFields: 1 << 20}
		for id := 256; id < 65536; id++ {
			if _, err := s.Decode(wireMessage(0, wireSet(2, wire(id, 1, 1, 4))), nil); err != nil {
				t.Fatal(err)
			}
		}
		var sets [][]byte
		if transport.Reliable() {
			sets = append(sets, wireSet(2, wire(256, 0)))
		}
		sets = append(sets, wireSet(2, wire(256, 1, 2, 4)))
		r, err := s.Decode(wireMessage(0, sets...), nil)
		if err != nil || len(r.New) != 1 || s.Template(1, 256).Fields[0].ID != 2 || len(s.Templates()) != 65536-256 {
			t.Errorf("%v: %+v, %v", transport, r, err)
		}
	}
}
