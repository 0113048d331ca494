package ipfix

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"testing"
)

// A conversation is the plain model of a Transport Session: what an exporter
// said, and what holds after it.
type conversation struct {
	t       *testing.T
	session *Session
	program []byte
	known   map[uint32]map[uint16]said // by domain
	counted map[uint32]uint32          // Data Records, by domain
}

// A said is a Template as the model has it.
type said struct {
	scope  int
	fields string // indices of palette
}

// palette has the fields that Templates are made of.
var palette = [...]FieldSpecifier{
	{ID: OctetDeltaCount, Length: 8},
	{ID: OctetDeltaCount, Length: 3},
	{ID: SourceIPv4Address, Length: 4},
	{ID: InterfaceName, Length: VariableLength},
	{Enterprise: ReversePEN, ID: OctetDeltaCount, Length: 8},
	{Enterprise: 4294967295, ID: 32767, Length: 1},
	{ID: BasicList, Length: VariableLength},
}

// next takes one octet of the program, and returns what it makes of it below n.
func (c *conversation) next(n int) int {
	if len(c.program) == 0 {
		return 0
	}
	v := int(c.program[0]) % n
	c.program = c.program[1:]
	return v
}

// record makes up a record of what was said.
func (c *conversation) record(d said) []byte {
	var b []byte
	for _, i := range []byte(d.fields) {
		n := int(palette[i].Length)
		if palette[i].Length == VariableLength {
			switch n = c.next(3) * 200; c.next(2) {
			case 0:
				n = min(n, 254)
				b = append(b, byte(n))
			default: // the long form, be it needed or not (Section 7)
				b = append(b, 255, byte(n>>8), byte(n))
			}
		}
		b = append(b, bytes.Repeat([]byte{byte(c.next(256))}, n)...)
	}
	return b
}

func (d said) shortest() (n int) {
	for _, i := range []byte(d.fields) {
		if palette[i].Length == VariableLength {
			n++
		} else {
			n += int(palette[i].Length)
		}
	}
	return n
}

// define makes up a Template and its Template Record.
func (c *conversation) define(id int) (d said, record []byte) {
	fields := make([]byte, 1+c.next(4))
	for i := range fields {
		fields[i] = byte(c.next(len(palette)))
	}
	d.fields = string(fields)
	if c.next(2) == 1 {
		d.scope = 1 + c.next(len(fields))
	}
	record = wire(id, len(fields))
	if d.scope > 0 {
		record = append(record, wire(d.scope)...)
	}
	for _, i := range fields {
		f := palette[i]
		if f.Enterprise == 0 {
			record = append(record, wire(int(f.ID), int(f.Length))...)
		} else {
			record = append(record, wire(int(f.ID|enterpriseBit), int(f.Length))...)
			record = binary.BigEndian.AppendUint32(record, f.Enterprise)
		}
	}
	return d, record
}

