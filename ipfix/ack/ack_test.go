package ack_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
)

var update = flag.Bool("update", false, "rewrite the examples of docs/acknowledged-export.md")

// document has the protocol with its examples.
const document = "../../docs/acknowledged-export.md"

var (
	instance = ack.Instance{0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x69, 0x78, 0x87, 0x96, 0xa5, 0xb4, 0xc3, 0xd2, 0xe1, 0xf0}
	at       = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// examples are the Messages of the document, by name.
func examples() map[string][]byte {
	const pen = ack.Enterprise
	flows := must(ipfix.NewTemplate(256,
		ipfix.FieldSpecifier{ID: ipfix.FlowEndMilliseconds, Length: 8},
		ipfix.FieldSpecifier{ID: ipfix.SourceIPv4Address, Length: 4},
		ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8}))
	exporter, collector := ipfix.NewEncoder(1, 0), ipfix.NewEncoder(0, 0)
	message := func(e *ipfix.Encoder, errs ...error) []byte {
		for _, err := range errs {
			if err != nil {
				panic(err)
			}
		}
		return bytes.Clone(e.Flush(uint32(at.Unix())))
	}
	identity := func(position uint64) error {
		id := ack.Identity{Instance: instance, Position: position, Version: ack.Version, Wants: ack.Acknowledgements | ack.Pulls}
		return exporter.AppendRecord(ack.IdentityTemplate(pen), id.Append(nil))
	}
	all := map[string][]byte{}
	all["templates"] = message(exporter,
		exporter.AddTemplate(ack.IdentityTemplate(pen)), exporter.AddTemplate(ack.GivenUpTemplate(pen)), exporter.AddTemplate(ack.PullAnswerTemplate(pen)),
		exporter.AddTemplate(flows))
	all["flows"] = message(exporter, identity(7),
		exporter.AddRecord(flows, at.Add(-time.Second), netip.MustParseAddr("192.0.2.7"), 1500))
	all["acknowledgement"] = message(collector,
		collector.AddTemplate(ack.AcknowledgementTemplate(pen)),
		collector.AppendRecord(ack.AcknowledgementTemplate(pen), ack.Acknowledgement{Instance: instance, Position: 7, Version: 1}.Append(nil)))
	all["acknowledgement again"] = message(collector,
		collector.AppendRecord(ack.AcknowledgementTemplate(pen), ack.Acknowledgement{Instance: instance, Position: 19, Version: 1}.Append(nil)))
	all["held up"] = message(collector,
		collector.AddTemplate(ack.HeldUpTemplate(pen)),
		collector.AppendRecord(ack.HeldUpTemplate(pen), ack.HeldUp{Instance: instance, Reason: ack.DiskFull}.Append(nil)))
	all["pull"] = message(collector,
		collector.AddTemplate(ack.PullTemplate(pen)),
		collector.AppendRecord(ack.PullTemplate(pen), ack.Pull{Request: 42, Prefix: netip.MustParsePrefix("192.0.2.7/32")}.Append(nil)))
	all["pull answer"] = message(exporter, identity(8),
		exporter.AddRecord(flows, at, netip.MustParseAddr("192.0.2.7"), 600),
		exporter.AppendRecord(ack.PullAnswerTemplate(pen), ack.PullAnswer{Request: 42, Result: ack.Done, Time: at}.Append(nil)))
	all["given up"] = message(exporter, identity(5000),
		exporter.AppendRecord(ack.GivenUpTemplate(pen), ack.GivenUp{First: 9, Last: 9, Records: 140}.Append(nil)),
		exporter.AppendRecord(ack.GivenUpTemplate(pen), ack.GivenUp{First: 10, Last: 1033, Records: 143360}.Append(nil)))
	return all
}

// dump prints octets as the document has them.
func dump(b []byte) string {
	var s strings.Builder
	for i := 0; i < len(b); i += 16 {
		line := b[i:min(i+16, len(b))]
		fmt.Fprintf(&s, "% x\n", line)
	}
	return s.String()
}

