package acct_test

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
)

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawRecord(t)
		b, err := want.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		var got acct.Record
		if err := got.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("decoded\n%+v\nwant\n%+v", got, want)
		}
		again, err := got.AppendBinary(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("encoded again: %x (%v), want %x", again, err, b)
		}
		if realm, err := acct.RealmOf(b); err != nil || string(realm) != want.Realm {
			t.Fatalf("realm %q (%v), want %q", realm, err, want.Realm)
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if err := got.UnmarshalBinary(b[:cut]); !errors.Is(err, acct.ErrCorrupt) {
			t.Fatalf("decoded %d of %d octets: %v, want ErrCorrupt", cut, len(b), err)
		}
	})
}

func TestSharesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(drawShare), 0, 5).Draw(t, "shares")
		got, err := acct.ParseShares(acct.AppendShares(nil, want))
		if err != nil || len(got) != len(want) {
			t.Fatalf("parsed %v (%v), want %v", got, err, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("share %d: %v, want %v", i, got[i], want[i])
			}
		}
	})
}

func TestCountStaysAtItsLimit(t *testing.T) {
	most := acct.Count{Records: math.MaxInt64, Octets: math.MaxInt64, Packets: math.MaxInt64}
	one := acct.Count{Records: 1, Octets: 1, Packets: 1}
	if got := most.Plus(one); got != most {
		t.Errorf("limit + 1 = %v, want the limit", got)
	}
	if got := (acct.Count{}).Minus(one); !got.IsZero() {
		t.Errorf("0 - 1 = %v, want 0", got)
	}
}

func TestAddShareSumsPerLedgerRow(t *testing.T) {
	a := acct.LedgerKey{Exporter: "a", Domain: 1}
	b := acct.LedgerKey{Exporter: "a", Domain: 2}
	var shares []acct.Share
	for range 3 {
		shares = acct.AddShare(shares, a, acct.Count{Records: 1, Octets: 100, Packets: 2})
		shares = acct.AddShare(shares, b, acct.Count{Records: 1, Octets: 50, Packets: 1})
	}
	want := []acct.Share{
		{LedgerKey: a, Count: acct.Count{Records: 3, Octets: 300, Packets: 6}},
		{LedgerKey: b, Count: acct.Count{Records: 3, Octets: 150, Packets: 3}},
	}
	if !reflect.DeepEqual(shares, want) {
		t.Errorf("shares %v, want %v", shares, want)
	}
	record := acct.Record{Shares: shares}
	if got := record.Increment(); got != (acct.Count{Records: 6, Octets: 450, Packets: 9}) {
		t.Errorf("increment %v", got)
	}
}

func FuzzRecordUnmarshal(f *testing.F) {
	for _, r := range []acct.Record{
		{},
		{SessionID: "a;1;2", Type: acct.Start, User: "alice", Framed: netip.MustParsePrefix("192.0.2.1/32")},
		{SessionID: "a;1;3", Type: acct.Event, Flow: []byte{1, 2, 3}, Classes: []acct.ClassUsage{{Class: "voice"}}},
	} {
		b, err := r.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r acct.Record
		realm, realmErr := acct.RealmOf(b)
		if realmErr != nil && !errors.Is(realmErr, acct.ErrCorrupt) {
			t.Fatalf("error %v does not match ErrCorrupt", realmErr)
		}
		if err := r.UnmarshalBinary(b); err != nil {
			if !errors.Is(err, acct.ErrCorrupt) {
				t.Fatalf("error %v does not match ErrCorrupt", err)
			}
			return
		}
		if realmErr != nil || string(realm) != r.Realm {
			t.Fatalf("realm %q (%v), decoded %q", realm, realmErr, r.Realm)
		}
		if _, err := r.AppendBinary(nil); err != nil {
			t.Fatalf("decoded %x but can't encode: %v", b, err)
		}
	})
}