// message makes up a Message, says it, and compares what came of it.
func (c *conversation) message() {
	domain := uint32(c.next(2))
	known := maps.Clone(c.known[domain])
	if known == nil {
		known = make(map[uint16]said)
	}
	reliable := c.session.Transport().Reliable()
	var (
		sets      [][]byte
		malformed bool
		unknown   int
		want      [][]byte
	)
	for i := 1 + c.next(6); i > 0 && !malformed; i-- {
		id := minTemplateID + c.next(3)
		switch c.next(8) {
		case 0, 1:
			d, record := c.define(id)
			set := templateSet
			if d.scope > 0 {
				set = optionsTemplateSet
			}
			sets = append(sets, wireSet(set, record))
			old, held := known[uint16(id)]
			malformed = malformed || held && old != d && reliable
			known[uint16(id)] = d
		case 2:
			sets = append(sets, wireSet(templateSet+c.next(2), wire(id, 0)))
			if reliable {
				delete(known, uint16(id))
			}
		case 3: // all of them
			options := c.next(2)
			sets = append(sets, wireSet(templateSet+options, wire(templateSet+options, 0)))
			if reliable {
				maps.DeleteFunc(known, func(_ uint16, d said) bool { return (d.scope > 0) == (options == 1) })
			}
		case 4:
			sets = append(sets, [][]byte{
				wire(id, 5), // longer than its Message
				wire(id, 3),
				wireSet(templateSet, wire(255, 1, 1, 4)),
				wireSet(optionsTemplateSet, wire(id, 1, 0, 1, 4)),
			}[c.next(4)])
			malformed = true
		default:
			d, held := known[uint16(id)]
			if !held {
				unknown++
				sets = append(sets, wireSet(id, []byte{1, 2, 3, 4, 5}))
				continue
			}
			var records [][]byte
			for range 1 + c.next(4) {
				records = append(records, c.record(d))
			}
			want = append(want, records...)
			if padding := c.next(4); padding < d.shortest() {
				records = append(records, make([]byte, padding))
			}
			sets = append(sets, wireSet(id, records...))
		}
	}
	msg := wireMessage(c.counted[domain], sets...)
	binary.BigEndian.PutUint32(msg[12:], domain)
	before, _ := c.session.AppendBinary(nil)
	var got [][]byte
	r, err := c.session.Decode(msg, func(s DataSet) {
		if s.Template == nil {
			return
		}
		for r, ok := s.Next(); ok; r, ok = s.Next() {
			got = append(got, bytes.Clone(r.Bytes()))
		}
	})
	if malformed {
		if after, _ := c.session.AppendBinary(nil); err == nil || len(got) > 0 || !bytes.Equal(before, after) {
			c.t.Fatalf("%x: %v, %d records, and it changed the session: %v", msg, err, len(got), !bytes.Equal(before, after))
		}
		return
	}
	if err != nil || r.Records != uint64(len(want)) || r.Unknown != unknown || r.Lost != 0 || r.Restarted || !slices.EqualFunc(got, want, bytes.Equal) {
		c.t.Fatalf("%x: %+v, %v, records %x, want %x and %d unknown", msg, r, err, got, want, unknown)
	}
	c.known[domain] = known
	c.counted[domain] += uint32(len(want))
	if unknown > 0 { // nobody knows how many records these were
		c.counted[domain] += uint32(c.next(10))
	}
	if held := len(c.known[0]) + len(c.known[1]); len(c.session.Templates()) != held {
		c.t.Fatalf("%x: %d templates, want %d", msg, len(c.session.Templates()), held)
	}
	for id, d := range known {
		if u := c.session.Template(domain, id); u == nil || u.Scope != d.scope || len(u.Fields) != len(d.fields) {
			c.t.Fatalf("%x: template %d is %+v, want %+v", msg, id, u, d)
		}
	}
}

// FuzzConversation holds a conversation of Templates, withdrawals, data and
// malformed Messages, and restarts in between.
func FuzzConversation(f *testing.F) {
	f.Add(uint8(TCP), []byte{0, 1, 0, 0, 2, 0, 2, 3, 0, 0, 5, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add(uint8(UDP), bytes.Repeat([]byte{1, 5, 0, 1, 3, 6, 4, 1, 1, 1, 0, 6, 3, 1, 2, 3}, 20))
	f.Add(uint8(SCTP), bytes.Repeat([]byte{0, 4, 1, 0, 1, 3, 1, 5, 1, 3, 2, 7, 200, 100, 3, 5, 4, 1}, 20))
	f.Fuzz(func(t *testing.T, transport uint8, program []byte) {
		c := &conversation{
			t: t, session: NewSession(Transport(transport % uint8(DTLS+1))), program: program,
			known: make(map[uint32]map[uint16]said), counted: make(map[uint32]uint32),
		}
		for len(c.program) > 0 {
			if c.next(8) == 7 { // a restart
				b, _ := c.session.AppendBinary(nil)
				c.session = NewSession(UDP)
				if err := c.session.UnmarshalBinary(b); err != nil {
					t.Fatal(err)
				}
			}
			c.message()
		}
	})
}
