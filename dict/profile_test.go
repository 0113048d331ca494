package dict

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
	"tollbridge/dict/avp"
)

// charged is interim with what profiles make something of.
func charged() acct.Record {
	r := interim()
	r.Increase = acct.Usage{InputOctets: 1000, OutputOctets: 2000, InputPackets: 10, OutputPackets: 20}
	r.Classes[0].Increase = acct.Usage{InputOctets: 400, OutputOctets: 500, InputPackets: 4, OutputPackets: 5}
	r.Classes[1].Increase = acct.Usage{InputOctets: 600, OutputOctets: 1500, InputPackets: 6, OutputPackets: 15}
	r.Attributes = []acct.Attribute{
		{Code: avp.Class, Data: []byte("gold")},
		{Code: avp.CallingStationID, Data: []byte("4930123456")},
		{Code: avp.ChargeableUserIdentity, Data: []byte("cui-7")},
		{Code: avp.EventTimestamp, Data: []byte{1, 2, 3, 4}}, // the request has one
		{Code: 9, Vendor: 9, Data: []byte("theirs")},
	}
	r.Corrects = &acct.Correction{SessionID: "asm.isp.example;1;1", Number: 2, Credit: true, Reason: "late binding"}
	return r
}

// show writes AVPs as lines: the way through the groups, flags and data.
func show(t *testing.T, avps []byte) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	var walk func(prefix string, avps []byte)
	grouped := map[Ref]bool{}
	for n := range For(0).Named() {
		grouped[n.Ref] = n.Type == Grouped
	}
	walk = func(prefix string, avps []byte) {
		for a, err := range avp.Scan(avps) {
			if err != nil {
				t.Fatalf("%s: %v", prefix, err)
			}
			r := Ref{a.Code, a.Vendor}
			name := prefix + r.String()
			if grouped[r] {
				out[name] = append(out[name], fmt.Sprintf("flags %#x", a.Flags&^avp.FlagVendor))
				walk(name+"/", a.Data)
				continue
			}
			v := fmt.Sprintf("%q", a.Data)
			switch len(a.Data) {
			case 4:
				n, _ := a.Uint32()
				v = fmt.Sprint(n)
			case 8:
				n, _ := a.Uint64()
				v = fmt.Sprint(n)
			}
			if a.Flags&avp.FlagMandatory == 0 {
				v += " optional"
			}
			out[name] = append(out[name], v)
		}
	}
	walk("", avps)
	return out
}

func write(t *testing.T, p Profile, r acct.Record) map[string][]string {
	t.Helper()
	w, err := For(0).Writer(p)
	if err != nil {
		t.Fatal(err)
	}
	return show(t, w.Append(nil, &r, options))
}

// want checks AVPs that must be so, or, by "", must not be there.
func want(t *testing.T, got map[string][]string, all map[string]string) {
	t.Helper()
	for name, value := range all {
		if s := strings.Join(got[name], ", "); s != value {
			t.Errorf("AVP %s is %s, want %s", name, s, value)
		}
	}
}

func TestBaseProfileIsAppendRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecord(t)
		w, err := For(0).Writer(Profile{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := w.Append(nil, &r, options), For(0).AppendRecord(nil, &r, options); !bytes.Equal(got, want) {
			t.Fatalf("wrote\n%x, want\n%x", got, want)
		}
	})
}

func TestBaseProfile(t *testing.T) {
	want(t, write(t, Profile{}, charged()), map[string]string{
		"259": "3", "480": "3", "485": "3", "363": "120868", "1": `"alice@isp.example"`,
		"25": "1735355492 optional", "31": `"4930123456" optional`, "89": `"cui-7" optional`, "9:9": `"theirs" optional`,
		"32473:131094": "3 optional",
		"32473:131104": "flags 0x0", "32473:131104/32473:131105": `"asm.isp.example;1;1" optional`,
		"32473:131104/32473:131106": "2 optional", "32473:131104/32473:131107": "1 optional",
		"32473:131104/32473:131108": `"late binding" optional`,
	})
	if got := write(t, Profile{}, charged())["55"]; len(got) != 1 {
		t.Errorf("Event-Timestamp %v", got)
	}
}

