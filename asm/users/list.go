package users

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// ErrCorrupt says that an encoded list can't be read.
var ErrCorrupt = errors.New("corrupt encoding")

// listVersion is the first octet of an encoded list.
const listVersion = 1

// Flags of an encoded binding say what it holds besides prefix and user.
const (
	flagIPv6 = 1 << iota
	flagFrom
	flagUntil
	flagRealm
	flagMultiSession
	flagClass
	flagRemoved
	flagMore // VRF, time zone, ports and attributes
)

// AppendList appends an encoding of the bindings of a source, which ParseList
// reads: the content of a journal entry. Equal lists have equal encodings.
func AppendList(b []byte, source string, bindings []Binding) []byte {
	b = appendHeader(b, source, len(bindings))
	for _, binding := range bindings {
		b = appendBinding(b, binding, 0)
	}
	return b
}

// ParseList reads what AppendList appended, and checks the bindings. Errors
// match ErrCorrupt.
func ParseList(data []byte) (source string, bindings []Binding, err error) {
	source, bindings, _, err = parseList(data, false)
	return source, bindings, err
}

func appendHeader(b []byte, source string, n int) []byte {
	b = append(b, listVersion)
	b = appendString(b, source)
	return binary.AppendUvarint(b, uint64(n))
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBinding(b []byte, v Binding, flags byte) []byte {
	from, until := toMilli(v.From), toMilli(v.Until)
	for _, f := range [...]struct {
		flag byte
		set  bool
	}{
		{flagIPv6, v.Prefix.Addr().Is6()}, {flagFrom, from != 0}, {flagUntil, until != 0},
		{flagRealm, v.Realm != ""}, {flagMultiSession, v.MultiSession != ""}, {flagClass, v.Class != ""},
		{flagMore, v.VRF != "" || v.TimeZone != "" || v.Ports != "" || v.Attributes != ""},
	} {
		if f.set {
			flags |= f.flag
		}
	}
	b = append(b, flags, byte(v.Prefix.Bits()))
	b = append(b, v.Prefix.Addr().AsSlice()...)
	b = appendString(b, v.User)
	if from != 0 {
		b = binary.AppendUvarint(b, uint64(from))
	}
	if until != 0 {
		b = binary.AppendUvarint(b, uint64(until))
	}
	for _, s := range [...]string{v.Realm, v.MultiSession, v.Class} {
		if s != "" {
			b = appendString(b, s)
		}
	}
	if flags&flagMore != 0 {
		for _, s := range [...]string{v.VRF, v.TimeZone, string(v.Ports), string(v.Attributes)} {
			b = appendString(b, s)
		}
	}
	return b
}

// minBinding is the least that an encoded binding takes: flags, length, an
// IPv4 address and a user of one octet.
const minBinding = 1 + 1 + 4 + 2

// CheckList says what ParseList would, of how many bindings, and keeps none.
func CheckList(data []byte) (source string, n int, err error) {
	source, _, err = eachBinding(data, false, func(_ string, listed int) { n = listed }, func(Binding, bool) error { return nil })
	return source, n, err
}

// parseList reads an encoded list. Removed bindings, which come last, are
// allowed or not.
func parseList(data []byte, allowRemoved bool) (source string, bindings []Binding, removed int, err error) {
	source, removed, err = eachBinding(data, allowRemoved, func(_ string, n int) {
		if n > 0 {
			bindings = make([]Binding, 0, n)
		}
	}, func(b Binding, _ bool) error {
		bindings = append(bindings, b)
		return nil
	})
	if err != nil {
		return "", nil, 0, err
	}
	return source, bindings, removed, nil
}

// eachBinding reads an encoded list: it tells whose it is and how many bindings
// it claims to have, which its length allows, and visits them in order, until
// one is wrong. Errors match ErrCorrupt, or are of visit.
func eachBinding(data []byte, allowRemoved bool, begin func(source string, n int), visit func(b Binding, removed bool) error) (source string, removed int, err error) {
	// Names are substrings of one copy of data, which costs less than a copy
	// of each.
	d := decoder{rest: string(data)}
	if v := d.octet(); v != listVersion && !d.failed {
		return "", 0, fmt.Errorf("users: decode list of version %d: %w", v, ErrCorrupt)
	}
	source = d.string()
	n := d.uvarint()
	if n > uint64(len(d.rest)/minBinding) {
		d.fail()
	}
	if !d.failed {
		begin(source, int(n))
	}
	for i := uint64(0); i < n && !d.failed; i++ {
		b, flags := d.binding()
		if d.failed {
			break
		}
		gone := flags&flagRemoved != 0
		normal, key, err := b.normalize()
		switch {
		case err != nil:
			return "", 0, fmt.Errorf("users: decode list: binding %d: %s %w: %w", i, key, err, ErrCorrupt)
		case normal != b:
			return "", 0, fmt.Errorf("users: decode list: binding %d is not as encoded: %w", i, ErrCorrupt)
		case gone && b.Until.IsZero():
			return "", 0, fmt.Errorf("users: decode list: binding %d is removed but has no end: %w", i, ErrCorrupt)
		case !gone && removed > 0:
			return "", 0, fmt.Errorf("users: decode list: binding %d is listed after a removed one: %w", i, ErrCorrupt)
		}
		if gone {
			removed++
		}
		if err := visit(b, gone); err != nil {
			return "", 0, err
		}
	}
	if d.failed || len(d.rest) != 0 || removed > 0 && !allowRemoved {
		return "", 0, fmt.Errorf("users: decode list: %w", ErrCorrupt)
	}
	return source, removed, nil
}

// A decoder reads values off the front of rest. After the first failure every
// value is zero.
type decoder struct {
	rest   string
	failed bool
}

func (d *decoder) fail() { d.rest, d.failed = "", true }

func (d *decoder) octet() byte {
	if d.rest == "" {
		d.fail()
		return 0
	}
	o := d.rest[0]
	d.rest = d.rest[1:]
	return o
}

func (d *decoder) octets(n uint64) string {
	if n > uint64(len(d.rest)) {
		d.fail()
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) uvarint() uint64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		o := d.octet()
		v |= uint64(o&0x7f) << shift
		if o < 0x80 {
			return v
		}
	}
	d.fail()
	return 0
}

