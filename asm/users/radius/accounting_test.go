package radius

import (
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"
	"layeh.com/radius/rfc3162"
	"layeh.com/radius/rfc4372"
	"layeh.com/radius/rfc4818"
	"layeh.com/radius/rfc5580"
	"layeh.com/radius/rfc6911"

	"tollbridge/asm/users"
)

// arrival is when every packet of a test arrives.
var arrival = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

var secret = []byte("a secret of twenty+ octets")

// edge is the client of every test.
func edge() Client {
	return Client{Name: "edge", Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Secret: secret}
}

// request builds an Accounting-Request of a status, with what each of with
// adds.
func request(status rfc2866.AcctStatusType, with ...func(*radius.Packet)) *radius.Packet {
	p := radius.New(radius.CodeAccountingRequest, secret)
	if status != 0 {
		rfc2866.AcctStatusType_Set(p, status)
	}
	for _, f := range with {
		f(p)
	}
	return p
}

// session is what a NAS says of alice's.
func session(p *radius.Packet) {
	rfc2866.AcctSessionID_SetString(p, "0001")
	rfc2865.UserName_SetString(p, "alice@isp.example")
	rfc2865.NASIdentifier_SetString(p, "bng-1")
	rfc2865.NASIPAddress_Set(p, net.IPv4(192, 0, 2, 1))
	rfc2865.FramedIPAddress_Set(p, net.IPv4(198, 51, 100, 7))
}

func raw(t radius.Type, octets string) func(*radius.Packet) {
	b, err := hex.DecodeString(strings.ReplaceAll(octets, " ", ""))
	if err != nil {
		panic(err)
	}
	return func(p *radius.Packet) { p.Set(t, b) }
}

func eventTimestamp(at time.Time) func(*radius.Packet) {
	return func(p *radius.Packet) { rfc2869.EventTimestamp_Set(p, at) }
}