// RFC 7155, Section 3.9; RFC 6733, Section 9.3: split accounting under
// application 3, coupled under 1.
func TestNASREQProfile(t *testing.T) {
	got := write(t, Profile{Kind: NASREQ}, charged())
	want(t, got, map[string]string{
		"259": "3", "25": "1735355492", "31": `"4930123456"`, "89": `"cui-7" optional`, "32": `"asm.isp.example"`,
		"44": `"asm.isp.example;1790000000;7;1"`, "6": "2", "46": "1200", "363": "120868", "366": "4100",
	})
	want(t, write(t, Profile{Kind: NASREQ, Application: 1, Optional: []uint32{6}}, charged()), map[string]string{"259": "1", "6": "2 optional"})
}

// TS 32.299, Section 6.2.2: volumes are those of the interval, one container
// for each class.
func TestRfProfile(t *testing.T) {
	const si, ps = "10415:873", "10415:873/10415:874"
	r := charged()
	want(t, write(t, Profile{Kind: Rf}, r), map[string]string{
		"259": "3", "461": `"32251@3gpp.org"`, "480": "3", "363": "", "364": "", "46": "",
		si: "flags 0x40", si + "/443": "flags 0x40", si + "/443/450": "3", si + "/443/444": `"alice@isp.example"`,
		ps: "flags 0x40", ps + "/10415:1227": `"\x00\x01\xc0\x00\x02\f"`, ps + "/10415:2606": "",
		ps + "/10415:2046":            "flags 0x40",
		ps + "/10415:2046/363":        "1000",
		ps + "/10415:2046/364":        "2000",
		ps + "/10415:2040":            "flags 0x40, flags 0x40",
		ps + "/10415:2040/363":        "400, 600",
		ps + "/10415:2040/364":        "500, 1500",
		ps + "/10415:2040/10415:1004": `"default", "voice"`,
		ps + "/10415:2046/10415:2037": "4",
		ps + "/10415:2042":            "",
		"32473:131104":                "flags 0x0",
	})
	r.Classes[1].ZeroRated = true
	want(t, write(t, Profile{Kind: Rf}, r), map[string]string{ps + "/10415:2040/32473:131113": "1 optional"})
	r.Type, r.User = acct.Stop, "4915112345678"
	want(t, write(t, Profile{Kind: Rf, ServiceContext: "1.2.32251@3gpp.org"}, r), map[string]string{
		"461": `"1.2.32251@3gpp.org"`, si + "/443/450": "0", ps + "/10415:2046/10415:2037": "0",
		ps + "/10415:2042": fmt.Sprint(uint32(r.End.Unix() + ntpUnix)), ps + "/10415:2041": fmt.Sprint(uint32(r.End.Add(-20*time.Minute).Unix() + ntpUnix)),
	})
	r.Type = acct.Start
	want(t, write(t, Profile{Kind: Rf}, r), map[string]string{ps + "/10415:2046": "", ps + "/10415:2040": ""})
}

func TestEventsAndIntervals(t *testing.T) {
	want(t, write(t, Profile{Events: true}, charged()), map[string]string{
		"480": "1", "485": "3", "363": "1000", "32473:131088/363": "400 optional, 600 optional",
	})
	want(t, write(t, Profile{Interval: true, Kind: NASREQ}, charged()), map[string]string{"480": "3", "364": "2000"})
	for _, p := range []Profile{{Events: true}, {Interval: true}, {Kind: Rf}} {
		if !p.OfInterval() {
			t.Errorf("%+v is not of intervals", p)
		}
	}
	if p := (Profile{Kind: NASREQ}); p.OfInterval() {
		t.Errorf("%+v is of intervals", p)
	}
}

