package classes_test

import (
	"net/netip"
	"strings"
	"testing"

	"tollbridge/asm/classes"
)

func TestFind(t *testing.T) {
	const business = 9
	names := []string{"rest"}
	c := classes.NewClassifier([]classes.Rule{
		{Name: "voice", DSCP: []uint8{46, 34}, Protocols: []uint8{17}},
		{Name: "cdn", Prefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/28"), netip.MustParsePrefix("2001:db8::/32")}},
		{Name: "tv", Multicast: true, Direction: classes.Output, ZeroRated: true},
		{Name: "neighbours", Internal: true},
		{Name: "web", Protocols: []uint8{6}, Ports: []classes.PortRange{{First: 80, Last: 80}, {First: 443, Last: 445}}},
	}, "rest", func(name string) classes.Index {
		for i, n := range names {
			if n == name {
				return classes.Index(i)
			}
		}
		names = append(names, name)
		return classes.Index(len(names) - 1)
	})
	if !c.Directional() {
		t.Error("no rule is of one direction")
	}
	for _, row := range []struct {
		name   string
		remote string
		usage  classes.Usage
		other  classes.Index
		want   string
	}{
		{"protocol and code point", "198.51.100.1", classes.Usage{Protocol: 17, DSCP: 46}, classes.None, "voice"},
		{"another protocol", "198.51.100.1", classes.Usage{Protocol: 6, DSCP: 46}, classes.None, "rest"},
		{"the last address of a prefix", "203.0.113.15", classes.Usage{}, classes.None, "cdn"},
		{"the first address behind it", "203.0.113.16", classes.Usage{}, classes.None, "rest"},
		{"the first of two rules that match", "2001:db8::5", classes.Usage{Protocol: 6, Port: 443}, classes.None, "cdn"},
		{"a group, to the user", "224.0.0.1", classes.Usage{}, classes.None, "tv"},
		{"a group, from the user", "224.0.0.1", classes.Usage{Input: true}, classes.None, "rest"},
		{"another user", "192.0.2.2", classes.Usage{Internal: true}, classes.None, "neighbours"},
		{"the last port of a range", "198.51.100.1", classes.Usage{Protocol: 6, Port: 445}, classes.None, "web"},
		{"the port behind it", "198.51.100.1", classes.Usage{Protocol: 6, Port: 446}, classes.None, "rest"},
		{"no rule, but a class of the binding", "198.51.100.1", classes.Usage{}, business, "business"},
	} {
		u := row.usage
		u.Remote = netip.MustParseAddr(row.remote)
		got := "business"
		if i := c.Find(&u, row.other); i != business {
			got = names[i]
			if c.ZeroRated(i) != (got == "tv") {
				t.Errorf("%s: zero-rated %t", got, c.ZeroRated(i))
			}
		}
		if got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

func TestValidate(t *testing.T) {
	for want, r := range map[string]classes.Rule{
		"direction": {Name: "x", Direction: "up"},
		"name":      {},
		"prefixes":  {Name: "x", Prefixes: []netip.Prefix{{}}},
		"dscp":      {Name: "x", DSCP: []uint8{64}},
		"ports":     {Name: "x", Ports: []classes.PortRange{{First: 2, Last: 1}}},
	} {
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	good := classes.Rule{Name: "x", Direction: classes.Input, DSCP: []uint8{63}, Ports: []classes.PortRange{{First: 1, Last: 1}}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
