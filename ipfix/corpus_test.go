package ipfix

import (
	"cmp"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"testing"
)

const corpusDir = "../../shared/corpus"

func skipWithoutCorpus(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(corpusDir); err != nil {
		t.Skip("skipped: the corpus of captures is not here (", corpusDir, ")")
	}
}

// Captures of real exporters decode to the counts that an independent parser
// found in them, or with the fault that it found.
func TestCorpus(t *testing.T) {
	skipWithoutCorpus(t)
	f, err := os.Open(filepath.Join(corpusDir, "INDEX.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[1:] {
		t.Run(row[0]+"/"+row[1], func(t *testing.T) {
			want := corpusCounts{}
			for i, p := range []*int{&want.messages, &want.templates, &want.optionsTemplates, &want.records,
				&want.optionsRecords, &want.withdrawals} {
				*p, _ = strconv.Atoi(row[3+i])
			}
			if notFlows[row[0]] {
				if !reflect.DeepEqual(want, corpusCounts{}) {
					t.Errorf("the index has %+v in what is no flow export", want)
				}
				return
			}
			fault := corpusFaults[row[1]]
			if fault.counts != nil {
				want = *fault.counts
			}
			if notes := row[12]; notes != fault.index {
				t.Errorf("the index says %q, want %q", notes, fault.index)
			}
			session := NewSession(UDP)
			session.Salvage = true
			got := decodeCorpus(t, session, row[0], row[1])
			if said := got.faults(); said != fault.ours {
				t.Errorf("faults %q, want %q", said, fault.ours)
			}
			got.unknown, got.errs = 0, nil
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// Files without Templates decode after the file that has them.
func TestCorpusTemplatesFirst(t *testing.T) {
	skipWithoutCorpus(t)
	for _, test := range corpusRuns {
		t.Run(test.source+"/"+test.files[len(test.files)-1], func(t *testing.T) {
			session := NewSession(UDP)
			var got corpusCounts
			for _, name := range test.files {
				got = decodeCorpus(t, session, test.source, name)
			}
			if got.records != test.records || got.optionsRecords != test.optionsRecords || got.unknown != test.unknown || len(got.errs) > 0 {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// notFlows are the directories of the corpus without IPFIX or NetFlow: RADIUS,
// and the traffic from which flows were generated.
var notFlows = map[string]bool{"aaa-radius-diameter": true, "traffic-for-probes": true}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// decodeCorpus decodes a file of the corpus.
func decodeCorpus(t *testing.T, session *Session, source, name string) corpusCounts {
	data := readFile(t, filepath.Join(corpusDir, source, name))
	streams := [][]byte{data}
	if filepath.Ext(name) == ".pcap" {
		streams = payloads(data)
	}
	var got corpusCounts
	for _, stream := range streams {
		got.decode(t, session, stream)
	}
	return got
}

type corpusCounts struct {
	messages, templates, optionsTemplates, records, optionsRecords, withdrawals int
	unknown                                                                     int     // Data Sets without their Template
	errs                                                                        []error // of malformed Messages
}

func (c *corpusCounts) faults() string {
	if len(c.errs) == 0 {
		return ""
	}
	return errors.Join(c.errs...).Error()
}

// A corpusFault is what the index says of a file with a fault, and what we do.
// The counts, where there are any, take the place of the index's: a malformed
// Message is discarded whole (RFC 7011, Section 9.1), while the index counts
// the parts of it that come before the fault.
type corpusFault struct {
	index, ours string
	counts      *corpusCounts
}

var corpusFaults = map[string]corpusFault{
	// Malformed Messages change nothing, so the 15 Templates before the cut don't
	// count; there are no records.
	"bad-length-in-set.ipfix": {
		index:  "msglen 1384>1316; tpl258 truncated; set 0 len 305 over",
		ours:   "ipfix: Message Header at octet 2: length is impossible",
		counts: &corpusCounts{messages: 1},
	},
	"bad-template-field-count.ipfix": {
		index: "tpl256 truncated",
		ours:  "ipfix: Template Record at octet 20: length is impossible",
	},
	// Malformed Messages change nothing, so the four Templates beside the bad 260,
	// an Options Template of NetFlow 9 with lengths where IPFIX has counts, don't
	// hold, and the nine Messages of data stay without Template.
	"enterprise-from-nfv9.ipfix": {
		index:  "tpl260 truncated",
		ours:   "ipfix: Options Template Record at octet 376: scope field count is zero or above the field count",
		counts: &corpusCounts{messages: 10},
	},
	// As the index has it: 30 records come with a header that says 55,582.
	"netflow5_test_invalid01.dat": {
		index: "v5 count 55582 len 1464",
		ours:  "ipfix: NetFlow 5 header at octet 2: count is of more records than are there",
	},
	// No fault: the corpus has packets end to end, and the index's set of ID 9 is
	// the second one's Version Number, two seconds and one sequence number later.
	"netflow-v9-1.dat": {
		index:  "set id 9; set 0 len 7496 over; tpl21829 truncated",
		counts: &corpusCounts{messages: 2, templates: 2, records: 6},
	},
}

// decode counts what is in a run of Messages.
func (c *corpusCounts) decode(t *testing.T, session *Session, stream []byte) {
	for len(stream) > 0 {
		c.messages++
		n, err := MessageLength(stream)
		if err != nil && !errors.Is(err, ErrCount) {
			c.errs = append(c.errs, err)
			return
		}
		msg := stream[:n]
		stream = stream[n:]
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
				c.unknown++
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
			c.errs = append(c.errs, err)
			continue
		}
		c.countTemplates(t, msg)
	}
}

func (c *corpusCounts) countTemplates(t *testing.T, msg []byte) {
	h, _ := MessageHeader(msg)
	for at := h.size(); at < len(msg) && h.Version != NetFlow5; {
		s, err := h.set(msg, at)
		if err != nil {
			t.Fatal(err)
		}
		at = s.end
		for (s.id == templateSet || s.id == optionsTemplateSet) && !s.done(msg) {
			d, err := s.template(msg, nil)
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

// corpusRuns are files of the corpus that belong together, and what is in the
// last of them.
var corpusRuns = []struct {
	source                           string
	files                            []string
	records, optionsRecords, unknown int
}{
	{"fluent-plugin-netflow", []string{"netflow.v9.template.dump", "netflow.v9.dump"}, 1, 0, 0},
	{"fluent-plugin-netflow", []string{"netflow.v9.template.flowStartMilliseconds.dump", "netflow.v9.flowStartMilliseconds.dump"}, 1, 0, 0},
	{"fluent-plugin-netflow", []string{"netflow.v9.mpls-template.dump", "netflow.v9.mpls-data.dump"}, 1, 0, 0},
	{"fluent-plugin-netflow", []string{"netflow.v9.sampler_template.dump", "netflow.v9.sampler.dump"}, 0, 1, 0},
	{"graylog", []string{"netflow-v9-2-1.dat", "netflow-v9-2-2.dat"}, 1, 0, 0},
	{"graylog", []string{"netflow-v9-2-1.dat", "netflow-v9-2-3.dat"}, 1, 0, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_barracuda_tpl.dat", "ipfix_test_barracuda_data256.dat"}, 8, 0, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_barracuda_extended_uniflow_tpl256.dat", "ipfix_test_barracuda_extended_uniflow_data256.dat"}, 2, 0, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_juniper_mx240_junos151r6s3_opttpl512.dat", "ipfix_test_juniper_mx240_junos151r6s3_data512.dat"}, 0, 1, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_mikrotik_tpl.dat", "ipfix_test_mikrotik_data258.dat"}, 28, 0, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_mikrotik_tpl.dat", "ipfix_test_mikrotik_data259.dat"}, 18, 0, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_netscaler_tpl.dat", "ipfix_test_netscaler_data.dat"}, 3, 0, 1},
	{"logstash-codec-netflow", []string{"ipfix_test_nokia_bras_tpl.dat", "ipfix_test_nokia_bras_data256.dat"}, 1, 0, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_openbsd_pflow_tpl.dat", "ipfix_test_openbsd_pflow_data.dat"}, 26, 0, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_vmware_vds_tpl.dat", "ipfix_test_vmware_vds_data264.dat"}, 1, 0, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_vmware_vds_tpl.dat", "ipfix_test_vmware_vds_data266.dat"}, 2, 0, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_vmware_vds_tpl.dat", "ipfix_test_vmware_vds_data266_267.dat"}, 2, 0, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_yaf_tpl45841.dat", "ipfix_test_yaf_data45841.dat"}, 1, 0, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_yaf_tpls_option_tpl.dat", "ipfix_test_yaf_data45873.dat"}, 1, 0, 0},
	{"logstash-codec-netflow", []string{"ipfix_test_yaf_tpls_option_tpl.dat", "ipfix_test_yaf_data53248.dat"}, 0, 1, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_cisco_aci_tpl256-258.dat", "netflow9_test_cisco_aci_data256.dat"}, 3, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_cisco_asa_1_tpl.dat", "netflow9_test_cisco_asa_1_data.dat"}, 14, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_cisco_asa_2_tpl_26x.dat", "netflow9_test_cisco_asa_2_tpl_27x.dat", "netflow9_test_cisco_asa_2_data.dat"}, 19, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_cisco_asr9k_opttpl257.dat", "netflow9_test_cisco_asr9k_tpl260.dat", "netflow9_test_cisco_asr9k_data260.dat"}, 21, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_cisco_nbar_tpl262.dat", "netflow9_test_cisco_nbar_data262.dat"}, 5, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_cisco_wlc_tpl.dat", "netflow9_test_cisco_wlc_data261.dat"}, 19, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_field_layer2segmentid_tpl.dat", "netflow9_test_field_layer2segmentid_data.dat"}, 1, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_fortigate_fortios_521_tpl.dat", "netflow9_test_fortigate_fortios_521_data256.dat"}, 0, 1, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_fortigate_fortios_521_tpl.dat", "netflow9_test_fortigate_fortios_521_data257.dat"}, 1, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_fortigate_fortios_542_appid_tpl258-269.dat", "netflow9_test_fortigate_fortios_542_appid_data258_262.dat"}, 17, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_h3c_tpl3281.dat", "netflow9_test_h3c_data3281.dat"}, 16, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_huawei_netstream_tpl.dat", "netflow9_test_huawei_netstream_data.dat"}, 1, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_macaddr_tpl.dat", "netflow9_test_macaddr_data.dat"}, 29, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_nprobe_tpl.dat", "netflow9_test_nprobe_data.dat"}, 1, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_paloalto_panos_tpl.dat", "netflow9_test_paloalto_panos_data.dat"}, 8, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_ubnt_edgerouter_tpl.dat", "netflow9_test_ubnt_edgerouter_data1024.dat"}, 8, 0, 0},
	{"logstash-codec-netflow", []string{"netflow9_test_ubnt_edgerouter_tpl.dat", "netflow9_test_ubnt_edgerouter_data1025.dat"}, 8, 0, 0},
	{"rs-ipfix-rw", []string{"parse_temp.bin", "parse_data.bin"}, 21, 0, 0},
	{"telegraf", []string{"ipfix_example_ipfix_0.bin", "ipfix_example_ipfix_1.bin", "ipfix_example_ipfix_3.bin", "ipfix_example_ipfix_2.bin"}, 1, 0, 0},
	{"telegraf", []string{"ipfix_example_ipfix_0.bin", "ipfix_example_ipfix_1.bin", "ipfix_example_ipfix_3.bin", "ipfix_example_ipfix_4.bin"}, 20, 0, 0},
	{"telegraf", []string{"ipfix_example_ipfix_0.bin", "ipfix_example_ipfix_1.bin", "ipfix_example_ipfix_3.bin", "ipfix_example_ipfix_5.bin"}, 8, 1, 0},
	{"telegraf", []string{"ipfix_example_ipfix_0.bin", "ipfix_example_ipfix_1.bin", "ipfix_example_ipfix_3.bin", "ipfix_example_ipfix_6.bin"}, 0, 1, 0},
	{"telegraf", []string{"ipfix_options_message-001.bin", "ipfix_options_message-002.bin"}, 0, 14, 0},
	{"telegraf", []string{"ipfix_options_message-001.bin", "ipfix_options_message-009.bin"}, 0, 14, 0},
	{"telegraf", []string{"ipfix_pen_35632_message-1.bin", "ipfix_pen_35632_message-2.bin", "ipfix_pen_35632_message-3.bin"}, 1, 0, 0},
	{"telegraf", []string{"ipfix_pen_35632_message-1.bin", "ipfix_pen_35632_message-2.bin", "ipfix_pen_35632_message-4.bin"}, 1, 0, 0},
	{"telegraf", []string{"issue_13305_message-1.bin", "issue_13305_message-2.bin", "issue_13305_message-3.bin"}, 1, 0, 0},
	{"telegraf", []string{"issue_13305_message-1.bin", "issue_13305_message-2.bin", "issue_13305_message-4.bin"}, 1, 0, 0},
}
