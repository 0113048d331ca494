package ipfix

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tollbridge/internal/wiretest"
)

// Every field of every record of the corpus, but for lists, has the octets that
// tshark has for it: Message by Message, record by record, in order. All
// is given to tshark as one capture, each file from an address of its own.
func TestCorpusFieldsAsTshark(t *testing.T) {
	skipWithoutCorpus(t)
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("skipped: tshark is not installed")
	}
	type message struct {
		file    string
		octets  []byte
		records []string // the octets of their fields, in hexadecimal
	}
	var all []message
	var capture wiretest.Pcap
	for i, run := range corpusFiles(t) {
		session := NewSession(UDP)
		for _, name := range run {
			for _, msg := range corpusMessages(t, name) {
				m := message{file: name, octets: msg}
				_, err := session.Decode(msg, func(set DataSet) {
					for r, ok := set.Next(); ok; r, ok = set.Next() {
						m.records = append(m.records, fieldsAsSent(set.Template, r))
					}
				})
				if err != nil {
					continue // TestCorpus knows of them
				}
				all = append(all, m)
				capture.Add(uint16(i), forTshark(msg))
			}
		}
	}
	theirs := tsharkRecords(t, tshark, capture.Bytes())
	if len(theirs) != len(all) {
		t.Fatalf("tshark has %d packets of %d", len(theirs), len(all))
	}
	files, octets := map[string]bool{}, 0
	for i, m := range all {
		files[m.file] = true
		if len(m.records) != len(theirs[i]) {
			t.Errorf("%s: packet %d: %d records, tshark has %d", m.file, i+1, len(m.records), len(theirs[i]))
		}
		for k := range min(len(m.records), len(theirs[i])) {
			if m.records[k] != theirs[i][k] {
				t.Errorf("%s: packet %d: record %d is\n%s, tshark has\n%s", m.file, i+1, k, m.records[k], theirs[i][k])
			}
			octets += len(m.records[k]) / 2
		}
	}
	t.Logf("%d octets in %d messages of %d files", octets, len(all), len(files))
	if octets < 200_000 || len(files) < 150 {
		t.Error("too little was compared")
	}
}

// corpusFiles returns the files of the corpus, and those that belong together
// in the order in which they do.
func corpusFiles(t *testing.T) (runs [][]string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(corpusDir, "*", "*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no corpus (%v)", err)
	}
	for _, name := range names {
		if !notFlows[filepath.Base(filepath.Dir(name))] {
			runs = append(runs, []string{name})
		}
	}
	for _, together := range corpusRuns {
		var run []string
		for _, name := range together.files {
			run = append(run, filepath.Join(corpusDir, together.source, name))
		}
		runs = append(runs, run)
	}
	return runs
}

// corpusMessages returns the Messages of a file of the corpus, up to where it
// is none.
func corpusMessages(t *testing.T, name string) (all [][]byte) {
	t.Helper()
	streams := [][]byte{readFile(t, name)}
	if filepath.Ext(name) == ".pcap" {
		streams = payloads(streams[0])
	}
	for _, stream := range streams {
		for len(stream) > 0 {
			n, err := MessageLength(stream)
			if err != nil {
				break
			}
			all = append(all, stream[:n])
			stream = stream[n:]
		}
	}
	return all
}

// forTshark returns a Message as tshark reads all of it: it ends with a NetFlow
// 9 packet after as many FlowSets as the header counts, and exporters count
// records there, FlowSets or nothing. And it reads four octets of
// ipv4RouterSc whatever length the Template has, so H3C's, of two, is given to
// it as another element.
func forTshark(msg []byte) []byte {
	if h, err := MessageHeader(msg); err != nil || h.Version != NetFlow9 {
		return msg
	}
	msg = bytes.Clone(msg)
	binary.BigEndian.PutUint16(msg[2:], 0xffff)
	return bytes.ReplaceAll(msg, []byte{0, byte(Ipv4RouterSc), 0, 2}, []byte{0, byte(VlanId), 0, 2})
}

