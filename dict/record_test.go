package dict

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
	"tollbridge/dict/avp"
)

var options = Options{OriginHost: "asm.isp.example", OriginRealm: "isp.example", DestinationRealm: "home.example"}

// interim is a record with everything that a usual one has.
func interim() acct.Record {
	at := time.Date(2026, 11, 22, 10, 5, 0, 0, time.UTC)
	return acct.Record{
		SessionID: "asm.isp.example;1790000000;7;1", Number: 3, Type: acct.Interim,
		MultiSessionID: "asm.isp.example;1790000000;7", User: "alice@isp.example",
		Framed: netip.MustParsePrefix("192.0.2.12/32"),
		Start:  at.Add(-5 * time.Minute), End: at, Event: at.Add(250 * time.Millisecond),
		SessionTime: 20 * time.Minute, Layer: acct.LayerNetwork,
		Usage: acct.Usage{InputOctets: 120868, OutputOctets: 5_310_364, InputPackets: 1200, OutputPackets: 4100},
		Classes: []acct.ClassUsage{
			{Class: "default", Usage: acct.Usage{InputOctets: 868, OutputOctets: 364, InputPackets: 200, OutputPackets: 100}},
			{Class: "voice", Usage: acct.Usage{InputOctets: 120000, OutputOctets: 5_310_000, InputPackets: 1000, OutputPackets: 4000}},
		},
	}
}

func drawRecord(t *rapid.T) acct.Record {
	text := rapid.SampledFrom([]string{"", "a", "alice@isp.example", "zoë", "\x00\xff", "12345678"})
	counter := rapid.SampledFrom([]uint64{0, 1, 1 << 32, math.MaxInt64, math.MaxUint64})
	usage := rapid.Custom(func(t *rapid.T) acct.Usage {
		return acct.Usage{InputOctets: counter.Draw(t, "n"), OutputOctets: counter.Draw(t, "n"), InputPackets: counter.Draw(t, "n"), OutputPackets: counter.Draw(t, "n")}
	})
	// Up to the year 2200, and before Diameter's Time begins.
	at := rapid.Custom(func(t *rapid.T) time.Time {
		switch rapid.IntRange(0, 2).Draw(t, "time") {
		case 0:
			return time.Time{}
		case 1:
			return time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "seconds"), 0).UTC()
		}
		return time.UnixMilli(rapid.Int64Range(-1<<42, 1<<43).Draw(t, "milliseconds")).UTC()
	})
	span := rapid.Custom(func(t *rapid.T) time.Duration {
		if rapid.Bool().Draw(t, "whole") {
			return time.Duration(rapid.Int64Range(0, 1<<33).Draw(t, "seconds")) * time.Second
		}
		return time.Duration(rapid.Int64Range(-1<<40, 1<<43).Draw(t, "milliseconds")) * time.Millisecond
	})
	r := acct.Record{
		SessionID:      "s" + text.Draw(t, "session"),
		Number:         rapid.Uint32().Draw(t, "number"),
		Type:           acct.RecordType(rapid.IntRange(1, 4).Draw(t, "type")),
		MultiSessionID: text.Draw(t, "multi"), User: text.Draw(t, "user"),
		Realm: "r" + text.Draw(t, "realm"),
		Start: at.Draw(t, "start"), End: at.Draw(t, "end"), Event: at.Draw(t, "event"),
		SessionTime: span.Draw(t, "span"), Usage: usage.Draw(t, "usage"),
		Estimated: rapid.Bool().Draw(t, "estimated"),
		Layer:     rapid.SampledFrom([]acct.Layer{acct.LayerUnknown, acct.LayerNetwork, acct.LayerLink}).Draw(t, "layer"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "attributes") {
		r.Attributes = append(r.Attributes, acct.Attribute{
			Code: rapid.SampledFrom([]uint32{avp.Class, avp.CallingStationID, avp.NASIdentifier, 126}).Draw(t, "code"),
			Data: rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "data"),
		})
	}
	if rapid.Bool().Draw(t, "roaming") {
		r.Attributes = append(r.Attributes, acct.Attribute{Code: RoamingAgreement, Vendor: For(0).Vendor(), Data: []byte("A-7")})
	}
	switch rapid.IntRange(0, 2).Draw(t, "framed") {
	case 1:
		a := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address")))
		r.Framed = netip.PrefixFrom(a, rapid.IntRange(0, 32).Draw(t, "bits")).Masked()
	case 2:
		a := netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")))
		r.Framed = netip.PrefixFrom(a, rapid.IntRange(0, 128).Draw(t, "bits")).Masked()
	}
	for range rapid.IntRange(0, 3).Draw(t, "classes") {
		r.Classes = append(r.Classes, acct.ClassUsage{Class: text.Draw(t, "class"), Usage: usage.Draw(t, "usage")})
	}
	if rapid.Bool().Draw(t, "parts") {
		r.Part, r.Parts = rapid.Uint16().Draw(t, "part"), rapid.Uint16().Draw(t, "parts")
	}
	if rapid.Bool().Draw(t, "corrects") {
		r.Corrects = &acct.Correction{
			SessionID: text.Draw(t, "corrected"), Number: rapid.Uint32().Draw(t, "corrected number"),
			Credit: rapid.Bool().Draw(t, "credit"), Reason: text.Draw(t, "reason"),
		}
	}
	if rapid.Bool().Draw(t, "flow") {
		template, record := drawFlow(t)
		var err error
		if r.Flow, err = For(0).AppendFlow(nil, template, record); err != nil {
			t.Fatal(err)
		}
		r.Flow = AppendClassifier(r.Flow, template, record, ClassifierOptions{Mandatory: true})
	}
	return r
}

