package nasreq

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"tollbridge/asm/users"
	"tollbridge/dict/avp"
)

var arrived = time.Date(2026, 11, 22, 12, 0, 10, 0, time.UTC)

// request is an ACR of an access server; more are further AVPs.
func request(kind uint32, more ...[]byte) []byte {
	const m = avp.FlagMandatory
	b := avp.AppendString(nil, avp.SessionID, 0, m, "bng.isp.example;1;7")
	b = avp.AppendString(b, avp.OriginHost, 0, m, "bng.isp.example")
	b = avp.AppendUint32(b, avp.AccountingRecordType, 0, m, kind)
	b = avp.AppendString(b, avp.UserName, 0, m, "ann@isp.example")
	return slices.Concat(append([][]byte{b}, more...)...)
}

func u32(code, v uint32) []byte            { return avp.AppendUint32(nil, code, 0, avp.FlagMandatory, v) }
func octets(code uint32, v ...byte) []byte { return avp.Append(nil, code, 0, avp.FlagMandatory, v) }
func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestRead(t *testing.T) {
	v4 := octets(avp.FramedIPAddress, 192, 0, 2, 7)
	framed := octets(avp.FramedIPv6Prefix, 0, 64, 0x20, 1, 0xd, 0xb8, 0, 1, 0, 2)
	delegated := octets(avp.DelegatedIPv6Prefix, 0, 56, 0x20, 1, 0xd, 0xb8, 0, 2, 0)
	stamp := avp.AppendTime(nil, avp.EventTimestamp, 0, avp.FlagMandatory, arrived.Add(-4*time.Second))
	for _, c := range []struct {
		name string
		avps []byte
		ok   bool
		want users.Event
	}{
		{"START with two families", request(avp.StartRecord, v4, delegated, framed, stamp, u32(avp.AcctInterimInterval, 300)), true,
			users.Event{Kind: users.Begin, At: arrived.Add(-4 * time.Second), Since: arrived.Add(-4 * time.Second), Timeout: 15 * time.Minute,
				Prefixes: prefixes("192.0.2.7/32", "2001:db8:1:2::/64", "2001:db8:2::/56")}},
		{"INTERIM says since when, for a START that was lost", request(avp.InterimRecord, v4, u32(avp.AcctSessionTime, 60)), true,
			users.Event{Kind: users.Update, At: arrived, Since: arrived.Add(-time.Minute), Prefixes: prefixes("192.0.2.7/32")}},
		{"STOP ends it, with no time-out", request(avp.StopRecord, u32(avp.AcctSessionTime, 60), u32(sessionTimeout, 3600)), true,
			users.Event{Kind: users.End, At: arrived, Since: arrived.Add(-time.Minute)}},
		{"Session-Timeout is what is left at most", request(avp.InterimRecord, u32(sessionTimeout, 3600), u32(avp.AcctSessionTime, 600)), true,
			users.Event{Kind: users.Update, At: arrived, Since: arrived.Add(-10 * time.Minute), Timeout: 50 * time.Minute}},
		{"Acct-Delay-Time where there is no Event-Timestamp", request(avp.StartRecord, v4, u32(avp.AcctDelayTime, 5)), true,
			users.Event{Kind: users.Begin, At: arrived.Add(-5 * time.Second), Since: arrived.Add(-5 * time.Second), Prefixes: prefixes("192.0.2.7/32")}},
		{"an Event-Timestamp of tomorrow is not believed", request(avp.StartRecord, v4, avp.AppendTime(nil, avp.EventTimestamp, 0, 0, arrived.Add(24*time.Hour))), true,
			users.Event{Kind: users.Begin, At: arrived, Since: arrived, Prefixes: prefixes("192.0.2.7/32")}},
		{"START without an address", request(avp.StartRecord), false, users.Event{}},
		{"an address that stands for the NAS's choice", request(avp.StartRecord, octets(avp.FramedIPAddress, 255, 255, 255, 254)), false, users.Event{}},
		{"EVENT", request(avp.EventRecord, v4), false, users.Event{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok, err := Read(c.avps, arrived)
			if err != nil || ok != c.ok {
				t.Fatalf("%v, %v", ok, err)
			}
			if !ok {
				return
			}
			w := c.want
			if got.Source != Source || got.ID != "bng.isp.example;1;7" || got.NAS != "bng.isp.example" || got.User != "ann@isp.example" ||
				got.Kind != w.Kind || !got.At.Equal(w.At) || !got.Since.Equal(w.Since) || got.Timeout != w.Timeout || !slices.Equal(got.Prefixes, w.Prefixes) {
				t.Errorf("%+v, want %+v", got, w)
			}
		})
	}
	for name, avps := range map[string][]byte{
		"an address of three octets": request(avp.StartRecord, octets(avp.FramedIPAddress, 1, 2, 3)),
		"a prefix of 129 bits":       request(avp.StartRecord, octets(avp.FramedIPv6Prefix, 0, 129)),
		"a name that is no text":     request(avp.StartRecord, octets(avp.UserName, 0xff), v4),
		"an AVP that is cut off":     request(avp.StartRecord, v4)[:20],
	} {
		if _, ok, err := Read(avps, arrived); ok || err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// FuzzRead reads whatever AVPs: what is taken is valid.
func FuzzRead(f *testing.F) {
	f.Add(request(avp.StartRecord, octets(avp.FramedIPAddress, 192, 0, 2, 7), octets(avp.Class, 1, 2)))
	f.Add(request(avp.StopRecord, octets(avp.DelegatedIPv6Prefix, 0, 56, 0x20, 1, 0xd, 0xb8, 0, 2, 0)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, avps []byte) {
		e, ok, err := Read(avps, arrived)
		if !ok {
			return
		}
		again, normalErr := e.Normalize()
		if err != nil || normalErr != nil || again.Kind != e.Kind {
			t.Errorf("%+v: %v, %v", e, err, normalErr)
		}
	})
}
