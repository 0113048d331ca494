package users

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Ports are the transport ports of a shared address that one user has: ranges
// in ascending order, such as "1024-2047 4096-5119" or "53". "" is all ports
// of an address that is not shared.
type Ports string

// A PortRange holds the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// maxRanges bounds the ranges of one user: a port set of RFC 7597 with four
// bits of offset has 15.
const maxRanges = 4096

var errPorts = errors.New("are no ports: ranges such as 1024-2047 4096-5119 are expected, or a port set such as psid:6/8/52 (RFC 7597, Section 5.1)")

// ParsePorts reads ranges in any order, separated by spaces or semicolons, or
// a port set of RFC 7597, Section 5.1 (the parameters of RFC 7753 and lw4o6),
// written psid:OFFSET/LENGTH/PSID: of the 16 bits of a port, OFFSET precede
// the LENGTH bits that are the PSID. With an offset above 0 the ports whose
// offset bits are all zero belong to nobody.
func ParsePorts(s string) (Ports, error) {
	if set, ok := strings.CutPrefix(s, "psid:"); ok {
		ranges, err := portSet(set)
		if err != nil {
			return "", err
		}
		return newPorts(ranges)
	}
	var ranges []PortRange
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ';' || r == '\t' }) {
		first, last, ok := strings.Cut(f, "-")
		if !ok {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || a > b {
			return "", errPorts
		}
		ranges = append(ranges, PortRange{uint16(a), uint16(b)})
	}
	return newPorts(ranges)
}

func portSet(s string) ([]PortRange, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return nil, errPorts
	}
	var v [3]uint64
	for i, part := range parts {
		var err error
		if v[i], err = strconv.ParseUint(part, 10, 16); err != nil {
			return nil, errPorts
		}
	}
	offset, length, psid := v[0], v[1], v[2]
	if offset > 15 || length < 1 || offset+length > 16 || psid >= 1<<length {
		return nil, errPorts
	}
	contiguous := 16 - offset - length
	first := uint64(1)
	if offset == 0 {
		first = 0
	}
	var ranges []PortRange
	for i := first; i < 1<<offset; i++ {
		port := i<<(16-offset) | psid<<contiguous
		ranges = append(ranges, PortRange{uint16(port), uint16(port + 1<<contiguous - 1)})
	}
	return ranges, nil
}

// newPorts returns ranges in order, those that touch made one.
func newPorts(ranges []PortRange) (Ports, error) {
	slices.SortFunc(ranges, func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	merged := ranges[:0]
	for _, r := range ranges {
		if n := len(merged); n > 0 && uint32(r.First) <= uint32(merged[n-1].Last)+1 {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	if len(merged) > maxRanges {
		return "", fmt.Errorf("are %d ranges: at most %d are allowed", len(merged), maxRanges)
	}
	var b []byte
	for i, r := range merged {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendUint(b, uint64(r.First), 10)
		if r.Last != r.First {
			b = append(b, '-')
			b = strconv.AppendUint(b, uint64(r.Last), 10)
		}
	}
	return Ports(b), nil
}

// Ranges returns the ranges, none if all ports are meant.
func (p Ports) Ranges() []PortRange {
	var ranges []PortRange
	for f := range strings.FieldsSeq(string(p)) {
		first, last, ok := strings.Cut(f, "-")
		if !ok {
			last = first
		}
		a, _ := strconv.ParseUint(first, 10, 16)
		b, _ := strconv.ParseUint(last, 10, 16)
		ranges = append(ranges, PortRange{uint16(a), uint16(b)})
	}
	return ranges
}

// check returns an error if p is not as ParsePorts returns it.
func (p Ports) check() error {
	if p == "" {
		return nil
	}
	if normal, err := ParsePorts(string(p)); err != nil {
		return err
	} else if normal != p {
		return errPorts
	}
	return nil
}