func TestRecordIsLossless(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := For(0)
		r := drawRecord(t)
		o := options
		if rapid.Bool().Draw(t, "more") {
			o.DestinationHost, o.OriginStateID, o.Application = "aaa.home.example", 7, avp.ApplicationNASREQ
		}
		b := d.AppendRecord(nil, &r, o)
		if again := d.AppendRecord(nil, &r, o); !bytes.Equal(b, again) {
			t.Fatalf("not deterministic:\n%x\n%x", b, again)
		}
		got, err := d.ParseRecord(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, r) {
			t.Fatalf("got  %+v\nwant %+v", got, r)
		}
	})
}

func TestRecordOrder(t *testing.T) {
	r := interim()
	o := options
	o.DestinationHost, o.OriginStateID = "aaa.home.example", 7
	b := For(0).AppendRecord(nil, &r, o)
	// RFC 6733, Section 9.7.1, then the rest of "* [ AVP ]".
	want := []uint32{
		avp.SessionID, avp.OriginHost, avp.OriginRealm, avp.DestinationRealm, avp.AccountingRecordType,
		avp.AccountingRecordNumber, avp.AcctApplicationID, avp.UserName, avp.DestinationHost, avp.AcctMultiSessionID,
		avp.OriginStateID, avp.EventTimestamp, avp.FramedIPAddress, avp.AcctSessionTime, avp.AccountingInputOctets,
		avp.AccountingOutputOctets, avp.AccountingInputPackets, avp.AccountingOutputPackets,
		IntervalStart, IntervalEnd, EventTime, OctetLayer, ClassUsage, ClassUsage,
	}
	i := 0
	for a, err := range avp.Scan(b) {
		if err != nil || i == len(want) {
			t.Fatalf("AVP %d of %d: %+v, %v", i, len(want), a, err)
		}
		if a.Code != want[i] {
			t.Errorf("AVP %d is %d, want %d", i, a.Code, want[i])
		}
		if a.Mandatory() != (a.Vendor == 0) {
			t.Errorf("AVP %d of vendor %d has flags %#x", a.Code, a.Vendor, a.Flags)
		}
		i++
	}
	if i != len(want) {
		t.Errorf("%d AVPs, want %d", i, len(want))
	}
}

func TestOptionalClearsM(t *testing.T) {
	r := interim()
	o := options
	o.Optional = []uint32{avp.FramedIPAddress, avp.AccountingInputOctets}
	for a := range avp.Scan(For(0).AppendRecord(nil, &r, o)) {
		want := a.Vendor == 0 && a.Code != avp.FramedIPAddress && a.Code != avp.AccountingInputOctets
		if a.Mandatory() != want {
			t.Errorf("AVP %d: M bit %v", a.Code, a.Mandatory())
		}
	}
}

