package ipfix

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tshark decodes captures to the same octets, packets, addresses, ports and
// interfaces as we do. It stops reading a NetFlow 9 packet after as many
// FlowSets as the header counts records, so captures of exporters that count
// otherwise are left out: softflowd-v9-udp-sampled.pcap and netflow9.pcap.
func TestCorpusAgainstTshark(t *testing.T) {
	skipWithoutCorpus(t)
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("skipped: tshark is not installed")
	}
	fields := []struct {
		name string
		id   uint16
	}{
		{"cflow.octets", OctetDeltaCount}, {"cflow.packets", PacketDeltaCount},
		{"cflow.srcaddr", SourceIPv4Address}, {"cflow.dstaddr", DestinationIPv4Address},
		{"cflow.srcport", SourceTransportPort}, {"cflow.dstport", DestinationTransportPort},
		{"cflow.protocol", ProtocolIdentifier}, {"cflow.inputint", IngressInterface},
	}
	for _, name := range []string{
		"generated/softflowd-v10-udp-biflow.pcap", "generated/softflowd-v10-udp-uniflow.pcap", "generated/softflowd-v5-udp.pcap",
		"graylog/netflow5.pcap", "graylog/netgraph-netflow5.pcap",
		"graylog/nprobe-netflow9-2.pcap", "graylog/nprobe-netflow9-4.pcap", "graylog/pmacctd-netflow5.pcap",
		"graylog/pmacctd-netflow9.pcap", "netgauze/srv6.pcap",
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"-r", filepath.Join(corpusDir, name), "-d", "udp.port==1-65535,cflow", "-T", "fields"}
			got := make([][]string, len(fields))
			want := make([][]string, len(fields))
			for _, f := range fields {
				args = append(args, "-e", f.name)
			}
			out, err := exec.Command(tshark, args...).Output()
			if err != nil {
				t.Skipf("skipped: tshark: %v", err)
			}
			for line := range strings.Lines(string(out)) {
				for i, column := range strings.Split(strings.TrimSuffix(line, "\n"), "\t") {
					if column != "" {
						want[i] = append(want[i], strings.Split(column, ",")...)
					}
				}
			}
			s := NewSession(UDP)
			for _, msg := range payloads(readFile(t, filepath.Join(corpusDir, name))) {
				_, err := s.Decode(msg, func(set DataSet) {
					for r, ok := set.Next(); ok; r, ok = set.Next() {
						for i, f := range set.Template.Fields {
							for k := range fields {
								if (f.Enterprise == 0 || f.Enterprise == ReversePEN) && f.ID == fields[k].id {
									got[k] = append(got[k], FormatValue(f.Element().Type, r.Field(i)))
								}
							}
						}
					}
				})
				if err != nil {
					t.Error(err)
				}
			}
			total := 0
			for k, f := range fields {
				total += len(got[k])
				slices.Sort(got[k])
				slices.Sort(want[k])
				if !slices.Equal(got[k], want[k]) {
					t.Errorf("%s: %d values, want %d: %s", f.name, len(got[k]), len(want[k]), firstDifference(got[k], want[k]))
				}
			}
			if total == 0 {
				t.Error("nothing was compared")
			}
		})
	}
}

// asTshark are captures and IPFIX Files of which tshark shows every field. Of
// NetFlow 5 it shows its own, and of softflowd's NetFlow 9 not all.
var asTshark = []string{"netgauze/srv6.pcap", "generated/*v10*.pcap", "generated/*.ipfix", "ipfixcol2/*.ipfix"}

// Every field of every record, but for some lists, has the octets that tshark has
// for it: record by record, in order.
func TestCorpusFieldsAsTshark(t *testing.T) {
	skipWithoutCorpus(t)
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("skipped: tshark is not installed")
	}
	compared := 0
	for _, pattern := range asTshark {
		names, err := filepath.Glob(filepath.Join(corpusDir, pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("no %s (%v)", pattern, err)
		}
		for _, name := range names {
			t.Run(filepath.Base(name), func(t *testing.T) {
				want := tsharkRecords(t, tshark, name)
				var got []string
				session, streams := NewSession(UDP), [][]byte{readFile(t, name)}
				if filepath.Ext(name) == ".pcap" {
					streams = payloads(streams[0])
				}
				for _, stream := range streams {
					for len(stream) > 0 {
						n, err := MessageLength(stream)
						if err != nil {
							t.Fatal(err)
						}
						if _, err := session.Decode(stream[:n], func(set DataSet) {
							for r, ok := set.Next(); ok; r, ok = set.Next() {
								got = append(got, fieldsAsSent(set.Template, r))
							}
						}); err != nil {
							t.Fatal(err)
						}
						stream = stream[n:]
					}
				}
				if len(got) != len(want) {
					t.Errorf("%d records, tshark has %d", len(got), len(want))
				}
				for i := range min(len(got), len(want)) {
					if got[i] != want[i] {
						t.Fatalf("record %d is\n%s, tshark has\n%s", i, got[i], want[i])
					}
					compared += len(got[i])
				}
			})
		}
	}
	if compared /= 2; compared < 100000 {
		t.Errorf("only %d octets compared", compared)
	}
	t.Logf("%d octets compared", compared)
}

// fieldsAsSent returns the octets of a record's fields in hexadecimal, without
// what was not sent, and without lists that tshark takes apart.
func fieldsAsSent(t *Template, r Record) string {
	var b strings.Builder
	for i, f := range t.asSent().Fields {
		if typ := f.Element().Type; typ != TypeBasicList && typ != TypeSubTemplateList {
			fmt.Fprintf(&b, "%x", r.Field(i))
		}
	}
	return b.String()
}

// tsharkRecords returns the same as tshark has it. It shows some fields below
// others that it computes, which have no octets of their own.
func tsharkRecords(t *testing.T, tshark, name string) (records []string) {
	t.Helper()
	args := []string{"-r", name, "-T", "pdml", "-J", "cflow"}
	if filepath.Ext(name) == ".pcap" {
		args = append(args, "-d", "udp.port==1-65535,cflow", "-d", "tcp.port==1-65535,cflow")
	}
	out, err := exec.CommandContext(t.Context(), tshark, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(bytes.NewReader(out))
	var flow, shown int // depth of the record that is being read, and of the field
	for depth := 0; ; {
		token, err := d.Token()
		if err == io.EOF {
			return records
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			depth++
			attributes := map[string]string{}
			for _, a := range e.Attr {
				attributes[a.Name.Local] = a.Value
			}
			switch {
			case flow == 0 && isFlow(attributes["show"]):
				flow = depth
				records = append(records, "")
			case flow == 0 || shown > 0:
			case strings.HasSuffix(attributes["name"], "_list"):
				shown = depth
			case attributes["value"] != "":
				shown = depth
				records[len(records)-1] += attributes["value"]
			}
		case xml.EndElement:
			if flow == depth {
				flow = 0
			}
			if shown == depth {
				shown = 0
			}
			depth--
		}
	}
}

// isFlow reports whether tshark shows a record so.
func isFlow(show string) bool {
	var n int
	_, err := fmt.Sscanf(show, "Flow %d", &n)
	return err == nil
}

func firstDifference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("%s, want %s", got[i], want[i])
		}
	}
	return "one has more"
}