func TestIdentity(t *testing.T) {
	const si = "10415:873"
	key := []byte("0123456789abcdef")
	got := write(t, Profile{Identity: PseudonymIdentity, Key: key}, charged())
	pseudonym := strings.Join(got["1"], "")
	if len(pseudonym) != 34 || strings.Contains(pseudonym, "alice") {
		t.Errorf("pseudonym %s", pseudonym)
	}
	want(t, got, map[string]string{"89": ""})
	want(t, write(t, Profile{Identity: PseudonymIdentity, Key: key, Kind: Rf}, charged()), map[string]string{si + "/443/444": pseudonym, "1": pseudonym})
	if other := write(t, Profile{Identity: PseudonymIdentity, Key: []byte("another key of 16")}, charged()); strings.Join(other["1"], "") == pseudonym {
		t.Error("another key gives the same pseudonym")
	}
	want(t, write(t, Profile{Identity: RemoveIdentity}, charged()), map[string]string{"1": "", "89": ""})
	want(t, write(t, Profile{Identity: ChargeableIdentity}, charged()), map[string]string{"1": "", "89": `"cui-7" optional`})
	want(t, write(t, Profile{Identity: ChargeableIdentity, Kind: Rf}, charged()), map[string]string{si + "/443/444": `"cui-7"`, si + "/443/450": "4"})
}

func find(t *testing.T, name string) Named {
	t.Helper()
	n, err := For(0).Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEdits(t *testing.T) {
	const ps = "10415:873/10415:874"
	in := []Ref{find(t, "Service-Information").Ref, find(t, "PS-Information").Ref}
	ggsn, err := ParseValue(Address, "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	got := write(t, Profile{Kind: Rf, Edits: []Edit{
		{Action: Drop, In: append(in[:2:2], find(t, "Traffic-Data-Volumes").Ref), AVP: find(t, "Change-Time").Ref},
		{Action: Add, In: in, AVP: find(t, "10415:847").Ref, Data: ggsn, Flags: avp.FlagMandatory},
		{Action: Rename, AVP: find(t, "Calling-Station-Id").Ref, To: find(t, "Called-Station-Id").Ref},
		{Action: Set, AVP: find(t, "Class").Ref, Data: []byte("bronze")},
		{Action: Set, AVP: find(t, "NAS-Identifier").Ref, Data: []byte("bridge"), Flags: avp.FlagMandatory},
		{Action: Add, AVP: find(t, "Class").Ref, Data: []byte("second")},
		{Action: Drop, AVP: find(t, "Correction").Ref},
	}}, charged())
	want(t, got, map[string]string{
		ps + "/10415:2046/10415:2038": "", ps + "/10415:2046/363": "1000",
		ps + "/10415:847": `"\x00\x01\xc0\x00\x02\x01"`,
		"31":              "", "30": `"4930123456" optional`,
		"25": `"bronze" optional, "second" optional`, "32": `"bridge"`, "32473:131104": "",
	})
	for _, name := range []string{"10415:873/10415:874/10415:2040/10415:2038"} {
		if len(got[name]) != 2 {
			t.Errorf("%s: %v", name, got[name])
		}
	}
}

// An allow-list lets nothing else leave but what a request can't do without.
func TestAllow(t *testing.T) {
	got := write(t, Profile{Allow: []Ref{{Code: avp.AccountingInputOctets}, {Code: 55}}}, charged())
	for name := range got {
		switch name {
		case "263", "264", "296", "283", "480", "485", "259", "363", "55":
		default:
			t.Errorf("AVP %s leaves", name)
		}
	}
	if len(got) != 9 {
		t.Errorf("%d AVPs, want 9: %v", len(got), got)
	}
}

// A profile that was stored writes the same octets.
func TestProfileIsStored(t *testing.T) {
	p := Profile{Name: "partner", Kind: Rf, Optional: []uint32{873}, Identity: PseudonymIdentity, Key: []byte("0123456789abcdef"),
		Edits: []Edit{{Action: Add, AVP: Ref{25, 0}, Data: []byte{0, 255}}, {Action: Rename, AVP: Ref{31, 0}, To: Ref{30, 0}}}, Allow: []Ref{{25, 0}, {873, Vendor3GPP}}}
	stored, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back Profile
	if err := json.Unmarshal(stored, &back); err != nil {
		t.Fatal(err)
	}
	r := charged()
	var wrote [2][]byte
	for i, p := range []Profile{p, back} {
		w, err := For(0).Writer(p)
		if err != nil {
			t.Fatal(err)
		}
		wrote[i] = w.Append(nil, &r, options)
	}
	if !bytes.Equal(wrote[0], wrote[1]) {
		t.Errorf("wrote\n%x, and read back\n%x", wrote[0], wrote[1])
	}
}

