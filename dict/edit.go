package dict

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"tollbridge/dict/avp"
)

// A Ref names an AVP.
type Ref struct {
	Code   uint32 `json:"code"`
	Vendor uint32 `json:"vendor,omitempty"`
}

// An Action is what an Edit does. The words are stored.
type Action string

const (
	Drop   Action = "drop"   // the AVP, wherever it stands
	Rename Action = "rename" // to another AVP, with the same data
	Set    Action = "set"    // its data to a constant; it is added where there is none
	Add    Action = "add"    // one more AVP with a constant
)

// An Edit changes the AVPs of a request before it is sent.
type Edit struct {
	Action Action `json:"action"`
	In     []Ref  `json:"in,omitempty"` // the groups that the AVP is in, from the outermost; none for an AVP of the request itself
	AVP    Ref    `json:"avp"`
	To     Ref    `json:"to,omitzero"`     // of Rename
	Data   []byte `json:"data,omitempty"`  // of Set and Add
	Flags  uint8  `json:"flags,omitempty"` // of To, or of AVP where it is added: avp.FlagMandatory or none
}

func (e *Edit) check() error {
	target := e.AVP
	switch e.Action {
	case Drop, Set, Add:
	case Rename:
		if slices.Contains(required, e.To) && len(e.In) == 0 {
			return fmt.Errorf("AVP %v must be what it is", e.To)
		}
	default:
		return fmt.Errorf("action %q is not one of drop, rename, set, add", e.Action)
	}
	if len(e.In) == 0 && slices.Contains(required, target) {
		return fmt.Errorf("AVP %v must be what it is: no request is without it, or the bridge finds the answer by it", target)
	}
	return nil
}

// String returns the code, with the vendor's before it.
func (r Ref) String() string {
	if r.Vendor == 0 {
		return strconv.FormatUint(uint64(r.Code), 10)
	}
	return fmt.Sprintf("%d:%d", r.Vendor, r.Code)
}

// edit appends the AVPs of a request as the profile has them.
func (w *Writer) edit(b, avps []byte) []byte {
	start := len(b)
	for a, err := range avp.Scan(avps) {
		if err != nil {
			panic("dict: internal error: a request that was just written is malformed: " + err.Error())
		}
		if w.allowed == nil || w.allowed[Ref{a.Code, a.Vendor}] {
			b = a.Append(b)
		}
	}
	for i := range w.p.Edits {
		e := &w.p.Edits[i]
		whole := slices.Clone(b[start:])
		b = e.apply(b[:start], whole, e.In)
	}
	return b
}

// apply appends avps, those of a group that is still to be entered in, as e
// leaves them. Groups of the request that do not have the AVP stay as they
// are, and a group that is not there is not made.
func (e *Edit) apply(b, avps []byte, in []Ref) []byte {
	found := false
	for a, err := range avp.Scan(avps) {
		if err != nil {
			return append(b, avps...) // no group after all
		}
		at := Ref{a.Code, a.Vendor}
		switch {
		case len(in) > 0 && at == in[0]:
			group := 0
			b, group = avp.Begin(b, a.Code, a.Vendor, a.Flags&avp.FlagMandatory)
			b = e.apply(b, a.Data, in[1:])
			avp.End(b, group)
		case len(in) > 0 || at != e.AVP || e.Action == Add:
			b = a.Append(b)
		case e.Action == Drop:
		case e.Action == Rename:
			b = avp.Append(b, e.To.Code, e.To.Vendor, e.Flags, a.Data)
		case e.Action == Set:
			found = true
			b = avp.Append(b, a.Code, a.Vendor, a.Flags&avp.FlagMandatory, e.Data)
		}
	}
	if len(in) == 0 && (e.Action == Add || e.Action == Set && !found) {
		b = avp.Append(b, e.AVP.Code, e.AVP.Vendor, e.Flags, e.Data)
	}
	return b
}

// A Named is an AVP that a profile may name.
type Named struct {
	Ref
	Name      string
	Type      Type
	Mandatory bool
}

// Flags returns the AVP flags that n is sent with.
func (n Named) Flags() uint8 {
	if n.Mandatory {
		return avp.FlagMandatory
	}
	return 0
}

