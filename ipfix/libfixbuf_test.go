package ipfix

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// libfixbuf, which exported the Files of the corpus, has the same value for
// every field of every record, by the element's type as the registry or the
// exporter tells it (RFC 5610), and for all that is in lists, and in lists
// within these (RFC 6313).
func TestCorpusValuesAsLibfixbuf(t *testing.T) {
	skipWithoutCorpus(t)
	ipfixDump, err := exec.LookPath("ipfixDump")
	if err != nil {
		t.Skip("skipped: ipfixDump of libfixbuf is not installed")
	}
	var names []string
	for _, pattern := range []string{"generated/*.ipfix", "generated/*v10*.pcap", "netgauze/*.pcap"} {
		found, err := filepath.Glob(filepath.Join(corpusDir, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no %s (%v)", pattern, err)
		}
		names = append(names, found...)
	}
	var total fixbufCounts
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			stream := readFile(t, name)
			if filepath.Ext(name) == ".pcap" {
				stream = bytes.Join(payloads(stream), nil)
			}
			total.compare(t, ipfixDump, stream)
		})
	}
	t.Log(total)
	if total.values < 60_000 || total.lists < 500 {
		t.Errorf("too little was compared: %+v", total)
	}
}

// libfixbuf reads the lists that we make, with several Templates in one and
// lists within their records, which no capture has.
func TestListsAsLibfixbuf(t *testing.T) {
	ipfixDump, err := exec.LookPath("ipfixDump")
	if err != nil {
		t.Skip("skipped: ipfixDump of libfixbuf is not installed")
	}
	fixed, variable, _ := subTemplates(t)
	outer, err := NewTemplate(258, FieldSpecifier{ID: BasicList, Length: VariableLength},
		FieldSpecifier{ID: SubTemplateList, Length: VariableLength}, FieldSpecifier{ID: SubTemplateMultiList, Length: VariableLength})
	if err != nil {
		t.Fatal(err)
	}
	must := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	name := FieldSpecifier{ID: InterfaceName, Length: VariableLength}
	ports := must(AppendBasicList(nil, Ordered, FieldSpecifier{ID: SourceTransportPort, Length: 2}, 80, 443))
	names := must(AppendBasicList(nil, AllOf, name, "lo", strings.Repeat("x", 300), ""))
	ones := [][]byte{must(fixed.AppendRecord(nil, netip.MustParseAddr("192.0.2.1"), 7)), must(fixed.AppendRecord(nil, netip.MustParseAddr("192.0.2.2"), 8))}
	twos := [][]byte{must(variable.AppendRecord(nil, "eth0", ports)), must(variable.AppendRecord(nil, "eth1", names))}
	e := NewEncoder(1, MaxMessage)
	for _, tmpl := range []*Template{fixed, variable, outer} {
		if err := e.AddTemplate(tmpl); err != nil {
			t.Fatal(err)
		}
	}
	for _, parts := range [][]SubTemplate{nil, {{fixed, ones}}, {{variable, twos}, {fixed, ones[:1]}}, {{fixed, nil}}} {
		if err := e.AddRecord(outer, ports, must(AppendSubTemplateList(nil, OneOrMoreOf, variable, twos...)),
			must(AppendSubTemplateMultiList(nil, ExactlyOneOf, parts...))); err != nil {
			t.Fatal(err)
		}
	}
	var total fixbufCounts
	if total.compare(t, ipfixDump, e.Flush(1)); total.lists < 22 {
		t.Errorf("too little was compared: %+v", total)
	}
}

// fixbufCounts are how many values and lists were compared.
type fixbufCounts struct{ values, lists int }

