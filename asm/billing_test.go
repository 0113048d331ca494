package asm

import (
	"net/netip"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

func TestNextDay(t *testing.T) {
	for _, c := range []struct{ zone, at, want string }{
		{"UTC", "2026-11-22T12:00:00Z", "2026-11-23T00:00:00Z"},
		{"UTC", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"},
		{"Asia/Kolkata", "2026-11-22T18:29:59Z", "2026-11-22T18:30:00Z"},
		{"Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},     // a day of 23 hours
		{"Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},     // a day of 25 hours
		{"America/Sao_Paulo", "2017-10-14T12:00:00Z", "2017-10-15T03:00:00Z"}, // 0:00 is missing: it begins at 1:00
		{"America/Sao_Paulo", "2018-02-17T12:00:00Z", "2018-02-18T03:00:00Z"}, // 23:00 comes twice
		{"Pacific/Apia", "2011-12-29T12:00:00Z", "2011-12-30T10:00:00Z"},      // a whole day is missing
	} {
		z, err := users.LoadZone(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		at := must(time.Parse(time.RFC3339, c.at))
		if got := nextDay(at.In(z)).UTC().Format(time.RFC3339); got != c.want {
			t.Errorf("%s in %s: the next day begins at %s, want %s", c.at, c.zone, got, c.want)
		}
	}
}

func TestBillingDay(t *testing.T) {
	b := newBridge(t, testSettings)
	b.m.settings.TimeZone = "Europe/Berlin"
	for _, c := range []struct {
		day  int
		at   string
		want bool
	}{
		{0, "2026-01-31T23:00:00Z", false},
		{1, "2026-01-31T23:00:00Z", true},
		{31, "2026-01-30T23:00:00Z", true},
		{31, "2026-02-27T23:00:00Z", true}, // the last of February
		{29, "2026-02-27T23:00:00Z", true},
		{29, "2028-02-27T23:00:00Z", false},
		{29, "2028-02-28T23:00:00Z", true},
		{30, "2026-04-29T22:00:00Z", true},
		{30, "2026-05-30T22:00:00Z", false},
	} {
		b.m.settings.BillingDay = c.day
		at := must(time.Parse(time.RFC3339, c.at))
		if got := b.m.cycleBegins(newSession(1, bindingKey{}), at.UnixMilli()); got != c.want {
			t.Errorf("a cycle of day %d begins at %s: %v, want %v", c.day, c.at, got, c.want)
		}
	}
}

// Usage is cut at the user's midnight; where a billing cycle begins, the
// session rolls over. A restart in between changes nothing.
func TestCutAtMidnight(t *testing.T) {
	settings := testSettings
	settings.Interval = time.Hour
	settings.TimeZone, settings.BillingDay = "UTC", 24
	settings.Realms = []RealmSettings{{Realm: "partner.example", TimeZone: "Asia/Kolkata", OperatorName: "1visited.example", Agreement: "A-7"}}
	b := newBridge(t, settings)
	s := b.open(ipfix.TCP, "edge", "198.51.100.1:1000")
	here, there := bind("192.0.2.1", "ann"), bind("192.0.2.2", "bob")
	there.Realm = "partner.example"
	b.users("file", here, there)
	b.clock = epoch.Add(6*time.Hour + 29*time.Minute) // a minute to midnight in Kolkata
	b.send(s, b.flow("192.0.2.1", "203.0.113.9"), b.flow("192.0.2.2", "203.0.113.9"))
	b.checkpoint()
	b.restart()
	b.after(time.Minute)
	b.clock = epoch.Add(11*time.Hour + 59*time.Minute + 30*time.Second)
	b.send(s, b.flow("192.0.2.1", "203.0.113.9"))
	b.after(40 * time.Second)
	b.clock = epoch.Add(35*time.Hour + 59*time.Minute + 30*time.Second)
	b.send(s, b.flow("192.0.2.1", "203.0.113.9"))
	b.after(40 * time.Second)
	b.send(s, b.flow("192.0.2.1", "203.0.113.9"))
	b.checkpoint()
	wantLines(t, b.s.records,
		"18:29:00 ann asm.example;7;1/0 START in 0 out 0",
		"18:29:00 bob asm.example;7;3/0 START in 0 out 0",
		"18:30:00 bob asm.example;7;3/1 INTERIM in 100 out 0",
		"19:00:00 ann asm.example;7;1/1 INTERIM in 100 out 0",
		"00:00:00 ann asm.example;7;1/2 INTERIM in 200 out 0",
		"18:30:00 bob asm.example;7;3/2 STOP in 100 out 0",
		"00:00:00 ann asm.example;7;1/3 STOP in 300 out 0",
		"00:00:10 ann asm.example;7;4/0 START in 0 out 0",
	)
	bob := b.s.records[2]
	if len(bob.Attributes) != 2 || bob.Attributes[0].Code != 126 || string(bob.Attributes[0].Data) != "1visited.example" || string(bob.Attributes[1].Data) != "A-7" {
		t.Errorf("attributes of the partner's record: %v", bob.Attributes)
	}
	if bob.Layer != acct.LayerNetwork {
		t.Errorf("layer %v", bob.Layer)
	}
}

func TestClassesOfTheFarSide(t *testing.T) {
	settings := testSettings
	settings.Classes = []classes.Rule{
		{Name: "tv", Multicast: true, ZeroRated: true},
		{Name: "neighbours", Internal: true},
		{Name: "upload", Direction: classes.Input},
	}
	settings.ClassDefault = "rest"
	b := newBridge(t, settings)
	s := b.open(ipfix.TCP, "edge", "198.51.100.1:1000")
	b.users("file", bind("192.0.2.1", "ann"), bind("192.0.2.2", "bob"))
	far := netip.MustParseAddr("203.0.113.9").String()
	b.send(s, b.flow("192.0.2.1", far), b.flow(far, "192.0.2.1"), b.flow("192.0.2.1", "239.1.2.3"), b.flow("192.0.2.1", "192.0.2.2"))
	b.after(time.Minute)
	b.checkpoint()
	wantLines(t, b.s.records,
		"12:00:00 ann asm.example;7;1/0 START in 0 out 0",
		"12:00:00 bob asm.example;7;3/0 START in 0 out 0",
		"12:01:00 ann asm.example;7;1/1 INTERIM in 300 out 100 upload 100/0 rest 0/100 tv 100/0 neighbours 100/0",
		"12:01:00 bob asm.example;7;3/1 INTERIM in 0 out 100 neighbours 0/100",
	)
	for _, c := range b.s.records[2].Classes {
		if c.ZeroRated != (c.Class == "tv") {
			t.Errorf("class %s: zero-rated %v", c.Class, c.ZeroRated)
		}
	}
}

// Which octets are billed is one policy, and every record says which it has.
func TestLayer(t *testing.T) {
	template := func(ids ...uint16) *ipfix.Template {
		fields := []ipfix.FieldSpecifier{field(ipfix.SourceIPv4Address, 4), field(ipfix.FlowEndMilliseconds, 8)}
		for _, id := range ids {
			fields = append(fields, field(id, 8))
		}
		return must(ipfix.NewTemplate(300, fields...))
	}
	for _, c := range []struct {
		name     string
		policy   string
		template *ipfix.Template
		values   []any
		octets   uint64
		layer    acct.Layer
	}{
		{"network by default", "", template(1, 352), []any{100, 118}, 100, acct.LayerNetwork},
		{"link where it is billed", LayerLink, template(1, 352), []any{100, 118}, 118, acct.LayerLink},
		{"what there is, and it is said", LayerLink, template(1), []any{100}, 100, acct.LayerNetwork},
		{"link alone", LayerNetwork, template(352), []any{118}, 118, acct.LayerLink},
		{"the other where one is zero", LayerLink, template(1, 352), []any{100, 0}, 100, acct.LayerNetwork},
		{"payload of initiators", "", template(231), []any{80}, 80, acct.LayerUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := testSettings
			settings.Layer = c.policy
			b := newBridge(t, settings)
			s := b.open(ipfix.TCP, "edge", "198.51.100.1:1000")
			b.users("file", bind("192.0.2.1", "ann"))
			e := ipfix.NewEncoder(1, 0)
			if err := e.AddTemplate(c.template); err != nil {
				t.Fatal(err)
			}
			if err := e.AddRecord(c.template, append([]any{netip.MustParseAddr("192.0.2.1"), b.clock}, c.values...)...); err != nil {
				t.Fatal(err)
			}
			b.add(acct.EntryMessage, s, e.Flush(uint32(b.clock.Unix())))
			b.after(time.Minute)
			b.checkpoint()
			last := b.s.records[len(b.s.records)-1]
			if last.Usage.InputOctets != c.octets || last.Layer != c.layer {
				t.Errorf("%d octets of layer %d, want %d of %d", last.Usage.InputOctets, last.Layer, c.octets, c.layer)
			}
		})
	}
}
