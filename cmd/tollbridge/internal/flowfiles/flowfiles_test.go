package flowfiles

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/internal/wiretest"
	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
)

const corpusDir = "../../../../../shared/corpus"

// corpusIndex returns the rows of the corpus's index, or skips the test.
func corpusIndex(t *testing.T) [][]string {
	t.Helper()
	f, err := os.Open(filepath.Join(corpusDir, "INDEX.csv"))
	if err != nil {
		t.Skip("skipped: the corpus of captures is not here (", corpusDir, ")")
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows[1:]
}

// runIPFIX runs an ipfix command, and returns what it prints.
func runIPFIX(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := New()
	root.SilenceErrors, root.SilenceUsage = true, true // as those of the whole command
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

// stats runs "ipfix dump --stats", whose output has all keys and no others.
func stats(t *testing.T, names ...string) (c messageCounts) {
	t.Helper()
	stdout, stderr, err := runIPFIX(t, append([]string{"dump", "--stats", "-o", "json"}, names...)...)
	if err != nil {
		t.Fatal(err, stderr)
	}
	d := json.NewDecoder(strings.NewReader(stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(stdout, `":`); n != 7+len(c.Errors) {
		t.Errorf("%d keys in %s", n, stdout)
	}
	return c
}

// damagedNetFlow5 has 30 records and a header that says 55,582. They can be
// looked at, but not be made good ones: one packet of 3.4 GB is among them.
const damagedNetFlow5 = "netflow5_test_invalid01.dat"

// corpusExceptions are files of which we count other than the index, and why.
var corpusExceptions = map[string]messageCounts{
	// Malformed messages are discarded whole (RFC 7011, Section 9.1), where the
	// index counts parts of them.
	"bad-length-in-set.ipfix":        {Messages: 1, Errors: map[string]uint64{"truncated": 1}},
	"bad-template-field-count.ipfix": {Messages: 1, Errors: map[string]uint64{"length": 1}},
	"enterprise-from-nfv9.ipfix":     {Messages: 10, Errors: map[string]uint64{"scope": 1}}, // an Options Template of NetFlow 9, with lengths where IPFIX has counts

	// Two packets end to end, of which the index saw the first.
	"netflow-v9-1.dat": {Messages: 2, Templates: 2, DataRecords: 6},
}

// Every file of the corpus counts as its index says, without errors.
func TestIPFIXDumpStatsCorpus(t *testing.T) {
	for _, row := range corpusIndex(t) {
		name := filepath.Join(corpusDir, row[0], row[1])
		t.Run(row[0]+"/"+row[1], func(t *testing.T) {
			want := messageCounts{Errors: map[string]uint64{}}
			for i, p := range []*uint64{&want.Messages, &want.Templates, &want.OptionsTemplates, &want.DataRecords,
				&want.OptionsRecords, &want.Withdrawals} {
				*p, _ = strconv.ParseUint(row[3+i], 10, 64)
			}
			if e, ok := corpusExceptions[row[1]]; ok {
				want = e
			}
			if row[1] == damagedNetFlow5 { // as the index says: "v5 count 55582 len 1464"
				want.Errors["count"]++
				_, stderr, err := runIPFIX(t, "dump", name)
				if !errors.Is(err, terminal.ErrTold) || !strings.Contains(stderr, "count is of more records than are there: read as far as it goes") {
					t.Errorf("dump ends with %v, %q", err, stderr)
				}
			}
			got := stats(t, name)
			gotErrors, wantErrors := got.Errors, want.Errors
			got.Errors, want.Errors = nil, nil
			if got.Messages != want.Messages || got.Templates != want.Templates || got.OptionsTemplates != want.OptionsTemplates ||
				got.DataRecords != want.DataRecords || got.OptionsRecords != want.OptionsRecords ||
				got.Withdrawals != want.Withdrawals || !maps.Equal(gotErrors, wantErrors) {
				t.Errorf("got  %+v %v\nwant %+v %v", got, gotErrors, want, wantErrors)
			}
		})
	}
}

// recordsOf returns the records of files as "ipfix dump -o json" prints them,
// without what says where they are.
func recordsOf(t *testing.T, names ...string) []string {
	t.Helper()
	stdout, _, err := runIPFIX(t, append([]string{"dump", "-o", "json"}, names...)...)
	if err != nil && !errors.Is(err, terminal.ErrTold) {
		t.Fatal(err)
	}
	return recordLines(t, stdout)
}

func recordLines(t *testing.T, stdout string) (records []string) {
	t.Helper()
	for line := range strings.Lines(stdout) {
		var r struct {
			Record json.RawMessage `json:"record"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		records = append(records, string(r.Record))
	}
	return records
}

// Converted to an IPFIX File, every file of the corpus has the same records,
// NetFlow's too; and converted to JSON as well.
func TestIPFIXConvertCorpus(t *testing.T) {
	for _, row := range corpusIndex(t) {
		name := filepath.Join(corpusDir, row[0], row[1])
		t.Run(row[0]+"/"+row[1], func(t *testing.T) {
			want := recordsOf(t, name)
			for _, how := range [][]string{
				{}, {"--to-format", "json"}, {"--time-window", "--checksums", "--session"},
			} {
				out := filepath.Join(t.TempDir(), "out")
				_, stderr, err := runIPFIX(t, append([]string{"convert", name, "-w", out}, how...)...)
				if err != nil && !errors.Is(err, terminal.ErrTold) {
					t.Fatal(err, stderr)
				}
				want := want
				if row[1] == damagedNetFlow5 && !slices.Contains(how, "json") {
					want = nil
				}
				var got []string
				if slices.Contains(how, "json") {
					b, err := os.ReadFile(out)
					if err != nil {
						t.Fatal(err)
					}
					got = recordLines(t, string(b))
				} else {
					got = recordsOf(t, out)
				}
				// The File's own records.
				got = slices.DeleteFunc(got, func(s string) bool {
					return strings.HasPrefix(s, `{"messageScope":`) || strings.HasPrefix(s, `{"sessionScope":`)
				})
				if !slices.Equal(got, want) {
					t.Errorf("%v: %d records became %d", how, len(want), len(got))
					for i := range min(len(want), len(got)) {
						if got[i] != want[i] {
							t.Fatalf("record %d: %q, want %q", i, got[i], want[i])
						}
					}
				}
			}
		})
	}
}

// flowMessages returns n messages of a domain with two records each, whose
// Template is in the first.
func flowMessages(t *testing.T, domain uint32, n int) [][]byte {
	t.Helper()
	template, err := ipfix.NewTemplate(256,
		ipfix.FieldSpecifier{ID: ipfix.SourceIPv4Address, Length: 4},
		ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8},
		ipfix.FieldSpecifier{ID: ipfix.UserName, Length: ipfix.VariableLength},
		ipfix.FieldSpecifier{ID: 14, Enterprise: 6871, Length: 2})
	if err != nil {
		t.Fatal(err)
	}
	e := ipfix.NewEncoder(domain, 0)
	if err := e.AddTemplate(template); err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for i := range n {
		for k := range 2 {
			if err := e.AddRecord(template, netip.AddrFrom4([4]byte{192, 0, 2, byte(k)}), 1000*i+k, "a \"b\"", []byte{1, 2}); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, bytes.Clone(e.Flush(1_700_000_000)))
	}
	return all
}

// save writes a file of messages.
func save(t *testing.T, name string, messages ...[]byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, bytes.Join(messages, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestIPFIXDumpPrints(t *testing.T) {
	name := save(t, "flows.ipfix", flowMessages(t, 7, 1)...)
	for _, row := range []struct{ format, want string }{
		{"table", name + `: octet 0: message of 88 octets, domain 7, sequence 0, exported 2023-11-14T22:13:20Z
  template 256 of 4 fields
  data set 256, records: 2
    sourceIPv4Address=192.0.2.0 octetDeltaCount=0 userName="a \"b\"" 6871/14=0102
    sourceIPv4Address=192.0.2.1 octetDeltaCount=1 userName="a \"b\"" 6871/14=0102
`},
		{"json", `{"file":"` + name + `","offset":0,"domain":7,"sequence":0,"export_time":"2023-11-14T22:13:20Z","template":256,"record":{"sourceIPv4Address":"192.0.2.0","octetDeltaCount":0,"userName":"a \"b\"","6871/14":"0102"}}
{"file":"` + name + `","offset":0,"domain":7,"sequence":0,"export_time":"2023-11-14T22:13:20Z","template":256,"record":{"sourceIPv4Address":"192.0.2.1","octetDeltaCount":1,"userName":"a \"b\"","6871/14":"0102"}}
`},
	} {
		stdout, stderr, err := runIPFIX(t, "dump", "-o", row.format, name)
		if err != nil || stdout != row.want || stderr != "" {
			t.Errorf("-o %s: error %v %s\n%s\nwant\n%s", row.format, err, stderr, stdout, row.want)
		}
	}
}

// Files are read one after the other in one template context.
func TestIPFIXSeveralFiles(t *testing.T) {
	messages := flowMessages(t, 7, 3)
	first, rest := save(t, "first.dat", messages[0]), save(t, "rest.ipfix", messages[1:]...)
	if c := stats(t, first, rest); c.Messages != 3 || c.Templates != 1 || c.DataRecords != 6 || len(c.Errors) > 0 {
		t.Errorf("both: %+v", c)
	}
	stdout, stderr, err := runIPFIX(t, "dump", rest)
	if err != nil || !strings.Contains(stdout, "its template is not known") || !strings.Contains(stderr, "data sets without their template: 2") {
		t.Errorf("data alone: %v\n%s%s", err, stdout, stderr)
	}
}

// The numbers of "ipfix dump --stats" have the names that scripts know.
func TestIPFIXDumpStatsNames(t *testing.T) {
	messages := flowMessages(t, 7, 2)
	broken := bytes.Clone(messages[1])
	broken[ipfix.HeaderLength+3]++
	sampling, err := ipfix.NewOptionsTemplate(300, 1, ipfix.FieldSpecifier{ID: ipfix.ObservationDomainId, Length: 4},
		ipfix.FieldSpecifier{ID: ipfix.SamplingPacketInterval, Length: 4})
	if err != nil {
		t.Fatal(err)
	}
	e := ipfix.NewEncoder(7, 0)
	err = errors.Join(e.AddTemplate(sampling), e.AddRecord(sampling, 7, 1), e.AddRecord(sampling, 7, 2), e.AddRecord(sampling, 7, 3))
	if err != nil {
		t.Fatal(err)
	}
	options := bytes.Clone(e.Flush(1_700_000_000))
	if err := errors.Join(e.WithdrawAll(false), e.WithdrawAll(true)); err != nil {
		t.Fatal(err)
	}
	name := save(t, "flows.ipfix", messages[0], broken, messages[1], options, e.Flush(1_700_000_000))
	stdout, stderr, err := runIPFIX(t, "dump", "--stats", "-o", "json", name)
	if err != nil {
		t.Fatal(err, stderr)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"messages": 5.0, "templates": 1.0, "options_templates": 1.0, "data_records": 4.0, "options_records": 3.0, "withdrawals": 2.0,
		"errors": map[string]any{"length": 1.0},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// asCapture puts messages into a capture, a datagram each.
func asCapture(messages [][]byte) []byte {
	var c wiretest.Pcap
	for _, m := range messages {
		c.Add(7, m)
	}
	return c.Bytes()
}

// asPcapNG is asCapture in the other format.
func asPcapNG(messages [][]byte) []byte {
	var b []byte
	block := func(kind uint32, body []byte) {
		body = append(body, make([]byte, -len(body)&3)...)
		n := uint32(len(body) + 12)
		b = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, kind), n)
		b = binary.LittleEndian.AppendUint32(append(b, body...), n)
	}
	words := func(all ...uint32) (w []byte) {
		for _, v := range all {
			w = binary.LittleEndian.AppendUint32(w, v)
		}
		return w
	}
	block(0x0a0d0d0a, words(0x1a2b3c4d, 1, 1<<32-1, 1<<32-1)) // version 1.0, of no length
	block(1, words(wiretest.LinkRaw, 0))
	for c := asCapture(messages)[24:]; len(c) > 0; {
		n := binary.LittleEndian.Uint32(c[8:])
		block(6, append(words(0, 0, 0, n, n), c[16:16+n]...))
		c = c[16+n:]
	}
	return b
}

// Every command takes files of every kind, and one that has the Templates
// before one that has the data, of whichever kinds they are.
func TestIPFIXInputs(t *testing.T) {
	messages := flowMessages(t, 7, 3)
	kinds := []struct {
		name string
		make func([][]byte) []byte
	}{
		{"file.ipfix", func(m [][]byte) []byte { return slices.Concat(m...) }},
		{"payloads.dat", func(m [][]byte) []byte { return slices.Concat(m...) }},
		{"capture.pcap", asCapture},
		{"capture.pcapng", asPcapNG},
	}
	const records = 6
	for _, first := range kinds {
		for _, second := range kinds {
			t.Run(first.name+", "+second.name, func(t *testing.T) {
				names := []string{save(t, first.name, first.make(messages[:1])), save(t, second.name, second.make(messages[1:]))}
				if c := stats(t, names...); c.Messages != 3 || c.DataRecords != records || len(c.Errors) > 0 {
					t.Errorf("dump counts %+v", c)
				}
				out := filepath.Join(t.TempDir(), "out.ipfix")
				if _, stderr, err := runIPFIX(t, append([]string{"convert", "-w", out}, names...)...); err != nil {
					t.Fatal(err, stderr)
				}
				if got, want := recordsOf(t, out), recordsOf(t, names...); len(want) != records || !slices.Equal(got, want) {
					t.Errorf("converted are %q, want %q", got, want)
				}
				conn, err := net.ListenPacket("udp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, stderr, err := runIPFIX(t, append([]string{"replay", "--udp", "--to", conn.LocalAddr().String()}, names...)...); err != nil {
					t.Fatal(err, stderr)
				}
				b := make([]byte, 65536)
				for i, want := range messages {
					n, _, err := conn.ReadFrom(b)
					if err != nil || !bytes.Equal(b[:n], want) {
						t.Fatalf("datagram %d: %d octets, error %v", i, n, err)
					}
				}
			})
		}
	}
}

// Errors name the file and the place in it, and what becomes of it.
func TestIPFIXErrors(t *testing.T) {
	messages := flowMessages(t, 7, 3)
	malformed := bytes.Clone(messages[1])
	malformed[ipfix.HeaderLength+3]++
	length := strconv.Itoa(len(messages[0]))
	wrong, err := os.ReadFile(convert(t, save(t, "in.ipfix", messages[0]), "--checksums"))
	if err != nil {
		t.Fatal(err)
	}
	wrong[80] ^= 1 // within a record
	for _, row := range []struct {
		name    string
		file    string
		stderr  string
		records int
		counted string
	}{
		{"a malformed message", save(t, "bad.ipfix", messages[0], malformed, messages[2]), "octet " + length + ": ipfix: Set Header at octet 18", 4, "length"},
		{"garbage", save(t, "garbage.ipfix", messages[0], []byte("garbage!"), messages[1]), "octet " + length + ": version is none of 10, 9 and 5: skipped 8 octets to the next message", 4, "version"},
		{"a file cut short", save(t, "short.ipfix", messages[0], messages[1][:20]), "octet " + length + ": unexpected EOF: skipped 20 octets to the end", 2, "truncated"},
		{"a wrong checksum", save(t, "sum.ipfix", wrong), "octet 0: message checksum does not match", 3, "checksum"},
	} {
		t.Run(row.name, func(t *testing.T) {
			stdout, stderr, err := runIPFIX(t, "dump", "-o", "json", row.file)
			if err == nil || !strings.Contains(stderr, row.file+": "+row.stderr) {
				t.Errorf("error %v, %q; want %q", err, stderr, row.stderr)
			}
			if n := strings.Count(stdout, "\n"); n != row.records {
				t.Errorf("%d records, want %d", n, row.records)
			}
			if c := stats(t, row.file); c.Errors[row.counted] != 1 || len(c.Errors) != 1 {
				t.Errorf("counted as %v, want %s", c.Errors, row.counted)
			}
		})
	}
	text := save(t, "text", []byte("hello"))
	here := save(t, "here.ipfix", messages...)
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"dump", text}, text + ": begins with 68 65 6c 6c: is neither a capture (pcap, pcapng) nor messages"},
		{[]string{"dump", "nowhere"}, "open nowhere: no such file"},
		{[]string{"dump"}, "requires at least 1 arg"},
		{[]string{"dump", "--port", "http", text}, `"http" is not a port`},
		{[]string{"replay", here}, `required flag(s) "to" not set`},
		{[]string{"replay", here, "--to", "127.0.0.1:1", "--rate", "-1"}, "--rate -1: is below 0"},
		{[]string{"convert", here}, `required flag(s) "write" not set`},
		{[]string{"convert", here, "-w", here}, "is read and written at once"},
		{[]string{"convert", here, "-w", "out", "--to-format", "xml"}, "--to-format xml: is not one of ipfix, json"},
	} {
		if _, _, err := runIPFIX(t, row.args...); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v: error %v, want %q", row.args, err, row.want)
		}
	}
}

// convert converts a file and returns the name of the result.
func convert(t *testing.T, name string, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.ipfix")
	if _, stderr, err := runIPFIX(t, append([]string{"convert", name, "-w", out}, args...)...); err != nil {
		t.Fatal(err, stderr)
	}
	return out
}

func TestIPFIXReplay(t *testing.T) {
	messages := flowMessages(t, 7, 50)
	name := save(t, "flows.ipfix", messages...)
	t.Run("tcp", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		received := make(chan []byte, 1)
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				received <- nil
				return
			}
			defer conn.Close()
			b, _ := io.ReadAll(conn) // what is missing shows below
			received <- b
		}()
		stdout, stderr, err := runIPFIX(t, "replay", name, "--to", listener.Addr().String())
		if err != nil || !strings.HasPrefix(stdout, "50 messages of ") {
			t.Errorf("error %v %s, output %s", err, stderr, stdout)
		}
		if !bytes.Equal(<-received, bytes.Join(messages, nil)) {
			t.Error("other octets were received")
		}
	})
	t.Run("udp", func(t *testing.T) {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, stderr, err := runIPFIX(t, "replay", name, "--to", conn.LocalAddr().String(), "--udp"); err != nil {
			t.Fatal(err, stderr)
		}
		b := make([]byte, 65536)
		for i, want := range messages {
			n, _, err := conn.ReadFrom(b)
			if err != nil || !bytes.Equal(b[:n], want) {
				t.Fatalf("datagram %d: %d octets, error %v", i, n, err)
			}
		}
	})
	t.Run("NetFlow over tcp", func(t *testing.T) {
		netflow := save(t, "netflow", append([]byte{0, 5, 0, 1}, make([]byte, 20+48)...))
		if _, _, err := runIPFIX(t, "replay", netflow, "--to", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "NetFlow 5 can't be sent over TCP: use --udp") {
			t.Errorf("error %v", err)
		}
	})
}

// At 10 messages a second the 21st goes after two seconds, and an interrupt
// ends the waiting.
func TestIPFIXReplayRate(t *testing.T) {
	messages := flowMessages(t, 7, 1)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2050*time.Millisecond)
		defer cancel()
		begun := time.Now()
		r := replay{ctx: ctx, network: "udp", rate: 10, begun: begun, sockets: map[file.Session]net.Conn{{}: sink{}}}
		m := &message{Message: file.Message{Octets: messages[0]}}
		for range 21 {
			if err := r.send(m); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("21 messages took %v", took)
		}
		if err := r.send(m); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
	})
}

// A sink is a connection that takes everything.
type sink struct{ net.Conn }

func (sink) Write(b []byte) (int, error) { return len(b), nil }

// Enterprise elements have the names and types that the exporter tells of
// (RFC 5610), and lists are shown with what is in them (RFC 6313).
func TestIPFIXDumpTypeInformation(t *testing.T) {
	corpusIndex(t)
	name := filepath.Join(corpusDir, "generated", "yaf3-biflow-dpi_dns.ipfix")
	stdout, stderr, err := runIPFIX(t, "dump", "-o", "json", name)
	if err != nil {
		t.Fatal(err, stderr)
	}
	for _, want := range []string{
		`"certToolTombstoneAccessList":{"semantic":"allOf","records":[{"certToolId":1,"observationTimeSeconds":"2026-11-21T23:41:13Z"}]}`,
		`"dnsName":"`,
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %s in the records", want)
		}
	}
	if strings.Contains(stdout, `"6871/`) {
		t.Error("an element of YAF's has no name")
	}
}