// Named returns the AVPs that a profile may name: those of a record, of NASREQ
// and of charging, and our own.
func (d *Dictionary) Named() iter.Seq[Named] {
	return func(yield func(Named) bool) {
		for _, part := range [][]definition{base, standard, access} {
			for _, s := range part {
				if !yield(Named{Ref{s.Code, 0}, s.Name, s.Type, s.Mandatory}) {
					return
				}
			}
		}
		for _, s := range charging {
			if !yield(Named{Ref{s.Code, s.Vendor}, s.Name, s.Type, s.Mandatory}) {
				return
			}
		}
		for _, s := range structural {
			if !yield(Named{Ref{s.Code, d.vendor}, namePrefix + s.Name, s.Type, false}) {
				return
			}
		}
	}
}

// Find returns the AVP of a name such as User-Name, or of its numbers: 32, or
// 10415:847 with the Vendor-Id. One that the dictionary does not have is of type
// OctetString. The error is ErrNoAVP.
func (d *Dictionary) Find(name string) (Named, error) {
	vendor, code, hasVendor := strings.Cut(name, ":")
	if !hasVendor {
		vendor, code = "0", name
	}
	v, err1 := strconv.ParseUint(vendor, 10, 32)
	c, err2 := strconv.ParseUint(code, 10, 32)
	numeric := err1 == nil && err2 == nil && c > 0
	ref := Ref{uint32(c), uint32(v)}
	for n := range d.Named() {
		if numeric && n.Ref == ref || !numeric && (strings.EqualFold(n.Name, name) || strings.EqualFold(n.Name, namePrefix+name)) {
			return n, nil
		}
	}
	if numeric {
		return Named{Ref: ref, Name: name, Type: OctetString}, nil
	}
	return Named{}, fmt.Errorf("dict: %q: %w", name, ErrNoAVP)
}

// ParseValue reads the data of an AVP of type t as people write it: a number,
// text, an address, a time of RFC 3339, or octets as hex digits after 0x.
func ParseValue(t Type, s string) ([]byte, error) {
	bad := func(want string) ([]byte, error) {
		return nil, fmt.Errorf("dict: %q is no value of type %v: write %s", s, t, want)
	}
	if octets, ok := strings.CutPrefix(s, "0x"); ok && (t == OctetString || t == Grouped) {
		b, err := hex.DecodeString(octets)
		if err != nil {
			return bad("an even number of hex digits after 0x")
		}
		return b, nil
	}
	switch t {
	case OctetString, UTF8String:
		return []byte(s), nil
	case DiameterIdentity:
		if !avp.ValidIdentity(s) {
			return bad("a fully qualified domain name")
		}
		return []byte(s), nil
	case Unsigned32, Enumerated:
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return bad("a number from 0 to 4294967295")
		}
		return binary.BigEndian.AppendUint32(nil, uint32(n)), nil
	case Integer32:
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return bad("a number of 32 bits")
		}
		return binary.BigEndian.AppendUint32(nil, uint32(n)), nil
	case Unsigned64:
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return bad("a number from 0 to 18446744073709551615")
		}
		return binary.BigEndian.AppendUint64(nil, n), nil
	case Integer64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return bad("a number of 64 bits")
		}
		return binary.BigEndian.AppendUint64(nil, uint64(n)), nil
	case Float32:
		f, err := strconv.ParseFloat(s, 32)
		if err != nil {
			return bad("a number")
		}
		return binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(f))), nil
	case Float64:
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return bad("a number")
		}
		return binary.BigEndian.AppendUint64(nil, math.Float64bits(f)), nil
	case Address:
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return bad("an address such as 192.0.2.1 or 2001:db8::1")
		}
		family := byte(1)
		if a.Is6() {
			family = 2
		}
		return append([]byte{0, family}, a.AsSlice()...), nil
	case Time:
		at, err := time.Parse(time.RFC3339, s)
		if err != nil || at.Before(avp.MinTime) || at.After(avp.MaxTime) {
			return bad("a time such as 2026-01-02T15:04:05Z")
		}
		return binary.BigEndian.AppendUint32(nil, uint32(at.Unix()+ntpUnix)), nil
	case Grouped:
		return bad("the AVPs in it as hex digits after 0x")
	}
	return bad("nothing: the type can't be set")
}

// Convertible reports whether the data of an AVP of type from may go into one
// of type to.
func Convertible(from, to Type) bool {
	text := func(t Type) bool { return t == UTF8String || t == DiameterIdentity }
	number := func(t Type) bool { return t == Unsigned32 || t == Enumerated || t == Integer32 }
	switch {
	case from == to, to == OctetString:
		return true
	case to == UTF8String:
		return text(from)
	case number(to):
		return number(from)
	}
	return false
}
