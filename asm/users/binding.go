// Package users says who held an address at a moment: bindings of addresses
// and prefixes to users, read from CSV or YAML files, watched for changes, and
// looked up by longest prefix and time.
package users

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// A Binding says that a user holds a prefix, a single address being the
// longest, from a moment until another. Times are whole milliseconds.
type Binding struct {
	Prefix netip.Prefix // masked; IPv4 is never in its IPv4-mapped form
	User   string       // User-Name (RFC 6733, Section 8.14)
	From   time.Time    // the first moment; zero for ever
	Until  time.Time    // the first moment after; zero for ever
	VRF    string       // the address space that Prefix is of; "" is the global one
	Options
}

// Options are what else a Binding may say. "" is nothing.
type Options struct {
	Realm        string     // Destination-Realm of the user's accounting records
	MultiSession string     // Acct-Multi-Session-Id that the user's sessions share
	Class        string     // class of the user's traffic that no other rule classifies
	TimeZone     string     // where the user's days and billing cycles begin, such as Europe/Berlin
	Ports        Ports      // of a shared IPv4 address, those that are the user's
	Attributes   Attributes // AVPs of the user's accounting records
}

// check says what is wrong with o and under which key.
func (o *Options) check() (key string, err error) {
	for _, name := range [...]struct{ key, value string }{
		{"realm", o.Realm}, {"multiSession", o.MultiSession}, {"class", o.Class}, {"timeZone", o.TimeZone},
	} {
		if err := CheckName(name.value); err != nil {
			return name.key, err
		}
	}
	if o.TimeZone != "" {
		if _, err := LoadZone(o.TimeZone); err != nil {
			return "timeZone", err
		}
	}
	if err := o.Ports.check(); err != nil {
		return "ports", err
	}
	return "attributes", o.Attributes.check()
}

const prefixExpected = "an address such as 192.0.2.1 or a prefix such as 2001:db8::/56 is expected"

var (
	errNoPrefix = errors.New("is missing: " + prefixExpected)
	errNoUser   = errors.New("is missing: whose is the prefix?")
)

// normalize returns b as a Table holds it, or says what is wrong with it and
// under which key.
func (b Binding) normalize() (n Binding, key string, err error) {
	b.Prefix, err = normalizePrefix(b.Prefix)
	if err != nil {
		return b, "prefix", err
	}
	if b.User == "" {
		return b, "user", errNoUser
	}
	for _, name := range [...]struct{ key, value string }{{"user", b.User}, {"vrf", b.VRF}} {
		if err := CheckName(name.value); err != nil {
			return b, name.key, err
		}
	}
	if key, err := b.Options.check(); err != nil {
		return b, key, err
	}
	if b.Ports != "" && (!b.Prefix.Addr().Is4() || !b.Prefix.IsSingleIP()) {
		return b, "ports", errors.New("are of a prefix: only a single IPv4 address is shared by ports")
	}
	b.From, b.Until = fromMilli(toMilli(b.From)), fromMilli(toMilli(b.Until))
	if !b.Until.IsZero() && !b.From.Before(b.Until) {
		return b, "until", fmt.Errorf("is not after from, which is %s", b.From.Format(time.RFC3339Nano))
	}
	return b, "", nil
}

func normalizePrefix(p netip.Prefix) (netip.Prefix, error) {
	a := p.Addr()
	if !p.IsValid() {
		return p, errNoPrefix
	}
	if a.Is4In6() {
		if p.Bits() < 96 {
			return p, errors.New("is wider than all IPv4-mapped addresses: write 0.0.0.0/0 if they are meant")
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	if masked := p.Masked(); masked != p {
		return p, fmt.Errorf("has host bits set: write %s for the prefix or %s for the address", masked, p.Addr())
	}
	return p, nil
}

// maxTime is the end of the year 9999 in Unix milliseconds.
const maxTime = 253402300799_999

// toMilli returns t in Unix milliseconds, zero for the zero time.
func toMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return min(max(t.UnixMilli(), 0), maxTime)
}

func fromMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// compareBindings orders bindings by all that tells them apart.
func compareBindings(a, b Binding) int {
	return cmp.Or(a.Prefix.Compare(b.Prefix), cmp.Compare(a.VRF, b.VRF), a.From.Compare(b.From), cmp.Compare(a.User, b.User),
		cmp.Compare(a.Ports, b.Ports), a.Until.Compare(b.Until), cmp.Compare(a.Realm, b.Realm), cmp.Compare(a.MultiSession, b.MultiSession),
		cmp.Compare(a.Class, b.Class), cmp.Compare(a.TimeZone, b.TimeZone), cmp.Compare(a.Attributes, b.Attributes))
}