func TestProfileRefuses(t *testing.T) {
	for text, p := range map[string]Profile{
		"is not one of base, nasreq, rf":      {Kind: "ro"},
		"accounting is sent under 3":          {Application: 1},
		"a service context belongs":           {ServiceContext: "x"},
		"is of no use without pseudonyms":     {Key: []byte("x")},
		"has 1 octets, wants at least 16":     {Identity: PseudonymIdentity, Key: []byte("x")},
		"is not one of keep, remove":          {Identity: "hide"},
		"is not one of drop, rename":          {Edits: []Edit{{Action: "move"}}},
		"AVP 263 must be what it is":          {Edits: []Edit{{Action: Drop, AVP: Ref{Code: avp.SessionID}}}},
		"edit 2: AVP 485 must be what it is:": {Edits: []Edit{{Action: Drop, AVP: Ref{Code: 1}}, {Action: Set, AVP: Ref{Code: 485}}}},
		"AVP 264 must be what it is":          {Edits: []Edit{{Action: Rename, AVP: Ref{Code: 1}, To: Ref{Code: 264}}}},
	} {
		if _, err := For(0).Writer(p); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want %q", err, text)
		}
	}
}

func TestParseValue(t *testing.T) {
	for _, test := range []struct {
		t    Type
		s    string
		want string // "" refuses
	}{
		{Unsigned32, "7", "\x00\x00\x00\x07"}, {Unsigned32, "-1", ""}, {Unsigned32, "4294967296", ""},
		{Enumerated, "2", "\x00\x00\x00\x02"}, {Integer32, "-1", "\xff\xff\xff\xff"}, {Integer32, "x", ""},
		{Unsigned64, "1", "\x00\x00\x00\x00\x00\x00\x00\x01"}, {Integer64, "-2", "\xff\xff\xff\xff\xff\xff\xff\xfe"},
		{UTF8String, "zoë", "zoë"}, {OctetString, "0x00ff", "\x00\xff"}, {OctetString, "0x0", ""}, {UTF8String, "0x00", "0x00"},
		{DiameterIdentity, "a.example", "a.example"}, {DiameterIdentity, "a b", ""},
		{Address, "192.0.2.1", "\x00\x01\xc0\x00\x02\x01"}, {Address, "::1", "\x00\x02" + strings.Repeat("\x00", 15) + "\x01"}, {Address, "x", ""},
		{Time, "1970-01-01T00:00:00Z", "\x83\xaa\x7e\x80"}, {Time, "now", ""}, {Grouped, "x", ""},
		{Float32, "1", "\x3f\x80\x00\x00"}, {Float64, "1", "\x3f\xf0\x00\x00\x00\x00\x00\x00"}, {Unsigned64, "x", ""},
	} {
		got, err := ParseValue(test.t, test.s)
		if (err != nil) != (test.want == "") || string(got) != test.want {
			t.Errorf("%v %q is %q (%v), want %q", test.t, test.s, got, err, test.want)
		}
	}
	if !Convertible(DiameterIdentity, UTF8String) || Convertible(OctetString, UTF8String) || Convertible(Unsigned64, Unsigned32) || !Convertible(Unsigned64, OctetString) {
		t.Error("Convertible")
	}
	if _, err := For(0).Find("Nonsense-Id"); err == nil {
		t.Error("an AVP of no name is found")
	}
	if n := find(t, "Class-Usage"); n.Code != ClassUsage || n.Vendor != DefaultVendor {
		t.Errorf("Class-Usage is %+v", n)
	}
}