func TestFramed(t *testing.T) {
	for _, row := range []struct {
		prefix string
		want   []byte
	}{
		{"192.0.2.12/32", avp.Append(nil, avp.FramedIPAddress, 0, avp.FlagMandatory, []byte{192, 0, 2, 12})},
		{"192.0.2.77/24", append(avp.Append(nil, avp.FramedIPAddress, 0, avp.FlagMandatory, []byte{192, 0, 2, 0}),
			avp.Append(nil, avp.FramedIPNetmask, 0, 0, []byte{255, 255, 255, 0})...)},
		{"0.0.0.0/0", append(avp.Append(nil, avp.FramedIPAddress, 0, avp.FlagMandatory, make([]byte, 4)),
			avp.Append(nil, avp.FramedIPNetmask, 0, 0, make([]byte, 4))...)},
		// RFC 3162, Section 2.3: the bits outside of the Prefix-Length are zero.
		{"2001:db8:1:ff00::/56", avp.Append(nil, avp.FramedIPv6Prefix, 0, avp.FlagMandatory, []byte{0, 56, 0x20, 1, 0xd, 0xb8, 0, 1, 0xff})},
		{"::/0", avp.Append(nil, avp.FramedIPv6Prefix, 0, avp.FlagMandatory, []byte{0, 0})},
	} {
		if got := appendFramed(nil, netip.MustParsePrefix(row.prefix), &options); !bytes.Equal(got, row.want) {
			t.Errorf("%s: %x, want %x", row.prefix, got, row.want)
		}
	}
}