func FuzzParseShares(f *testing.F) {
	f.Add(acct.AppendShares(nil, []acct.Share{{LedgerKey: acct.LedgerKey{Exporter: "a", Domain: 1, Interval: 60}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := acct.ParseShares(b); err != nil && !errors.Is(err, acct.ErrCorrupt) {
			t.Fatalf("error %v does not match ErrCorrupt", err)
		}
	})
}

func drawRecord(t *rapid.T) acct.Record {
	text := rapid.StringN(0, 20, 40)
	r := acct.Record{
		SessionID:      text.Draw(t, "session"),
		Number:         rapid.Uint32().Draw(t, "number"),
		Type:           acct.RecordType(rapid.IntRange(1, 4).Draw(t, "type")),
		MultiSessionID: text.Draw(t, "multi"),
		User:           text.Draw(t, "user"),
		Realm:          text.Draw(t, "realm"),
		Start:          drawTime(t),
		End:            drawTime(t),
		Event:          drawTime(t),
		SessionTime:    time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "session time")) * time.Millisecond,
		Usage:          drawUsage(t),
		Estimated:      rapid.Bool().Draw(t, "estimated"),
		Part:           rapid.Uint16().Draw(t, "part"),
		Parts:          rapid.Uint16().Draw(t, "parts"),
	}
	switch rapid.IntRange(0, 2).Draw(t, "framed") {
	case 1:
		r.Framed = netip.MustParsePrefix("192.0.2.7/32")
	case 2:
		r.Framed = netip.MustParsePrefix("2001:db8:1::/48")
	}
	for range rapid.IntRange(0, 3).Draw(t, "classes") {
		r.Classes = append(r.Classes, acct.ClassUsage{Class: text.Draw(t, "class"), Usage: drawUsage(t)})
	}
	switch rapid.IntRange(0, 2).Draw(t, "increase") {
	case 1:
		r.Increase = r.Usage
		for i := range r.Classes {
			r.Classes[i].Increase = r.Classes[i].Usage
		}
	case 2:
		r.Increase = drawUsage(t)
		for i := range r.Classes {
			r.Classes[i].Increase = drawUsage(t)
		}
	}
	if flow := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "flow"); len(flow) > 0 {
		r.Flow = flow
	}
	if received := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "received"); len(received) > 0 {
		r.Received = received
	}
	r.Layer = rapid.SampledFrom([]acct.Layer{acct.LayerUnknown, acct.LayerNetwork, acct.LayerLink}).Draw(t, "layer")
	r.Source, r.NAS = rapid.String().Draw(t, "source"), rapid.String().Draw(t, "NAS")
	for range rapid.IntRange(0, 3).Draw(t, "attributes") {
		r.Attributes = append(r.Attributes, acct.Attribute{
			Code: rapid.Uint32().Draw(t, "code"), Vendor: rapid.Uint32().Draw(t, "vendor"),
			Data: rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "data"),
		})
	}
	if rapid.Bool().Draw(t, "corrects") {
		r.Corrects = &acct.Correction{
			SessionID: text.Draw(t, "corrected"), Number: rapid.Uint32().Draw(t, "corrected number"),
			Credit: rapid.Bool().Draw(t, "credit"), Reason: text.Draw(t, "reason"),
		}
	}
	return r
}

func drawTime(t *rapid.T) time.Time {
	ms := rapid.Int64Range(0, 4e12).Draw(t, "time")
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func drawUsage(t *rapid.T) acct.Usage {
	n := rapid.Uint64()
	return acct.Usage{
		InputOctets: n.Draw(t, "in"), OutputOctets: n.Draw(t, "out"),
		InputPackets: n.Draw(t, "in packets"), OutputPackets: n.Draw(t, "out packets"),
	}
}

func drawShare(t *rapid.T) acct.Share {
	return acct.Share{
		LedgerKey: acct.LedgerKey{
			Exporter: rapid.String().Draw(t, "exporter"),
			Domain:   rapid.Uint32().Draw(t, "domain"),
			Interval: rapid.Int64().Draw(t, "interval"),
		},
		Count: acct.Count{Records: rapid.Uint64().Draw(t, "r"), Octets: rapid.Uint64().Draw(t, "o"), Packets: rapid.Uint64().Draw(t, "p")},
	}
}