// fieldsAsSent returns the octets of a record's fields in hexadecimal, without
// what was not sent, and without lists that tshark takes apart. Of a flow's
// start and end tshark makes a duration: where they follow each other the start
// is first, and one alone comes last, with four octets.
func fieldsAsSent(t *Template, r Record) string {
	var b strings.Builder
	fields := t.asSent().Fields
	alone := ""
	start := func(i int) uint16 {
		if i == len(fields) || fields[i].Enterprise != 0 {
			return 0
		}
		return startOf[fields[i].ID]
	}
	for i := 0; i < len(fields); i++ {
		switch typ := fields[i].Element().Type; {
		case typ == TypeBasicList || typ == TypeSubTemplateList:
		case fields[i].Enterprise == 9 && fields[i].ID == ciscoText:
			b.WriteString(ciscoAsTshark(r.Field(i)))
		case start(i) == 0:
			fmt.Fprintf(&b, "%x", r.Field(i))
		case start(i) == start(i+1) && fields[i].ID == start(i):
			fmt.Fprintf(&b, "%x%x", r.Field(i), r.Field(i+1))
			i++
		case start(i) == start(i+1):
			fmt.Fprintf(&b, "%x%x", r.Field(i+1), r.Field(i))
			i++
		default:
			alone += fmt.Sprintf("%x", r.Field(i)[:4])
		}
	}
	return b.String() + alone
}

// ciscoText is an element of Cisco's with an application ID of six octets and
// text of that application.
const ciscoText = 12235

// ciscoAsTshark returns what tshark shows of such a value: the text, and where
// there is none the application ID behind which it puts the value's length.
func ciscoAsTshark(v []byte) string {
	if len(v) > 6 {
		return fmt.Sprintf("%x", v[6:])
	}
	return fmt.Sprintf("%x%02x", v, len(v))
}

// startOf are the elements with the start and the end of a flow, with that of
// the start.
var startOf = map[uint16]uint16{
	FlowStartSysUpTime: FlowStartSysUpTime, FlowEndSysUpTime: FlowStartSysUpTime,
	FlowStartSeconds: FlowStartSeconds, FlowEndSeconds: FlowStartSeconds,
	FlowStartMilliseconds: FlowStartMilliseconds, FlowEndMilliseconds: FlowStartMilliseconds,
	FlowStartMicroseconds: FlowStartMicroseconds, FlowEndMicroseconds: FlowStartMicroseconds,
	FlowStartNanoseconds: FlowStartNanoseconds, FlowEndNanoseconds: FlowStartNanoseconds,
}

// tsharkRecords returns the records of each packet of a capture, as tshark has
// them. It shows some fields below others that it computes, which have no
// octets of their own. It writes each XML tag on a line of its own.
func tsharkRecords(t *testing.T, tshark string, capture []byte) (packets [][]string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "corpus.pcap")
	if err := os.WriteFile(name, capture, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tshark, "-n", "-r", name, "-T", "pdml", "-J", "cflow", "-d", "udp.port==4739,cflow").Output()
	if err != nil {
		t.Fatal(err)
	}
	var depth, flow, shown int // flow is that of the record that is being read, shown that of the field
	for line := range strings.Lines(string(out)) {
		tag := strings.TrimSpace(line)
		if strings.HasPrefix(tag, "</") {
			if flow == depth {
				flow = 0
			}
			if shown == depth {
				shown = 0
			}
			depth--
			continue
		}
		if !strings.HasPrefix(tag, "<field ") && !strings.HasPrefix(tag, "<proto ") && tag != "<packet>" {
			continue
		}
		within := depth + 1
		if !strings.HasSuffix(tag, "/>") {
			depth = within
		}
		last := len(packets) - 1
		switch {
		case tag == "<packet>":
			packets = append(packets, nil)
		case flow == 0 && isFlow(tag):
			flow = within
			packets[last] = append(packets[last], "")
		case flow == 0 || shown > 0:
		default:
			value, list := attribute(tag, "value"), strings.HasSuffix(attribute(tag, "name"), "_list")
			if (value != "" || list) && depth == within {
				shown = within
			}
			if !list {
				packets[last][len(packets[last])-1] += value
			}
		}
	}
	return packets
}

// attribute returns what an XML tag has for a name.
func attribute(tag, name string) string {
	_, after, _ := strings.Cut(tag, " "+name+`="`)
	value, _, _ := strings.Cut(after, `"`)
	return value
}

// isFlow reports whether a tag is that of a record.
func isFlow(tag string) bool {
	return strings.Contains(tag, ` show="Flow `) || strings.Contains(tag, ` show="pdu `) // of NetFlow 5
}
