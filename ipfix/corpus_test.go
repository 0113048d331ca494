package ipfix

import (
	"cmp"
	"encoding/binary"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

const corpusDir = "../../shared/corpus"

// Captures of real exporters decode to the counts that an independent parser
// found in them.
func TestCorpus(t *testing.T) {
	f, err := os.Open(filepath.Join(corpusDir, "INDEX.csv"))
	if err != nil {
		t.Skip("skipped: the corpus of captures is not here (", corpusDir, ")")
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	decoded := 0
	for _, row := range rows[1:] {
		name := filepath.Join(corpusDir, row[0], row[1])
		data, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		streams := [][]byte{data}
		if filepath.Ext(name) == ".pcap" {
			streams = payloads(data)
		}
		if len(streams) == 0 || len(streams[0]) < 2 || binary.BigEndian.Uint16(streams[0]) != Version {
			continue
		}
		decoded++
		t.Run(row[0]+"/"+row[1], func(t *testing.T) {
			want := corpusCounts{}
			for i, p := range []*int{&want.messages, &want.templates, &want.optionsTemplates, &want.records,
				&want.optionsRecords, &want.withdrawals} {
				*p, _ = strconv.Atoi(row[3+i])
			}
			if w, ok := corpusMalformed[row[1]]; ok {
				want = w
			}
			var got corpusCounts
			session := NewSession(UDP)
			for _, stream := range streams {
				got.decode(t, session, stream)
			}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
	if decoded < 60 {
		t.Errorf("only %d files of the corpus are IPFIX", decoded)
	}
}

type corpusCounts struct {
	messages, templates, optionsTemplates, records, optionsRecords, withdrawals, malformed int
}

// corpusMalformed holds what a Message that breaks RFC 7011 comes to here: it
// is discarded whole (Section 9.1), while the index counts parts of it.
var corpusMalformed = map[string]corpusCounts{
	"bad-length-in-set.ipfix":        {malformed: 1},
	"bad-template-field-count.ipfix": {messages: 1, malformed: 1},
	"enterprise-from-nfv9.ipfix":     {messages: 10, malformed: 1}, // an Options Template without scope
	"header-and-zeros.ipfix":         {messages: 1, malformed: 1},
}

// decode counts what is in a run of Messages.
func (c *corpusCounts) decode(t *testing.T, session *Session, stream []byte) {
	for len(stream) > 0 {
		h, err := ParseHeader(stream)
		if err != nil || int(h.Length) > len(stream) {
			c.malformed++
			t.Logf("%v, %d octets left", err, len(stream))
			return
		}
		msg := stream[:h.Length]
		stream = stream[h.Length:]
		c.messages++
		valid := Validate(msg)
		_, err = session.Decode(msg, func(s DataSet) {
			n := 0
			for r, ok := s.Next(); ok; r, ok = s.Next() {
				n++
				for i, f := range s.Template.Fields {
					FormatValue(f.Element().Type, r.Field(i))
				}
			}
			if n != s.Records {
				t.Errorf("%d records read of %d", n, s.Records)
			}
			if s.Template == nil {
				return
			}
			if s.Template.Scope > 0 {
				c.optionsRecords += n
			} else {
				c.records += n
			}
		})
		if valid != nil && err == nil {
			t.Errorf("Decode takes what Validate refuses: %v", valid)
		}
		if err != nil {
			t.Log(err)
			c.malformed++
			continue
		}
		c.countTemplates(t, msg)
	}
}

func (c *corpusCounts) countTemplates(t *testing.T, msg []byte) {
	for at := HeaderLength; at < len(msg); {
		s, err := parseSet(msg, at)
		if err != nil {
			t.Fatal(err)
		}
		at = s.end
		for (s.id == templateSet || s.id == optionsTemplateSet) && !s.done() {
			d, err := s.template(msg)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case d.count == 0:
				c.withdrawals++
			case d.scope > 0:
				c.optionsTemplates++
			default:
				c.templates++
			}
		}
	}
}

// payloads returns the UDP payloads of a pcap file, and after them the octets
// of each TCP connection that carried any. It reads little-endian files of
// Ethernet and Linux cooked frames over IPv4 and IPv6.
func payloads(file []byte) [][]byte {
	if len(file) < 24 || binary.LittleEndian.Uint32(file) != 0xa1b2c3d4 {
		return nil
	}
	link := binary.LittleEndian.Uint32(file[20:])
	var udp [][]byte
	type segment struct {
		sequence uint32
		data     []byte
	}
	tcp := map[string][]segment{}
	for b := file[24:]; len(b) >= 16; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		frame := b[16 : 16+n]
		b = b[16+n:]
		var ip []byte
		switch link {
		case 1:
			for ip = frame[12:]; binary.BigEndian.Uint16(ip) == 0x8100; ip = ip[4:] {
			}
			ip = ip[2:]
		case 113:
			ip = frame[16:]
		case 0, 108:
			ip = frame[4:]
		default:
			ip = frame
		}
		var proto byte
		var key, transport []byte
		switch ip[0] >> 4 {
		case 4:
			proto, key = ip[9], ip[12:20]
			transport = ip[int(ip[0]&15)*4 : binary.BigEndian.Uint16(ip[2:])]
		case 6:
			proto, key = ip[6], ip[8:40]
			transport = ip[40 : 40+int(binary.BigEndian.Uint16(ip[4:]))]
		}
		switch proto {
		case 17:
			udp = append(udp, transport[8:])
		case 6:
			data := transport[int(transport[12]>>4)*4:]
			if len(data) > 0 {
				k := fmt.Sprintf("%x%x", key, transport[:4])
				tcp[k] = append(tcp[k], segment{binary.BigEndian.Uint32(transport[4:]), data})
			}
		}
	}
	for _, segments := range tcp {
		slices.SortStableFunc(segments, func(a, b segment) int {
			return cmp.Compare(int32(a.sequence-segments[0].sequence), int32(b.sequence-segments[0].sequence))
		})
		var stream []byte
		next := segments[0].sequence
		for _, s := range segments {
			if s.sequence == next {
				stream = append(stream, s.data...)
				next += uint32(len(s.data))
			}
		}
		udp = append(udp, stream)
	}
	return udp
}
