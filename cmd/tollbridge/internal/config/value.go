package config

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A Mode is a shape of RFC 5472, Section 3.5.
type Mode string

// Flows is where requests go that carry a flow and no user.
type Flows string

const (
	FlowsStore    Flows = "store"    // they are kept as CDRs
	FlowsPipeline Flows = "pipeline" // their flows are accounted here
)

// A Level is the least severe kind of line that is logged.
type Level string

// A Format is the form of a log line.
type Format string

// A Prefix is an address or a prefix without host bits.
type Prefix struct{ netip.Prefix }

// Ports is a port or a range of ports, both ends included.
type Ports struct{ First, Last uint16 }

// Octets is an amount of storage.
type Octets int64

// octetUnits are the units of Octets, the largest first.
var octetUnits = []struct {
	name   string
	octets int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

// UnmarshalText reads an amount such as 64MiB, or a plain number of octets.
func (o *Octets) UnmarshalText(b []byte) error {
	for _, u := range octetUnits {
		number, ok := strings.CutSuffix(string(b), u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 63)
		if err != nil || n > math.MaxInt64/uint64(u.octets) {
			break
		}
		*o = Octets(int64(n) * u.octets)
		return nil
	}
	return fmt.Errorf("%q is not an amount of storage: write it like 512MiB, 10GiB or 0", b)
}

// MarshalText writes what UnmarshalText reads.
func (o Octets) MarshalText() ([]byte, error) {
	for _, u := range octetUnits {
		if o != 0 && int64(o)%u.octets == 0 {
			return fmt.Appendf(nil, "%d%s", int64(o)/u.octets, u.name), nil
		}
	}
	return []byte("0"), nil
}

// UnmarshalText refuses what is not a mode.
func (m *Mode) UnmarshalText(b []byte) error { return oneOf(m, b, "asm", "aaa-client") }

// UnmarshalText refuses what is no way of flows.
func (f *Flows) UnmarshalText(b []byte) error {
	return oneOf(f, b, string(FlowsStore), string(FlowsPipeline))
}

// UnmarshalText refuses what is not a level.
func (l *Level) UnmarshalText(b []byte) error { return oneOf(l, b, "debug", "info", "warn", "error") }

// UnmarshalText refuses what is not a format.
func (f *Format) UnmarshalText(b []byte) error { return oneOf(f, b, "text", "json") }

func oneOf[S ~string](v *S, b []byte, words ...string) error {
	if !slices.Contains(words, string(b)) {
		return fmt.Errorf("%q is not one of %s", b, strings.Join(words, ", "))
	}
	*v = S(b)
	return nil
}

// UnmarshalText reads an address or a prefix, such as 192.0.2.1 or 2001:db8::/32.
func (p *Prefix) UnmarshalText(b []byte) error {
	if a, err := netip.ParseAddr(string(b)); err == nil {
		p.Prefix = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	prefix, err := netip.ParsePrefix(string(b))
	if err != nil {
		return fmt.Errorf("%q is not an address or prefix: write it like 192.0.2.1 or 2001:db8::/32", b)
	}
	if prefix != prefix.Masked() {
		return fmt.Errorf("%q has host bits set: write %s", b, prefix.Masked())
	}
	p.Prefix = prefix
	return nil
}

// UnmarshalText reads a port such as 53, or a range such as 5000-5010.
func (p *Ports) UnmarshalText(b []byte) error {
	first, last, isRange := strings.Cut(string(b), "-")
	if !isRange {
		last = first
	}
	f, err1 := strconv.ParseUint(first, 10, 16)
	l, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || f > l {
		return fmt.Errorf("%q is not a port or a range of ports: write it like 53 or 5000-5010", b)
	}
	*p = Ports{uint16(f), uint16(l)}
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (p Ports) MarshalText() ([]byte, error) {
	if p.First == p.Last {
		return strconv.AppendUint(nil, uint64(p.First), 10), nil
	}
	return fmt.Appendf(nil, "%d-%d", p.First, p.Last), nil
}
