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
