package asm

import (
	"net/netip"
	"slices"
)

// maxClasses bounds the rules of Settings.
const maxClasses = 4096

// classIndex names a class within a Module: an index of Module.classNames.
type classIndex uint16

// noClass stands for the default class of the settings.
const noClass classIndex = 0xffff

// A classifier finds the class of a flow by rules in their order.
type classifier struct {
	rules       []classRule
	other       classIndex          // of what no rule matches and no binding classifies
	directional bool                // some rule is of one direction
	zeroRated   map[classIndex]bool // what is to cost nothing
}

// A classRule is a Class made ready for the hot path.
type classRule struct {
	class    classIndex
	remote   []netip.Prefix // empty: any
	ports    []PortRange    // empty: any
	dscp     uint64         // a bit for each code point
	protocol [4]uint64      // a bit for each protocol number
	input    bool           // usage from the user
	output   bool           // usage to the user

	multicast, internal bool // required of the far side
}

// newClassifier compiles the rules of s; index returns the number of a class.
func newClassifier(s Settings, index func(name string) classIndex) classifier {
	c := classifier{other: index(s.ClassDefault), zeroRated: make(map[classIndex]bool)}
	for _, class := range s.Classes {
		r := classRule{
			class: index(class.Name), remote: class.Prefixes, ports: class.Ports,
			input: class.Direction != DirectionOutput, output: class.Direction != DirectionInput,
			multicast: class.Multicast, internal: class.Internal,
		}
		c.directional = c.directional || !r.input || !r.output
		if class.ZeroRated {
			c.zeroRated[r.class] = true
		}
		for _, d := range class.DSCP {
			r.dscp |= 1 << (d & 63)
		}
		if len(class.DSCP) == 0 {
			r.dscp = ^uint64(0)
		}
		for _, p := range class.Protocols {
			r.protocol[p/64] |= 1 << (p % 64)
		}
		if len(class.Protocols) == 0 {
			r.protocol = [4]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
		}
		c.rules = append(c.rules, r)
	}
	return c
}

// zeroRated reports whether usage of a class is to cost nothing.
func (s *Settings) zeroRated(class string) bool {
	return slices.ContainsFunc(s.Classes, func(c Class) bool { return c.Name == class && c.ZeroRated })
}

// find returns the class of usage of f, whose user's far side is remote and
// port, from the user (input) or not; other if no rule matches.
func (c *classifier) find(f *flow, remote netip.Addr, port uint16, input bool, other classIndex) classIndex {
	for i := range c.rules {
		if c.rules[i].matches(f, remote, port, input) {
			return c.rules[i].class
		}
	}
	if other == noClass {
		return c.other
	}
	return other
}

func (r *classRule) matches(f *flow, remote netip.Addr, port uint16, input bool) bool {
	if input && !r.input || !input && !r.output || r.internal && !f.internal || r.multicast && !remote.IsMulticast() {
		return false
	}
	if r.dscp>>(f.dscp&63)&1 == 0 || r.protocol[f.protocol/64]>>(f.protocol%64)&1 == 0 {
		return false
	}
	return matchesPort(r.ports, port) && matchesPrefix(r.remote, remote)
}

func matchesPort(ranges []PortRange, port uint16) bool {
	for _, p := range ranges {
		if p.First <= port && port <= p.Last {
			return true
		}
	}
	return len(ranges) == 0
}

func matchesPrefix(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return len(prefixes) == 0
}
