package ipfix

import (
	"fmt"
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

func firstDifference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("%s, want %s", got[i], want[i])
		}
	}
	return "one has more"
}
