package dict

import (
	"bytes"
	"net/netip"
	"testing"

	"tollbridge/dict/avp"
	"tollbridge/ipfix"
)

func TestClassifier(t *testing.T) {
	v4 := func(code uint32, address string, port int32) []byte {
		b, at := avp.Begin(nil, code, 0, 0)
		b = avp.AppendAddress(b, avp.IPAddress, 0, 0, netip.MustParseAddr(address))
		if port >= 0 {
			b = avp.AppendInt32(b, avp.Port, 0, 0, port)
		}
		avp.End(b, at)
		return b
	}
	icmp, at := avp.Begin(nil, avp.ICMPType, 0, 0)
	icmp = avp.AppendUint32(icmp, avp.ICMPTypeNumber, 0, 0, 8)
	icmp = avp.AppendUint32(icmp, avp.ICMPCode, 0, 0, 1)
	avp.End(icmp, at)

	key := []ipfix.FieldSpecifier{
		field(ipfix.SourceIPv4Address, 4), field(ipfix.DestinationIPv4Address, 4),
		field(ipfix.SourceTransportPort, 2), field(ipfix.DestinationTransportPort, 2), field(ipfix.ProtocolIdentifier, 1),
		field(ipfix.IpClassOfService, 1), field(ipfix.IcmpTypeCodeIPv4, 2),
	}
	record := func(protocol byte) []byte {
		return []byte{192, 0, 2, 12, 192, 0, 2, 144, 0xc0, 1, 1, 187, protocol, 46 << 2, 8, 1}
	}
	from, to := v4(avp.FromSpec, "192.0.2.12", 0xc001), v4(avp.ToSpec, "192.0.2.144", 443)
	dscp := avp.AppendUint32(nil, avp.DiffservCodePoint, 0, 0, 46)
	for _, row := range []struct {
		name    string
		fields  []ipfix.FieldSpecifier
		record  []byte
		options ClassifierOptions
		want    [][]byte // behind Classifier-ID; nil for no Classifier
	}{
		{"TCP", key, record(6), ClassifierOptions{}, [][]byte{avp.AppendUint32(nil, avp.Protocol, 0, 0, 6), from, to, dscp}},
		{"a protocol that dictionaries may not enumerate", key, record(47), ClassifierOptions{}, [][]byte{from, to, dscp}},
		{"the same where they do", key, record(47), ClassifierOptions{AllProtocols: true}, [][]byte{avp.AppendUint32(nil, avp.Protocol, 0, 0, 47), from, to, dscp}},
		{"ICMP has no ports", key, record(1), ClassifierOptions{}, [][]byte{v4(avp.FromSpec, "192.0.2.12", -1), v4(avp.ToSpec, "192.0.2.144", -1), dscp, icmp}},
		{"a flow without a key", []ipfix.FieldSpecifier{field(ipfix.OctetDeltaCount, 8)}, make([]byte, 8), ClassifierOptions{}, nil},
		{"an address of another length is none", []ipfix.FieldSpecifier{field(ipfix.SourceIPv4Address, 3)}, make([]byte, 3), ClassifierOptions{}, nil},
		{"a record cut short", key, record(6)[:10], ClassifierOptions{}, nil},
		{"a variable length cut short", []ipfix.FieldSpecifier{field(ipfix.ProtocolIdentifier, 1), field(ipfix.UserName, ipfix.VariableLength)}, []byte{6}, ClassifierOptions{}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			template, err := ipfix.NewTemplate(256, row.fields...)
			if err != nil {
				t.Fatal(err)
			}
			b := AppendClassifier(nil, template, row.record, row.options)
			if row.want == nil {
				if len(b) != 0 {
					t.Errorf("got %x", b)
				}
				return
			}
			group, rest, err := avp.Next(b)
			if err != nil || len(rest) != 0 || !group.Is(avp.Classifier, 0) || group.Mandatory() {
				t.Fatalf("got %+v, %v", group, err)
			}
			id, members, err := avp.Next(group.Data)
			if err != nil || !id.Is(avp.ClassifierID, 0) || len(id.Data) != 8 {
				t.Fatalf("Classifier-ID %+v, %v", id, err)
			}
			if want := bytes.Join(row.want, nil); !bytes.Equal(members, want) {
				t.Errorf("got  %x\nwant %x", members, want)
			}
		})
	}

	template, err := ipfix.NewTemplate(256, key...)
	if err != nil {
		t.Fatal(err)
	}
	mandatory := AppendClassifier(nil, template, record(6), ClassifierOptions{Mandatory: true})
	group, _, _ := avp.Next(mandatory)
	for a := range avp.Scan(group.Data) {
		if !a.Mandatory() || !group.Mandatory() {
			t.Errorf("AVP %d has no M bit", a.Code)
		}
	}
	gre := AppendClassifier(nil, template, record(47), ClassifierOptions{})
	esp := AppendClassifier(nil, template, record(50), ClassifierOptions{})
	if bytes.Equal(gre, esp) {
		t.Error("flows of two protocols have one Classifier-ID")
	}
}
