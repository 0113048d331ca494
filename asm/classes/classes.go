// Package classes finds the class of usage by rules that an operator sets, the
// first that matches.
package classes

import (
	"fmt"
	"net/netip"
	"slices"
)

// MaxRules bounds the rules that are looked through for each flow.
const MaxRules = 4096

// Directions of a Rule.
const (
	Input  = "input"  // from the user
	Output = "output" // to the user
)

// A Rule names the usage that it matches. Every condition that is set must
// hold.
type Rule struct {
	Name      string         `json:"name"`                 // of the class
	Prefixes  []netip.Prefix `json:"prefixes,omitempty"`   // the far side's address is in one of them
	DSCP      []uint8        `json:"dscp,omitempty"`       // 0 to 63
	Protocols []uint8        `json:"protocols,omitempty"`  // IP protocol numbers
	Ports     []PortRange    `json:"ports,omitempty"`      // the far side's port is in one of them
	Direction string         `json:"direction,omitempty"`  // Input or Output; "" for both
	Multicast bool           `json:"multicast,omitempty"`  // the far side's address is one of a group
	Internal  bool           `json:"internal,omitempty"`   // the far side is a user too
	ZeroRated bool           `json:"zero_rated,omitempty"` // no condition: the usage is to cost nothing
}

// A PortRange holds the ports from First to Last, both included.
type PortRange struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// maxName is the most octets of a class's name.
const maxName = 253

// Validate returns what is wrong with r, nil for nothing.
func (r *Rule) Validate() error {
	if r.Direction != "" && r.Direction != Input && r.Direction != Output {
		return fmt.Errorf("%q: direction %q: want %q or %q", r.Name, r.Direction, Input, Output)
	}
	if r.Name == "" || len(r.Name) > maxName {
		return fmt.Errorf("name %q: want 1 to %d octets", r.Name, maxName)
	}
	for _, p := range r.Prefixes {
		if !p.IsValid() {
			return fmt.Errorf("%q: prefixes: invalid prefix", r.Name)
		}
	}
	for _, d := range r.DSCP {
		if d > 63 {
			return fmt.Errorf("%q: dscp %d: want 0 to 63", r.Name, d)
		}
	}
	for _, p := range r.Ports {
		if p.Last < p.First {
			return fmt.Errorf("%q: ports %d-%d: want the lower port first", r.Name, p.First, p.Last)
		}
	}
	return nil
}

// An Index names a class within a pipeline.
type Index uint16

// None stands for the class of what no rule matches.
const None Index = 0xffff

// Usage is what rules see of the usage of one user.
type Usage struct {
	Remote         netip.Addr // the far side
	Port           uint16     // likewise
	Protocol, DSCP uint8
	Input          bool // it is from the user
	Internal       bool // the far side is a user too
}

// A Classifier finds the class of usage by rules in their order. The zero
// Classifier has none.
type Classifier struct {
	rules       []rule
	other       Index          // of what no rule matches and no binding classifies
	directional bool           // some rule is of one direction
	zeroRated   map[Index]bool // what is to cost nothing
}

// A rule is a Rule made ready for the hot path.
type rule struct {
	class    Index
	remote   []netip.Prefix // empty: any
	ports    []PortRange    // empty: any
	dscp     uint64         // a bit for each code point
	protocol [4]uint64      // a bit for each protocol number
	input    bool           // usage from the user
	output   bool           // usage to the user

	multicast, internal bool // required of the far side
}

// NewClassifier compiles rules, which are valid; other is the class of what none
// matches, and index returns the Index of a class.
func NewClassifier(rules []Rule, other string, index func(name string) Index) Classifier {
	c := Classifier{other: index(other), zeroRated: make(map[Index]bool)}
	for _, of := range rules {
		r := rule{
			class: index(of.Name), remote: of.Prefixes, ports: of.Ports,
			input: of.Direction != Output, output: of.Direction != Input,
			multicast: of.Multicast, internal: of.Internal,
		}
		c.directional = c.directional || !r.input || !r.output
		if of.ZeroRated {
			c.zeroRated[r.class] = true
		}
		for _, d := range of.DSCP {
			r.dscp |= 1 << (d & 63)
		}
		if len(of.DSCP) == 0 {
			r.dscp = ^uint64(0)
		}
		for _, p := range of.Protocols {
			r.protocol[p/64] |= 1 << (p % 64)
		}
		if len(of.Protocols) == 0 {
			r.protocol = [4]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
		}
		c.rules = append(c.rules, r)
	}
	return c
}

// Directional reports whether some rule is of one direction.
func (c *Classifier) Directional() bool { return c.directional }

// ZeroRated reports whether usage of a class is to cost nothing.
func (c *Classifier) ZeroRated(class Index) bool { return c.zeroRated[class] }

// Find returns the class of u; other, or where that is None the classifier's
// own, if no rule matches.
func (c *Classifier) Find(u *Usage, other Index) Index {
	for i := range c.rules {
		if c.rules[i].matches(u) {
			return c.rules[i].class
		}
	}
	if other == None {
		return c.other
	}
	return other
}

func (r *rule) matches(u *Usage) bool {
	if u.Input && !r.input || !u.Input && !r.output || r.internal && !u.Internal || r.multicast && !u.Remote.IsMulticast() {
		return false
	}
	if r.dscp>>(u.DSCP&63)&1 == 0 || r.protocol[u.Protocol/64]>>(u.Protocol%64)&1 == 0 {
		return false
	}
	return r.hasPort(u.Port) && r.hasRemote(u.Remote)
}

func (r *rule) hasPort(port uint16) bool {
	for _, p := range r.ports {
		if p.First <= port && port <= p.Last {
			return true
		}
	}
	return len(r.ports) == 0
}

func (r *rule) hasRemote(a netip.Addr) bool {
	return len(r.remote) == 0 || slices.ContainsFunc(r.remote, func(p netip.Prefix) bool { return p.Contains(a) })
}