// compare compares all of a File, as we and ipfixDump read it.
func (c *fixbufCounts) compare(t *testing.T, ipfixDump string, file []byte) {
	t.Helper()
	ours := fixbufText{session: NewSession(TCP)}
	for rest := file; len(rest) > 0; {
		n, err := MessageLength(rest)
		if err == nil {
			_, err = ours.session.Decode(rest[:n], ours.set)
		}
		if err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	theirs := fixbufDump(t, ipfixDump, file)
	for i := range min(len(ours.lines), len(theirs)) {
		if ours.lines[i] != theirs[i] {
			t.Fatalf("line %d is\n%s\nlibfixbuf has\n%s", i, strings.Join(ours.lines[max(0, i-5):i+1], "\n"), theirs[i])
		}
		if strings.Contains(theirs[i], "List ") {
			c.lists++
		} else {
			c.values++
		}
	}
	if len(ours.lines) != len(theirs) {
		t.Errorf("%d lines, libfixbuf has %d", len(ours.lines), len(theirs))
	}
}

// A fixbufText is what a session decodes, a line for each record, field and
// list. A line that a record or list begins with says how much is in it.
type fixbufText struct {
	session *Session
	domain  uint32
	lines   []string
}

func (x *fixbufText) line(format string, args ...any) {
	x.lines = append(x.lines, fmt.Sprintf(format, args...))
}

func (x *fixbufText) set(s DataSet) {
	x.domain = s.Header.Domain
	for r, ok := s.Next(); ok; r, ok = s.Next() {
		x.record(s.Template, s.Template.Scope, r)
	}
}

// record adds the lines of a record. In lists libfixbuf tells no scopes apart.
func (x *fixbufText) record(t *Template, scope int, r Record) {
	x.line("record %d of %d", t.ID, len(t.Fields))
	for i, f := range t.Fields {
		label := fmt.Sprintf("(%s)", Element{f.Enterprise, f.ID})
		if i < scope {
			label += " (S)"
		}
		x.value(label, f, r.Field(i))
	}
}

// value adds the lines of a value, which stands for itself where it is no list.
func (x *fixbufText) value(label string, f FieldSpecifier, value []byte) {
	e := cmp.Or(first(x.session.Lookup(f.Enterprise, f.ID)), f.Element())
	if f.ID == ForwardingStatus && f.Length == 4 {
		e.Type = TypeOctetArray // the registry has unsigned8, and libfixbuf nothing longer
	}
	switch e.Type {
	case TypeBasicList, TypeSubTemplateList, TypeSubTemplateMultiList:
		x.line("%s: ", label)
		x.list(e.Type, value)
		return
	}
	x.line("%s: %s", label, fixbufValue(e, value))
}

func first[T any](v T, _ bool) T { return v }

func (x *fixbufText) list(typ Type, value []byte) {
	l, err := ParseList(typ, value, x.session.TemplatesOf(x.domain))
	if err != nil {
		x.line("%v", err)
		return
	}
	switch typ {
	case TypeBasicList:
		values := slices.Collect(l.Values())
		x.line("%v %d %d of %s", typ, len(values), l.Semantic, Element{l.Field.Enterprise, l.Field.ID})
		for i, v := range values {
			x.value(fmt.Sprint(i+1), l.Field, v)
		}
	case TypeSubTemplateList:
		for p := range l.Parts() {
			x.line("%v %d %d of %d", typ, len(slices.Collect(p.Records())), l.Semantic, p.ID)
			for r := range p.Records() {
				x.record(p.Template, 0, r)
			}
		}
	default:
		x.line("%v %d %d of ", typ, len(slices.Collect(l.Parts())), l.Semantic)
		for p := range l.Parts() {
			x.line("record %d of %d", p.ID, len(slices.Collect(p.Records()))) // so it heads each part
			for r := range p.Records() {
				x.record(p.Template, 0, r)
			}
		}
	}
}

// fixbufValue returns a value as ipfixDump prints it, but for addresses, which
// fixbufDump writes as we do.
func fixbufValue(e InformationElement, value []byte) string {
	at := func(layout string) string {
		v, _ := timeOf(e.Type, value)
		return v.UTC().Format("2006-01-02 15:04:05" + layout)
	}
	switch e.Type {
	case TypeString:
		shown, _, _ := bytes.Cut(value, []byte{0})
		return fmt.Sprintf("(len: %d) %s", len(value), shown)
	case TypeOctetArray:
		if e.ID == PaddingOctets && e.Enterprise == 0 {
			return fmt.Sprintf("len: %d", len(value))
		}
		// It takes octets as many as an integer's for one of this machine's order.
		switch len(value) {
		case 1:
			return fmt.Sprint(value[0])
		case 2:
			return fmt.Sprint(binary.NativeEndian.Uint16(value))
		case 4:
			return fmt.Sprint(binary.NativeEndian.Uint32(value))
		case 8:
			return fmt.Sprint(binary.NativeEndian.Uint64(value))
		}
		return fmt.Sprintf("(len: %d) 0x%x", len(value), value)
	case TypeDateTimeSeconds:
		return at("")
	case TypeDateTimeMilliseconds:
		return at(".000")
	case TypeDateTimeMicroseconds:
		return at(".000000")
	case TypeDateTimeNanoseconds:
		return at(".000000000")
	}
	return FormatValue(e.Type, value)
}

// fixbufDump returns a File as fixbufText has it.
func fixbufDump(t *testing.T, ipfixDump string, file []byte) (lines []string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.ipfix")
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), ipfixDump, "--rfc5610", "--data", "--hexdump=65535", "--in", name).Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			t.Logf("%s", failed.Stderr)
		}
		t.Fatal(err)
	}
	list := ""
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for text := range strings.Lines(string(out)) {
		text = strings.TrimSuffix(text, "\n")
		line := strings.TrimLeft(text, "\t")
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "("): // (element) (S) name : value
			label, rest, _ := strings.Cut(line, ")")
			if strings.HasPrefix(rest, " (S)") {
				rest, label = rest[4:], label+") (S"
			}
			_, value, _ := strings.Cut(rest, " : ")
			if a, err := netip.ParseAddr(value); err == nil {
				value = a.String()
			}
			add("%s): %s", label, value)
		case strings.HasPrefix(line, "+++ "):
			list = words[1]
		case len(words) > 3 && words[0] == "count:" && words[2] == "tid:":
			add("record %s of %s", words[3], words[1])
		case len(words) > 3 && words[0] == "count:" && words[2] == "semantic:": // 3-allOf tid: 256, or ie: (element)
			semantic, _, _ := strings.Cut(words[3], "-")
			of := ""
			if len(words) > 5 {
				of = strings.Trim(words[5], "()")
			}
			add("%s %s %s of %s", list, words[1], semantic, of)
		case line == "" || slices.Contains([]string{"header:", "fields:", "---", "***", "export", "message"}, words[0]):
		case len(words) > 1 && words[1] == ":" && line[0] <= '9': // number  : value
			_, value, _ := strings.Cut(line, " : ")
			add("%s: %s", words[0], value)
		default:
			lines[len(lines)-1] += "\n" + text // a string goes on
		}
	}
	return lines
}