// The examples of the document are what this implementation sends.
func TestDocumentedExamples(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```hex ([a-z ]+)\n(.*?)```")
	want := examples()
	found := map[string]bool{}
	rewritten := block.ReplaceAllFunc(text, func(b []byte) []byte {
		m := block.FindSubmatch(b)
		name := string(m[1])
		found[name] = true
		got, err := hex.DecodeString(strings.Join(strings.Fields(string(m[2])), ""))
		if !*update && (err != nil || !bytes.Equal(got, want[name])) {
			t.Errorf("example %q (%v):\n%swant:\n%s", name, err, dump(got), dump(want[name]))
		}
		return []byte("```hex " + name + "\n" + dump(want[name]) + "```")
	})
	for name, b := range want {
		if !found[name] {
			t.Errorf("%s has no example %q:\n%s", document, name, dump(b))
		}
		if err := ipfix.Validate(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if *update {
		if err := os.WriteFile(document, rewritten, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// What is said is heard, whatever the Template's other fields and their order.
func TestRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := ack.Identity{Instance: ack.Instance(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "instance")), Position: rapid.Uint64().Draw(t, "position"),
			Version: rapid.Byte().Draw(t, "version"), Wants: ack.Wants(rapid.Byte().Draw(t, "wants"))}
		gone := ack.GivenUp{First: rapid.Uint64().Draw(t, "first"), Last: rapid.Uint64().Draw(t, "last"), Records: rapid.Uint64().Draw(t, "records")}
		answer := ack.PullAnswer{Request: rapid.Uint64().Draw(t, "request"), Result: ack.Result(rapid.Byte().Draw(t, "result")), Time: time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "time")).UTC()}
		acked := ack.Acknowledgement{Instance: id.Instance, Position: id.Position, Version: 1}
		held := ack.HeldUp{Instance: id.Instance, Reason: ack.Reason(rapid.Byte().Draw(t, "reason"))}
		prefix := netip.PrefixFrom(netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))), rapid.IntRange(0, 128).Draw(t, "bits")).Masked()
		if rapid.Bool().Draw(t, "IPv4") {
			prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte(id.Instance[:4])), rapid.IntRange(0, 32).Draw(t, "bits")).Masked()
		} else if prefix.Addr().Is4In6() {
			prefix = ack.All
		}
		pull := ack.Pull{Request: answer.Request, Prefix: prefix}
		pen := rapid.Uint32Range(1, 1<<31).Draw(t, "enterprise")
		for _, x := range []struct {
			template *ipfix.Template
			octets   []byte
			heard    func(*ack.Layout, ipfix.Record) bool
		}{
			{ack.IdentityTemplate(pen), id.Append(nil), func(l *ack.Layout, r ipfix.Record) bool { return l.Identity(r) == id }},
			{ack.GivenUpTemplate(pen), gone.Append(nil), func(l *ack.Layout, r ipfix.Record) bool { return l.GivenUp(r) == gone }},
			{ack.PullAnswerTemplate(pen), answer.Append(nil), func(l *ack.Layout, r ipfix.Record) bool { return l.PullAnswer(r) == answer }},
			{ack.AcknowledgementTemplate(pen), acked.Append(nil), func(l *ack.Layout, r ipfix.Record) bool { return l.Acknowledgement(r) == acked }},
			{ack.HeldUpTemplate(pen), held.Append(nil), func(l *ack.Layout, r ipfix.Record) bool { return l.HeldUp(r) == held }},
			{ack.PullTemplate(pen), pull.Append(nil), func(l *ack.Layout, r ipfix.Record) bool { return l.Pull(r) == pull }},
		} {
			// Another vendor may put fields of its own before.
			fields := append([]ipfix.FieldSpecifier{{ID: ipfix.ExportingProcessId, Length: 4}}, x.template.Fields...)
			other := must(ipfix.NewOptionsTemplate(400, 1, fields...))
			for _, tmpl := range []*ipfix.Template{x.template, other} {
				octets := x.octets
				if tmpl == other {
					octets = append([]byte{9, 9, 9, 9}, octets...)
				}
				e := ipfix.NewEncoder(3, 0)
				if err := e.AddTemplate(tmpl); err != nil {
					t.Fatal(err)
				}
				if err := e.AppendRecord(tmpl, octets); err != nil {
					t.Fatal(err)
				}
				heard := false
				ack.NewWatcher(pen).Message(e.Flush(1), func(l *ack.Layout, r ipfix.Record, front bool) {
					heard = x.heard(l, r) && !front // its Template stands before it
				})
				if !heard {
					t.Fatalf("template %d with %x is not heard", tmpl.ID, octets)
				}
				ack.NewWatcher(pen+1).Message(e.Flush(1), func(*ack.Layout, ipfix.Record, bool) { t.Fatal("another enterprise's is heard") })
			}
		}
	})
}

func TestWatcherForgetsWithdrawnTemplates(t *testing.T) {
	for _, all := range []bool{false, true} {
		w, e := ack.NewWatcher(ack.Enterprise), ipfix.NewEncoder(1, 0)
		tmpl := ack.IdentityTemplate(ack.Enterprise)
		heard := 0
		say := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
			w.Message(e.Flush(1), func(_ *ack.Layout, _ ipfix.Record, front bool) {
				if front {
					heard++
				}
			})
		}
		record := ack.Identity{Instance: instance}.Append(nil)
		say(e.AddTemplate(tmpl))
		say(e.AppendRecord(tmpl, record))
		if all {
			say(e.WithdrawAll(true))
		} else {
			say(e.Withdraw(tmpl))
		}
		say(e.AppendRecord(tmpl, record))
		if heard != 1 {
			t.Errorf("withdrawal of all %v: %d records heard, want 1", all, heard)
		}
	}
}

// FuzzWatcher feeds a Watcher what passes Validate: it must not panic, and
// must hear nothing in what the codec does not decode.
func FuzzWatcher(f *testing.F) {
	for _, b := range examples() {
		f.Add(b)
	}
	both := examples()
	f.Add(append(bytes.Clone(both["templates"]), both["flows"]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, s := ack.NewWatcher(ack.Enterprise), ipfix.NewSession(ipfix.TCP)
		for len(b) > 0 {
			n, err := ipfix.MessageLength(b)
			if err != nil || n > len(b) || ipfix.Validate(b[:n]) != nil {
				return
			}
			heard := 0
			w.Message(b[:n], func(l *ack.Layout, r ipfix.Record, _ bool) {
				heard++
				switch l.Kind {
				case ack.KindIdentity:
					l.Identity(r)
				case ack.KindGivenUp:
					l.GivenUp(r)
				case ack.KindPullAnswer:
					l.PullAnswer(r)
				case ack.KindAcknowledgement:
					l.Acknowledgement(r)
				case ack.KindHeldUp:
					l.HeldUp(r)
				case ack.KindPull:
					l.Pull(r)
				}
			})
			records := 0
			if _, err := s.Decode(b[:n], func(set ipfix.DataSet) { records += set.Records }); err != nil {
				return // the rest of the session is of no interest
			}
			if heard > records {
				t.Fatalf("%d records heard of %d", heard, records)
			}
			b = b[n:]
		}
	})
}