func (d *decoder) string() string { return d.octets(d.uvarint()) }

// time reads a time, which is encoded only if it is not zero.
func (d *decoder) time() int64 {
	ms := d.uvarint()
	if ms == 0 || ms > maxTime {
		d.fail()
		return 0
	}
	return int64(ms)
}

// text reads a name, which is encoded only if it is not empty.
func (d *decoder) text() string {
	s := d.string()
	if s == "" {
		d.fail()
	}
	return s
}

func (d *decoder) binding() (b Binding, flags byte) {
	flags = d.octet()
	length := int(d.octet())
	var a netip.Addr
	if flags&flagIPv6 != 0 {
		var octets [16]byte
		copy(octets[:], d.octets(16))
		a = netip.AddrFrom16(octets)
	} else {
		var octets [4]byte
		copy(octets[:], d.octets(4))
		a = netip.AddrFrom4(octets)
	}
	b.Prefix = netip.PrefixFrom(a, length)
	b.User = d.text()
	if flags&flagFrom != 0 {
		b.From = fromMilli(d.time())
	}
	if flags&flagUntil != 0 {
		b.Until = fromMilli(d.time())
	}
	if flags&flagRealm != 0 {
		b.Realm = d.text()
	}
	if flags&flagMultiSession != 0 {
		b.MultiSession = d.text()
	}
	if flags&flagClass != 0 {
		b.Class = d.text()
	}
	if flags&flagMore != 0 {
		before := b
		for _, s := range [...]*string{&b.VRF, &b.TimeZone, (*string)(&b.Ports), (*string)(&b.Attributes)} {
			*s = d.string()
		}
		if b == before {
			d.fail()
		}
	}
	return b, flags
}
