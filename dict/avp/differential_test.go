package avp

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/fiorix/go-diameter/v4/diam"
	"github.com/fiorix/go-diameter/v4/diam/datatype"
	"github.com/fiorix/go-diameter/v4/diam/dict"

	"tollbridge/internal/wiretest"
)

// go-diameter reads what we read, and writes what we write.
func TestAgainstGoDiameter(t *testing.T) {
	for name, b := range wiretest.Hex(t) {
		t.Run(name, func(t *testing.T) {
			m, err := diam.ReadMessage(bytes.NewReader(b), dict.Default)
			if err != nil {
				t.Fatal(err)
			}
			h, avps, err := ParseMessage(b)
			if err != nil {
				t.Fatal(err)
			}
			theirs := Header{m.Header.MessageLength, m.Header.CommandFlags, m.Header.CommandCode,
				m.Header.ApplicationID, m.Header.HopByHopID, m.Header.EndToEndID}
			if h != theirs {
				t.Errorf("header %+v, theirs %+v", h, theirs)
			}
			compare(t, avps, m.AVP)
		})
	}
}

func compare(t *testing.T, b []byte, theirs []*diam.AVP) {
	t.Helper()
	i := 0
	for a, err := range Scan(b) {
		if err != nil {
			t.Fatal(err)
		}
		if i == len(theirs) {
			t.Fatalf("AVP %d is one too many", a.Code)
		}
		their := theirs[i]
		i++
		if a.Code != their.Code || a.Vendor != their.VendorID || a.Flags != their.Flags {
			t.Fatalf("AVP %+v, theirs %v", a, their)
		}
		if group, is := their.Data.(*diam.GroupedAVP); is {
			compare(t, a.Data, group.AVP)
			continue
		}
		if data := their.Data.Serialize(); !bytes.Equal(a.Data, data) {
			t.Errorf("AVP %d: %x, theirs %x", a.Code, a.Data, data)
		}
	}
	if i != len(theirs) {
		t.Errorf("%d AVPs, theirs %d", i, len(theirs))
	}
}

func TestEncodesAsGoDiameter(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	m := diam.NewRequest(CommandAccounting, ApplicationAccounting, dict.Default)
	m.Header.HopByHopID, m.Header.EndToEndID = 1, 2
	add := func(code uint32, flags uint8, vendor uint32, data datatype.Type) {
		m.AddAVP(diam.NewAVP(code, flags, vendor, data))
	}
	add(SessionID, FlagMandatory, 0, datatype.UTF8String("a;1;2"))
	add(EventTimestamp, FlagMandatory, 0, datatype.Time(at))
	add(HostIPAddress, FlagMandatory, 0, datatype.Address(net.IPv4(192, 0, 2, 1).To4()))
	add(HostIPAddress, FlagMandatory, 0, datatype.Address(net.ParseIP("2001:db8::1")))
	add(AccountingInputOctets, FlagMandatory, 0, datatype.Unsigned64(1<<40))
	add(AccountingRecordNumber, FlagMandatory, 0, datatype.Unsigned32(7))
	add(ProxyInfo, FlagMandatory, 0, &diam.GroupedAVP{AVP: []*diam.AVP{
		diam.NewAVP(ProxyHost, FlagMandatory, 0, datatype.DiameterIdentity("p.example")),
		diam.NewAVP(ProxyState, FlagMandatory, 0, datatype.OctetString("x")),
	}})
	add(5, FlagVendor, 32473, datatype.OctetString("vendor"))
	theirs, err := m.Serialize()
	if err != nil {
		t.Fatal(err)
	}

	b := AppendHeader(nil, Header{Flags: m.Header.CommandFlags, Command: CommandAccounting,
		Application: ApplicationAccounting, HopByHop: 1, EndToEnd: 2})
	b = AppendString(b, SessionID, 0, FlagMandatory, "a;1;2")
	b = AppendTime(b, EventTimestamp, 0, FlagMandatory, at)
	b = AppendAddress(b, HostIPAddress, 0, FlagMandatory, netip.MustParseAddr("192.0.2.1"))
	b = AppendAddress(b, HostIPAddress, 0, FlagMandatory, netip.MustParseAddr("2001:db8::1"))
	b = AppendUint64(b, AccountingInputOctets, 0, FlagMandatory, 1<<40)
	b = AppendUint32(b, AccountingRecordNumber, 0, FlagMandatory, 7)
	b, group := Begin(b, ProxyInfo, 0, FlagMandatory)
	b = AppendString(b, ProxyHost, 0, FlagMandatory, "p.example")
	b = AppendString(b, ProxyState, 0, FlagMandatory, "x")
	End(b, group)
	b = AppendString(b, 5, 32473, 0, "vendor")
	SetLength(b)
	if !bytes.Equal(b, theirs) {
		t.Errorf("ours   %x\ntheirs %x", b, theirs)
	}
}