func TestParseRecordOfForeignNode(t *testing.T) {
	const m = avp.FlagMandatory
	b := avp.AppendString(nil, avp.SessionID, 0, m, "bras.example;1;2")
	b = avp.AppendString(b, avp.OriginHost, 0, m, "bras.example")
	b = avp.AppendUint32(b, avp.AccountingRecordType, 0, m, avp.StopRecord)
	b = avp.AppendUint32(b, avp.AccountingRecordNumber, 0, m, 9)
	b = avp.AppendString(b, avp.NASIdentifier, 0, m, "bras")
	b = avp.AppendUint64(b, Flow, 10415, 0, 1) // another vendor's AVP of our code
	b = avp.Append(b, avp.FramedIPv6Prefix, 0, m, append([]byte{0, 64}, make([]byte, 16)...))
	b = avp.Append(b, avp.FramedIPv6Prefix, 0, m, append([]byte{0, 56}, make([]byte, 16)...))
	b = avp.AppendUint32(b, avp.AcctSessionTime, 0, m, 60)
	b = avp.AppendUint64(b, avp.AccountingOutputOctets, 0, m, 5)
	got, err := For(0).ParseRecord(b)
	want := acct.Record{SessionID: "bras.example;1;2", Type: acct.Stop, Number: 9,
		Framed: netip.MustParsePrefix("::/64"), SessionTime: time.Minute, Usage: acct.Usage{OutputOctets: 5},
		Attributes: []acct.Attribute{
			{Code: avp.NASIdentifier, Data: []byte("bras")},
			{Code: avp.FramedIPv6Prefix, Data: append([]byte{0, 56}, make([]byte, 16)...)}, // a second one
		}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

func TestParseRecordRefuses(t *testing.T) {
	r := interim()
	good := For(0).AppendRecord(nil, &r, options)
	without := func(code uint32) []byte {
		var b []byte
		for a := range avp.Scan(good) {
			if a.Code != code {
				b = a.Append(b)
			}
		}
		return b
	}
	with := func(b []byte) []byte { return append(bytes.Clone(good), b...) }
	const m = avp.FlagMandatory
	for _, row := range []struct {
		name   string
		avps   []byte
		err    error
		result uint32
		failed []byte // the data of Failed-AVP
	}{
		{"no AVPs", nil, ErrMissing, avp.ResultMissingAVP, avp.AppendString(nil, avp.SessionID, 0, m, "")},
		{"no Session-Id (7.5)", without(avp.SessionID), ErrMissing, avp.ResultMissingAVP, avp.AppendString(nil, avp.SessionID, 0, m, "")},
		{"no Accounting-Record-Type (7.5)", without(avp.AccountingRecordType), ErrMissing, avp.ResultMissingAVP, avp.AppendUint32(nil, avp.AccountingRecordType, 0, m, 0)},
		{"no Accounting-Record-Number (7.5)", without(avp.AccountingRecordNumber), ErrMissing, avp.ResultMissingAVP, avp.AppendUint32(nil, avp.AccountingRecordNumber, 0, m, 0)},
		{"a second Session-Id (7.1.5)", with(avp.AppendString(nil, avp.SessionID, 0, m, "x")), ErrOccurrence, avp.ResultAVPOccursTooManyTimes, avp.AppendString(nil, avp.SessionID, 0, m, "x")},
		{"an empty Session-Id", avp.AppendString(nil, avp.SessionID, 0, m, ""), avp.ErrValue, avp.ResultInvalidAVPValue, avp.AppendString(nil, avp.SessionID, 0, m, "")},
		{"Accounting-Record-Type 5", avp.AppendUint32(nil, avp.AccountingRecordType, 0, m, 5), avp.ErrValue, avp.ResultInvalidAVPValue, avp.AppendUint32(nil, avp.AccountingRecordType, 0, m, 5)},
		{"Accounting-Input-Octets of 4 octets (7.1.5)", append(without(avp.AccountingInputOctets), avp.AppendUint32(nil, avp.AccountingInputOctets, 0, m, 1)...),
			avp.ErrLength, avp.ResultInvalidAVPLength, avp.AppendUint64(nil, avp.AccountingInputOctets, 0, m, 0)},
		{"Framed-IP-Address of 5 octets", with(avp.Append(nil, avp.FramedIPAddress, 0, m, make([]byte, 5))), avp.ErrLength, avp.ResultInvalidAVPLength,
			avp.Append(nil, avp.FramedIPAddress, 0, m, nil)},
		{"Framed-IPv6-Prefix of 129 bits", with(avp.Append(nil, avp.FramedIPv6Prefix, 0, m, append([]byte{0, 129}, make([]byte, 16)...))), avp.ErrValue, avp.ResultInvalidAVPValue,
			avp.Append(nil, avp.FramedIPv6Prefix, 0, m, append([]byte{0, 129}, make([]byte, 16)...))},
		{"a Framed-IPv6-Prefix cut short", with(avp.Append(nil, avp.FramedIPv6Prefix, 0, m, []byte{0, 64, 1})), avp.ErrValue, avp.ResultInvalidAVPValue,
			avp.Append(nil, avp.FramedIPv6Prefix, 0, m, []byte{0, 64, 1})},
		{"a Record-Part of 17 bits", with(avp.AppendUint32(nil, RecordPart, DefaultVendor, 0, 65536)), avp.ErrValue, avp.ResultInvalidAVPValue,
			avp.AppendUint32(nil, RecordPart, DefaultVendor, 0, 65536)},
		{"an AVP Length beyond the message (7.1.5)", with([]byte{0, 0, 0, 1, 0x40, 0, 1, 0}), avp.ErrLength, avp.ResultInvalidAVPLength,
			avp.AppendString(nil, avp.UserName, 0, m, "")},
		{"a Correction without a direction", with(avp.Append(nil, Correction, DefaultVendor, 0, nil)), avp.ErrValue, avp.ResultInvalidAVPValue,
			avp.Append(nil, Correction, DefaultVendor, 0, nil)},
		{"a Correction in no known direction", with(avp.Append(nil, Correction, DefaultVendor, 0, avp.AppendUint32(nil, CorrectionDirection, DefaultVendor, 0, 2))),
			avp.ErrValue, avp.ResultInvalidAVPValue, avp.Append(nil, Correction, DefaultVendor, 0, avp.AppendUint32(nil, CorrectionDirection, DefaultVendor, 0, 2))},
		{"a malformed Class-Usage", with(avp.Append(nil, ClassUsage, DefaultVendor, 0, []byte{1, 2, 3, 4})), avp.ErrTruncated, avp.ResultInvalidAVPLength,
			avp.Append(nil, ClassUsage, DefaultVendor, 0, nil)},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := For(0).ParseRecord(row.avps)
			var e *RecordError
			if !errors.As(err, &e) || !errors.Is(err, row.err) || e.Result != row.result {
				t.Fatalf("ParseRecord: %v, want %v with %d", err, row.err, row.result)
			}
			failed, rest, err := avp.Next(e.AppendFailedAVP(nil))
			if err != nil || len(rest) != 0 || !failed.Is(avp.FailedAVP, 0) || !bytes.Equal(failed.Data, row.failed) {
				t.Errorf("Failed-AVP %x, %v; want %x", failed.Data, err, row.failed)
			}
		})
	}
}

