package dict

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fiorix/go-diameter/v4/diam"
	diamdict "github.com/fiorix/go-diameter/v4/diam/dict"

	"tollbridge/dict/avp"
	"tollbridge/internal/peertest"
	"tollbridge/ipfix"
)

// request returns an Accounting-Request with every kind of AVP that we send.
func request(t *testing.T, d *Dictionary) []byte {
	t.Helper()
	template, err := ipfix.NewTemplate(256,
		field(ipfix.SourceIPv4Address, 4), field(ipfix.DestinationIPv4Address, 4), field(ipfix.SourceTransportPort, 2),
		field(ipfix.DestinationTransportPort, 2), field(ipfix.ProtocolIdentifier, 1), field(ipfix.IpDiffServCodePoint, 1),
		field(ipfix.OctetDeltaCount, 4), field(ipfix.FlowStartSeconds, 4), field(ipfix.FlowEndMilliseconds, 8),
		field(ipfix.UserName, ipfix.VariableLength), field(ipfix.SourceMacAddress, 6), field(ipfix.SamplingProbability, 8),
		field(ipfix.DataRecordsReliability, 1), field(434, 4), // mibObjectValueInteger
		ipfix.FieldSpecifier{ID: ipfix.PacketDeltaCount, Enterprise: ipfix.ReversePEN, Length: 8},
		ipfix.FieldSpecifier{ID: 7, Enterprise: 9, Length: 3})
	if err != nil {
		t.Fatal(err)
	}
	record := []byte{192, 0, 2, 12, 192, 0, 2, 144, 0xc0, 1, 1, 187, 6, 46, 0, 1, 0xd8, 0x24, 0x6a, 1, 2, 3}
	record = append(record, 0, 0, 1, 0x9f, 1, 2, 3, 4)
	record = append(record, 4, 'z', 'o', 0xc3, 0xab)
	record = append(record, 2, 0, 0, 0, 0, 1)
	record = append(record, 0x3f, 0xe0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe)
	record = append(record, 0, 0, 0, 0, 0, 0, 0, 99, 'a', 'b', 'c')
	r := interim()
	r.Framed = netip.MustParsePrefix("2001:db8:1:ff00::/56")
	r.Estimated, r.Part, r.Parts = true, 1, 2
	if r.Flow, err = d.AppendFlow(nil, template, record); err != nil {
		t.Fatal(err)
	}
	r.Flow = AppendClassifier(r.Flow, template, record, ClassifierOptions{Mandatory: true, AllProtocols: true})
	b := avp.AppendHeader(nil, avp.Header{
		Flags: avp.FlagRequest | avp.FlagProxiable, Command: avp.CommandAccounting,
		Application: avp.ApplicationAccounting, HopByHop: 1, EndToEnd: 2,
	})
	b = d.AppendRecord(b, &r, options)
	avp.SetLength(b)
	return b
}

// The embedded dictionary loads beside go-diameter's own, which then knows
// every AVP of our request, by its right type. Without it, go-diameter looks an
// unknown vendor's AVP up by its code alone and would choke on one that it takes
// for another of the base protocol, so our codes lie above all of these.
func TestGoDiameterDecodes(t *testing.T) {
	parser := diamdict.Default
	for _, known := range []bool{false, true} {
		for _, d := range []*Dictionary{For(DefaultVendor), For(4711)} {
			if known {
				if err := parser.Load(strings.NewReader(d.GoDiameter())); err != nil {
					t.Fatal(err)
				}
			}
			b := request(t, d)
			m, err := diam.ReadMessage(bytes.NewReader(b), parser)
			if err != nil {
				t.Fatal(err)
			}
			if known {
				checkKnown(t, parser, m.AVP)
			}
			again, err := m.Serialize()
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("go-diameter encodes it to\n%x, %v\nwant\n%x", again, err, b)
			}
		}
	}
}

func checkKnown(t *testing.T, parser *diamdict.Parser, avps []*diam.AVP) {
	t.Helper()
	for _, a := range avps {
		known, err := parser.FindAVPWithVendor(avp.ApplicationAccounting, a.Code, a.VendorID)
		if err != nil || known.VendorID != a.VendorID || strings.HasPrefix(known.Name, "Unknown") {
			t.Errorf("AVP %d of vendor %d: %+v, %v", a.Code, a.VendorID, known, err)
			continue
		}
		if group, ok := a.Data.(*diam.GroupedAVP); ok {
			checkKnown(t, parser, group.AVP)
			continue
		}
		if known.Data.Type != a.Data.Type() {
			t.Errorf("%s was read as type %d", known.Name, a.Data.Type())
		}
	}
}

// tshark reads the exported dictionary, and with it knows every AVP of our
// request by name and finds nothing malformed.
func TestTsharkReadsDictionary(t *testing.T) {
	peertest.Need(t, "tshark")
	d := For(0)
	wireshark := peertest.NewWireshark(t, d.Wireshark())
	capture := filepath.Join(peertest.Readable(t), "acr.pcap")
	writeCapture(t, capture, request(t, d))

	run := func(args ...string) string {
		command := exec.Command("tshark", append([]string{"-n", "-r", capture}, args...)...)
		wireshark.Prepare(command)
		out, err := command.Output()
		if err != nil {
			t.Fatalf("tshark: %v", err)
		}
		return string(out)
	}
	text := run("-V")
	for _, want := range []string{
		"AVP: Tollbridge-Flow(131073)", "AVP: IPFIX-octetDeltaCount(65537)", "IPFIX-octetDeltaCount: 120868",
		"AVP: IPFIX-reversePacketDeltaCount(98306)", "IPFIX-sourceIPv4Address", "192.0.2.12",
		"AVP: Tollbridge-Information-Element(131076)", "AVP: Tollbridge-Class-Usage(131088)", "Tollbridge-Class-Name: voice",
		"AVP: Classifier(511)", "AVP: From-Spec(515)", "Diffserv-Code-Point: ", "Accounting-Input-Octets: 120868",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("tshark does not show %q", want)
		}
	}
	const bad = "_ws.malformed || diameter.avp.code.unknown || diameter.unknown_vendor || diameter.avp.invalid-data || diameter.avp.unknown"
	if frames := run("-Y", bad); frames != "" {
		t.Errorf("tshark objects to %s\n%s", frames, text)
	}
}

// writeCapture writes a capture of one TCP segment to the Diameter port.
func writeCapture(t *testing.T, name string, payload []byte) {
	t.Helper()
	n := 20 + 20 + len(payload)
	b := []byte{0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 101} // pcap of raw IP
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(n>>8), byte(n), 0, 0, byte(n>>8), byte(n))
	b = append(b, 0x45, 0, byte(n>>8), byte(n), 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)  // IPv4
	b = append(b, 0x9c, 0x40, 0x0f, 0x1c, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0) // TCP to port 3868
	if err := os.WriteFile(name, append(b, payload...), 0o644); err != nil {
		t.Fatal(err)
	}
}
