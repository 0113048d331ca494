package nat_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"tollbridge/asm/nat"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

func template(t *testing.T, ids ...uint16) *ipfix.Template {
	t.Helper()
	var fields []ipfix.FieldSpecifier
	for _, id := range ids {
		e, ok := ipfix.Lookup(0, id)
		if !ok {
			t.Fatalf("no element %d", id)
		}
		length := map[uint16]uint16{
			ipfix.ObservationTimeMilliseconds: 8, ipfix.NatEvent: 1, ipfix.ProtocolIdentifier: 1,
			ipfix.SourceIPv4Address: 4, ipfix.PostNATSourceIPv4Address: 4, ipfix.DestinationIPv4Address: 4,
		}[id]
		fields = append(fields, ipfix.FieldSpecifier{ID: e.ID, Length: max(length, 2)})
	}
	tmpl, err := ipfix.NewTemplate(400, fields...)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func TestEvent(t *testing.T) {
	const exported = 1800000000
	told := time.UnixMilli(exported*1000 - 5)
	private, public, far := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("203.0.113.9")
	blocks := template(t, ipfix.ObservationTimeMilliseconds, ipfix.NatEvent, ipfix.SourceIPv4Address, ipfix.PostNATSourceIPv4Address,
		ipfix.PortRangeStart, ipfix.PortRangeEnd, ipfix.PortRangeStepSize)
	counted := template(t, ipfix.NatEvent, ipfix.SourceIPv4Address, ipfix.PostNATSourceIPv4Address, ipfix.PortRangeStart, ipfix.PortRangeNumPorts)
	stepped := template(t, ipfix.NatEvent, ipfix.SourceIPv4Address, ipfix.PostNATSourceIPv4Address, ipfix.PortRangeStart, ipfix.PortRangeStepSize, ipfix.PortRangeNumPorts)
	sessions := template(t, ipfix.NatEvent, ipfix.SourceIPv4Address, ipfix.PostNATSourceIPv4Address, ipfix.PostNAPTSourceTransportPort,
		ipfix.ProtocolIdentifier, ipfix.DestinationIPv4Address, ipfix.DestinationTransportPort)
	block := func(first, last uint16) users.Mapping {
		return users.Mapping{Public: public, Private: private, First: first, Last: last}
	}
	session := block(5000, 5000)
	session.Protocol, session.Remote = 17, netip.AddrPortFrom(far, 53)
	for _, c := range []struct {
		name     string
		template *ipfix.Template
		values   []any
		kind     nat.Kind
		at       int64
		want     []users.Mapping
	}{
		{"NAT port block allocation (16)", blocks, []any{told, 16, private, public, 1024, 1535, 1}, nat.Created, told.UnixMilli(), []users.Mapping{block(1024, 1535)}},
		{"NAT port block de-allocation (17)", blocks, []any{told, 17, private, public, 1024, 1535, 1}, nat.Deleted, told.UnixMilli(), []users.Mapping{block(1024, 1535)}},
		{"ports that lie apart (portRangeStepSize)", blocks, []any{told, 16, private, public, 1024, 1030, 3}, nat.Created, told.UnixMilli(), []users.Mapping{block(1024, 1024), block(1027, 1027), block(1030, 1030)}},
		{"a number of ports (portRangeNumPorts)", counted, []any{16, private, public, 65000, 1000}, nat.Created, exported * 1000, []users.Mapping{block(65000, 65535)}},
		{"a number of ports that lie apart", stepped, []any{16, private, public, 1024, 2, 4}, nat.Created, exported * 1000, []users.Mapping{block(1024, 1024), block(1026, 1026), block(1028, 1028), block(1030, 1030)}},
		{"a number of ports that lie apart, beyond the last", stepped, []any{16, private, public, 65530, 4, 9}, nat.Created, exported * 1000, []users.Mapping{block(65530, 65530), block(65534, 65534)}},
		{"NAT address binding creation (14)", counted, []any{14, private, public, 0, 0}, nat.Created, exported * 1000, []users.Mapping{block(0, 65535)}},
		{"NAT44 session create (4)", sessions, []any{4, private, public, 5000, 17, far, 53}, nat.Created, exported * 1000, []users.Mapping{session}},
		{"NAT translation delete of before RFC 8158 (2)", sessions, []any{2, private, public, 5000, 17, far, 53}, nat.Deleted, exported * 1000, []users.Mapping{{Public: public, Private: private, First: 5000, Last: 5000, Protocol: 17}}},
		{"quota exceeded (13) says nothing of ports", sessions, []any{13, private, public, 5000, 17, far, 53}, nat.Other, 0, nil},
		{"a time that can't be is as good as none", blocks, []any{told.Add(48 * time.Hour), 16, private, public, 1024, 1535, 1}, nat.Created, exported * 1000, []users.Mapping{block(1024, 1535)}},
		{"the last port below the first", blocks, []any{told, 16, private, public, 1535, 1024, 1}, nat.Invalid, told.UnixMilli(), nil},
		{"no public address", blocks, []any{told, 16, private, netip.IPv4Unspecified(), 1024, 1535, 1}, nat.Invalid, told.UnixMilli(), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			data, err := c.template.AppendRecord(nil, c.values...)
			if err != nil {
				t.Fatal(err)
			}
			d, err := c.template.Record(data)
			if err != nil {
				t.Fatal(err)
			}
			e := nat.NewReader(c.template).Event(d, exported, time.Hour, "")
			if e.Kind != c.kind || e.At != c.at {
				t.Errorf("kind %d at %d, want %d at %d", e.Kind, e.At, c.kind, c.at)
			}
			if e.Kind != nat.Created && e.Kind != nat.Deleted {
				return
			}
			if got := slices.Collect(e.Mappings()); !slices.Equal(got, c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// A record that does not name both addresses is no NAT event.
func TestNoReader(t *testing.T) {
	for _, tmpl := range []*ipfix.Template{
		template(t, ipfix.NatEvent, ipfix.SourceIPv4Address),
		template(t, ipfix.NatEvent, ipfix.PostNATSourceIPv4Address),
		template(t, ipfix.SourceIPv4Address, ipfix.PostNATSourceIPv4Address),
	} {
		if nat.NewReader(tmpl) != nil {
			t.Errorf("a reader of %+v", tmpl.Fields)
		}
	}
}