func prefixesOf(all ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, s := range all {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

func TestEvent(t *testing.T) {
	const (
		start, stop, interim = rfc2866.AcctStatusType_Value_Start, rfc2866.AcctStatusType_Value_Stop, rfc2866.AcctStatusType_Value_InterimUpdate
		on, off              = rfc2866.AcctStatusType_Value_AccountingOn, rfc2866.AcctStatusType_Value_AccountingOff
	)
	nasOnly := func(p *radius.Packet) {
		rfc2865.NASIdentifier_SetString(p, "bng-1")
		rfc2865.NASIPAddress_Set(p, net.IPv4(192, 0, 2, 1))
	}
	// base is what session says.
	base := func(change ...func(*users.Event)) users.Event {
		e := users.Event{
			Source: "radius", Kind: users.Begin, ID: "edge/bng-1/192.0.2.1/0001", NAS: "edge/bng-1/192.0.2.1",
			At: arrival, Since: arrival, User: "alice@isp.example", Prefixes: prefixesOf("198.51.100.7/32"),
			Options: users.Options{Attributes: users.NewAttributes(
				users.Attribute{Code: 32, Data: "bng-1"},
				users.Attribute{Code: 4, Data: "\xc0\x00\x02\x01"},
				users.Attribute{Code: 44, Data: "0001"},
			)},
		}
		for _, f := range change {
			f(&e)
		}
		return e
	}
	holds := func(all ...string) func(*users.Event) {
		return func(e *users.Event) { e.Prefixes = prefixesOf(all...) }
	}
	kind := func(k users.EventKind) func(*users.Event) { return func(e *users.Event) { e.Kind = k } }
	at := func(d time.Duration) func(*users.Event) {
		return func(e *users.Event) { e.At, e.Since = arrival.Add(d), arrival.Add(d) }
	}
	timeout := func(d time.Duration) func(*users.Event) { return func(e *users.Event) { e.Timeout = d } }
	with := func(f ...func(*radius.Packet)) []func(*radius.Packet) {
		return append([]func(*radius.Packet){session}, f...)
	}

	for _, c := range []struct {
		name   string
		cfg    Config
		status rfc2866.AcctStatusType
		with   []func(*radius.Packet)
		want   users.Event
		skewed bool
		err    string
	}{
		{name: "Start (2866, 4.1)", status: start, with: with(), want: base()},
		{
			name: "Interim-Update tells for how long the session lasts (2866, 5.7)", status: interim,
			with: with(func(p *radius.Packet) { rfc2866.AcctSessionTime_Set(p, 600) }),
			want: base(kind(users.Update), func(e *users.Event) { e.Since = arrival.Add(-10 * time.Minute) }),
		},
		{
			name: "Stop at its own time (2869, 5.3)", status: stop,
			with: with(eventTimestamp(arrival.Add(-time.Minute)), func(p *radius.Packet) { rfc2866.AcctSessionTime_Set(p, 60) }),
			want: base(kind(users.End), at(-time.Minute), func(e *users.Event) { e.Since = arrival.Add(-2 * time.Minute) }),
		},
		{
			name: "Accounting-On", status: on, with: []func(*radius.Packet){nasOnly},
			want: users.Event{Source: "radius", Kind: users.EndAll, NAS: "edge/bng-1/192.0.2.1", At: arrival},
		},
		{
			name: "Accounting-Off of a NAS that does not say which it is", status: off,
			want: users.Event{Source: "radius", Kind: users.EndAll, NAS: "edge", At: arrival},
		},
		{
			name: "Acct-Delay-Time is subtracted from the time of arrival (2866, 5.2)", status: start,
			with: with(func(p *radius.Packet) { rfc2866.AcctDelayTime_Set(p, 30) }), want: base(at(-30 * time.Second)),
		},
		{
			name: "Event-Timestamp is the event's time, whatever the delay (2869, 5.3)", status: start,
			with: with(func(p *radius.Packet) { rfc2866.AcctDelayTime_Set(p, 30) }, eventTimestamp(arrival.Add(-31*time.Second))),
			want: base(at(-31 * time.Second)),
		},
		{
			name: "a clock that is far ahead is not believed", status: start,
			with: with(eventTimestamp(arrival.Add(time.Hour)), func(p *radius.Packet) { rfc2866.AcctDelayTime_Set(p, 5) }),
			want: base(at(-5 * time.Second)), skewed: true,
		},
		{
			name: "nor is one that stands at 1970", status: start,
			with: with(eventTimestamp(time.Unix(100, 0))), want: base(), skewed: true,
		},
		{
			name: "Framed-IPv6-Prefix and Delegated-IPv6-Prefix (3162, 2.3; 4818, 3), each several times", status: start,
			with: with(
				func(p *radius.Packet) {
					p.Add(rfc3162.FramedIPv6Prefix_Type, []byte("\x00\x40\x20\x01\x0d\xb8\x00\x01\x00\x02"))
				},
				func(p *radius.Packet) {
					p.Add(rfc3162.FramedIPv6Prefix_Type, []byte("\x00\x40\x20\x01\x0d\xb8\x00\x01\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00"))
				},
				func(p *radius.Packet) {
					p.Add(rfc4818.DelegatedIPv6Prefix_Type, []byte("\x00\x38\x20\x01\x0d\xb8\xff\x00\x01"))
				},
			),
			want: base(holds("198.51.100.7/32", "2001:db8:1:2::/64", "2001:db8:1:3::/64", "2001:db8:ff00:100::/56")),
		},
		{
			name: "bits beyond the length are cleared (3162, 2.3)", status: start,
			with: with(raw(rfc4818.DelegatedIPv6Prefix_Type, "00 34 20010db8 0001 2fff")),
			want: base(holds("198.51.100.7/32", "2001:db8:1:2000::/52")),
		},
		{
			name: "Framed-IPv6-Address (6911, 3.1)", status: start,
			with: with(raw(rfc6911.FramedIPv6Address_Type, "20010db8 00000000 00000000 00000009")),
			want: base(holds("198.51.100.7/32", "2001:db8::9/128")),
		},
		{
			name: "Framed-Interface-Id lies in the prefix, and is an AVP", status: start,
			with: with(raw(rfc3162.FramedIPv6Prefix_Type, "00 40 20010db8 0001 0002"), raw(rfc3162.FramedInterfaceID_Type, "0000 0000 0000 0001")),
			want: base(holds("198.51.100.7/32", "2001:db8:1:2::/64"), func(e *users.Event) {
				e.Attributes += users.NewAttributes(users.Attribute{Code: 96, Data: "\x00\x00\x00\x00\x00\x00\x00\x01"})
			}),
		},
		{
			name: "a route is the user's, a netmask is the link's (2865, 5.9 and 5.22)", status: start,
			with: with(
				raw(rfc2865.FramedIPNetmask_Type, "ffffff00"),
				func(p *radius.Packet) { rfc2865.FramedRoute_AddString(p, "203.0.113.64/28 198.51.100.7 1") },
				func(p *radius.Packet) { rfc2865.FramedRoute_AddString(p, "0.0.0.0/0 198.51.100.7 1") },
				func(p *radius.Packet) { rfc2865.FramedRoute_AddString(p, "whatever") },
				func(p *radius.Packet) { rfc3162.FramedIPv6Route_AddString(p, "2001:db8:9::/48 :: 1") },
			),
			want: base(holds("198.51.100.7/32", "203.0.113.64/28", "2001:db8:9::/48")),
		},
		{
			name: "255.255.255.254 says that no address is fixed yet (2865, 5.8)", status: start,
			with: with(raw(rfc2865.FramedIPAddress_Type, "fffffffe")), want: base(kind(0), holds()),
		},
		{
			name: "an Interim-Update without an address keeps the session alive", status: interim,
			with: with(func(p *radius.Packet) { p.Del(rfc2865.FramedIPAddress_Type) }), want: base(kind(users.Update), holds()),
		},
		{
			name: "AVPs, Acct-Multi-Session-Id and Operator-Name", status: start,
			with: with(func(p *radius.Packet) {
				p.Add(rfc2865.Class_Type, []byte{1, 0, 2})
				p.Add(rfc2865.Class_Type, []byte("gold"))
				rfc2865.CallingStationID_SetString(p, "02-00-00-00-00-01")
				rfc2865.NASPort_Set(p, 77)
				rfc4372.ChargeableUserIdentity_SetString(p, "cui-1")
				rfc5580.OperatorName_SetString(p, "1isp.example")
				rfc2866.AcctMultiSessionID_SetString(p, "multi-1")
			}),
			want: base(func(e *users.Event) {
				e.MultiSession = "multi-1"
				e.Attributes = users.NewAttributes(
					users.Attribute{Code: 25, Data: "\x01\x00\x02"}, users.Attribute{Code: 25, Data: "gold"},
					users.Attribute{Code: 31, Data: "02-00-00-00-00-01"}, users.Attribute{Code: 32, Data: "bng-1"},
					users.Attribute{Code: 4, Data: "\xc0\x00\x02\x01"}, users.Attribute{Code: 5, Data: "\x00\x00\x00\x4d"},
					users.Attribute{Code: 44, Data: "0001"}, users.Attribute{Code: 89, Data: "cui-1"},
					users.Attribute{Code: 126, Data: "1isp.example"},
				)
			}),
		},
		{
			name: "another attribute names the user, its realm is the record's", status: start,
			cfg: Config{
				User:       []AttributeType{{Vendor: 10415, Type: 1}, {Type: 89}, {Type: 1}},
				Attributes: []AttributeType{{Vendor: 10415, Type: 8}}, Realm: true,
			},
			with: with(raw(rfc2865.VendorSpecific_Type, "000028af 0807 3232323031 2005 000000")),
			want: base(func(e *users.Event) {
				e.Realm, e.Attributes = "isp.example", users.NewAttributes(users.Attribute{Code: 8, Vendor: 10415, Data: "22201"})
			}),
		},
		{
			name: "Session-Timeout ends a session by itself (2865, 5.27)", status: interim, cfg: Config{Idle: time.Hour},
			with: with(func(p *radius.Packet) { rfc2865.SessionTimeout_Set(p, 1800); rfc2866.AcctSessionTime_Set(p, 600) }),
			want: base(kind(users.Update), timeout(20*time.Minute), func(e *users.Event) { e.Since = arrival.Add(-10 * time.Minute) }),
		},
		{
			name: "so does silence", status: start, cfg: Config{Idle: time.Hour},
			with: with(func(p *radius.Packet) { rfc2865.SessionTimeout_Set(p, 86400) }), want: base(timeout(time.Hour)),
		},
		{name: "a Tunnel-Start tells nothing of addresses (2867)", status: 9, with: with(), want: users.Event{NAS: "edge/bng-1/192.0.2.1", Source: "radius", At: arrival}},

		{name: "Acct-Status-Type is required (2866, 5.13)", with: with(), err: "Acct-Status-Type is missing"},
		{name: "Acct-Session-Id is required (2866, 5.13)", status: start, with: []func(*radius.Packet){nasOnly}, err: "Acct-Session-Id is missing"},
		{name: "a prefix longer than its octets", status: start, with: with(raw(rfc3162.FramedIPv6Prefix_Type, "00 41 20010db8 0001 0002")), err: "RFC 3162, Section 2.3"},
		{name: "an address of 3 octets", status: start, with: with(raw(rfc2865.FramedIPAddress_Type, "c00002")), err: "Framed-IP-Address has 3 octets"},
		{name: "an integer of 3 octets", status: start, with: with(raw(rfc2866.AcctDelayTime_Type, "000001")), err: "an integer has 4"},
		{name: "a name that is no text", status: start, with: with(raw(rfc2865.UserName_Type, "fffe")), err: "is not UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Journal = &journal{}
			s, err := New(c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			own := edge()
			a, err := s.read(request(c.status, c.with...), &own, arrival)
			if c.err != "" {
				var p *PacketError
				if !errors.As(err, &p) || p.Cause != CauseAttribute || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want one for an attribute with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(a.event, c.want) || a.skewed != c.skewed {
				t.Errorf("event, skewed %t\n%+v\nwant, skewed %t\n%+v", a.skewed, a.event, c.skewed, c.want)
			}
		})
	}
}

// TestNASOfAClient checks that no client can end the sessions of another's NAS,
// and that sessions of two NAS with one counter differ.
func TestNASOfAClient(t *testing.T) {
	name := func(client string, with ...func(*radius.Packet)) string {
		return nas(request(0, with...).Attributes, &Client{Name: client})
	}
	identifier := func(s string) func(*radius.Packet) {
		return func(p *radius.Packet) { rfc2865.NASIdentifier_SetString(p, s) }
	}
	seen := map[string]bool{}
	for _, n := range []string{
		name("a"), name("b"), name("a", identifier("b")), name("b", identifier("b")),
		name("a", identifier("b"), raw(rfc2865.NASIPAddress_Type, "c0000201")),
		name("a", identifier("b"), raw(rfc2865.NASIPAddress_Type, "c0000202")),
		name("a", raw(rfc3162.NASIPv6Address_Type, "20010db8000000000000000000000001")),
		name("a", raw(rfc2865.NASIdentifier_Type, "ff00")),
		name("a", raw(rfc2865.NASIdentifier_Type, "fe00")),
		name("a", identifier(strings.Repeat("x", 253))),
		name("a", identifier(strings.Repeat("x", 252)+"y")),
	} {
		if seen[n] {
			t.Errorf("%q is the name of two NAS", n)
		}
		if len(n) > users.MaxName {
			t.Errorf("%q has %d octets", n, len(n))
		}
		seen[n] = true
	}
}

func TestAttributeTypes(t *testing.T) {
	for s, want := range map[string]AttributeType{
		"Class": {Type: 25}, "NAS-Port-Id": {Type: 87}, "31": {Type: 31}, "10415:1": {10415, 1},
	} {
		if got, err := ParseAttributeType(s); err != nil || got != want {
			t.Errorf("%s is %v (%v), want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "class", "0", "256", "0:1", "10415:", "10415:256", ":1", "1:2:3"} {
		if got, err := ParseAttributeType(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}