func TestContentDigest(t *testing.T) {
	r := interim()
	direct := For(0).AppendRecord(nil, &r, options)
	o := options
	o.OriginStateID, o.DestinationHost = 9, "aaa.home.example"
	o.Optional = []uint32{avp.UserName}
	relayed := For(0).AppendRecord(nil, &r, o)
	relayed = avp.AppendString(relayed, avp.RouteRecord, 0, avp.FlagMandatory, "asm.isp.example")
	relayed, group := avp.Begin(relayed, avp.ProxyInfo, 0, avp.FlagMandatory)
	relayed = avp.AppendString(relayed, avp.ProxyHost, 0, avp.FlagMandatory, "proxy.example")
	avp.End(relayed, group)
	relayed = avp.AppendUint32(relayed, avp.AcctDelayTime, 0, 0, 12)
	if ContentDigest(direct) != ContentDigest(relayed) {
		t.Error("a relayed copy has another digest")
	}
	for name, change := range map[string]func(*acct.Record){
		"octets":   func(r *acct.Record) { r.Usage.InputOctets++ },
		"user":     func(r *acct.Record) { r.User += "x" },
		"number":   func(r *acct.Record) { r.Number++ },
		"class":    func(r *acct.Record) { r.Classes = r.Classes[:1] },
		"interval": func(r *acct.Record) { r.End = r.End.Add(time.Millisecond) },
		"flow":     func(r *acct.Record) { r.Flow = avp.AppendUint32(nil, Flow, DefaultVendor, 0, 1) },
	} {
		changed := interim()
		change(&changed)
		if ContentDigest(For(0).AppendRecord(nil, &changed, options)) == ContentDigest(direct) {
			t.Errorf("another %s has the same digest", name)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	d := For(0)
	r := interim()
	f.Add(d.AppendRecord(nil, &r, options))
	template, record := accountingFlow(f)
	flow, err := d.AppendFlow(nil, template, record)
	if err != nil {
		f.Fatal(err)
	}
	r = acct.Record{SessionID: "s", Type: acct.Event, Framed: netip.MustParsePrefix("2001:db8::/56"), Flow: flow, Part: 1, Parts: 2, Estimated: true}
	f.Add(d.AppendRecord(nil, &r, options))
	f.Fuzz(func(t *testing.T, b []byte) {
		ContentDigest(b)
		r, err := d.ParseRecord(b)
		var e *RecordError
		if errors.As(err, &e) {
			if err := avp.Check(e.AppendFailedAVP(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil {
			return
		}
		// What we make of a foreign record is a record like any other.
		o := options
		again, err := d.ParseRecord(d.AppendRecord(nil, &r, o))
		if err != nil {
			t.Fatal(err)
		}
		if r.Realm == "" {
			r.Realm = o.DestinationRealm
		}
		if r.Framed.IsValid() {
			r.Framed = r.Framed.Masked()
		}
		if !reflect.DeepEqual(again, r) {
			t.Fatalf("got  %+v\nwant %+v", again, r)
		}
	})
}

func TestAppendRecordDoesNotAllocate(t *testing.T) {
	d, r := For(0), interim()
	b := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { d.AppendRecord(b, &r, options) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAppendRecord(b *testing.B) {
	d, r := For(0), interim()
	buffer := make([]byte, 0, 4096)
	b.ReportAllocs()
	b.ReportMetric(float64(len(d.AppendRecord(buffer, &r, options))), "octets")
	for b.Loop() {
		d.AppendRecord(buffer, &r, options)
	}
}

func BenchmarkParseRecord(b *testing.B) {
	d, r := For(0), interim()
	avps := d.AppendRecord(nil, &r, options)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.ParseRecord(avps); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkContentDigest(b *testing.B) {
	r := interim()
	avps := For(0).AppendRecord(nil, &r, options)
	b.ReportAllocs()
	for b.Loop() {
		ContentDigest(avps)
	}
}
