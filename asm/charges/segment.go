package charges

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/internal/octets"
)

// A segment holds the charges of an interval, or of a part of it.
type segment struct {
	number uint64
	begun  int64 // Unix milliseconds, on the pipeline's clock
	latest int64 // latest end of its charges
	data   []byte

	head   int      // octets of data before the first item
	names  []string // classes and address spaces, as data introduces them
	last   string   // the latest Session-Id
	pieces []int    // offsets of what the store has
	stored int      // octets of that
}

// segmentVersion is the first octet of a segment.
const segmentVersion = 2

// What an item of a segment is: the low bits of its first octet. The others
// are of a charge, but for itemMoved.
const (
	itemCharge = iota
	itemMark
	itemName

	itemKind      = 3
	itemIPv6      = 1 << 2
	itemShared    = 1 << 3
	itemEstimated = 1 << 4
	itemVRF       = 1 << 5
	itemLayer     = 6 // shift

	itemMoved = 1 << 2 // of a mark
)

func newSegment(number uint64, begun int64) *segment {
	g := &segment{number: number, begun: begun}
	g.data = binary.AppendVarint(append(g.data, segmentVersion), begun)
	g.head = len(g.data)
	return g
}

func (g *segment) addCharge(c *Charge) {
	class := g.name(c.Class) << 2
	if c.OfBinding {
		class |= 1
	}
	if c.Moved {
		class |= 2
	}
	// Whatever is no single layer stays none in any set.
	kind := byte(itemCharge) | byte(min(c.Layers, acct.AtNetwork|acct.AtLink))<<itemLayer
	vrf := uint64(0)
	if c.VRF != "" {
		kind |= itemVRF
		vrf = g.name(c.VRF)
	}
	if c.Addr.Is6() {
		kind |= itemIPv6
	}
	if c.Shared {
		kind |= itemShared
	}
	if c.Estimated {
		kind |= itemEstimated
	}
	b := append(g.data, kind)
	b = binary.AppendUvarint(b, c.Session)
	b = binary.AppendVarint(b, c.End-g.begun)
	if c.Addr.Is6() {
		a := c.Addr.As16()
		b = append(b, a[:]...)
	} else {
		a := c.Addr.As4()
		b = append(b, a[:]...)
	}
	if c.VRF != "" {
		b = binary.AppendUvarint(b, vrf)
	}
	if c.Shared {
		b = binary.BigEndian.AppendUint16(b, c.Port)
		b = append(b, c.Protocol)
		b = octets.AppendAddr(b, c.Remote.Addr())
		b = binary.BigEndian.AppendUint16(b, c.Remote.Port())
	}
	b = binary.AppendUvarint(b, class)
	for _, v := range [...]uint64{c.Usage.InputOctets, c.Usage.OutputOctets, c.Usage.InputPackets, c.Usage.OutputPackets} {
		b = binary.AppendUvarint(b, v)
	}
	g.data, g.latest = b, max(g.latest, c.End)
}

func (g *segment) addMark(k *Mark) {
	var classes []uint64
	for _, name := range k.Classes {
		classes = append(classes, g.name(name))
	}
	same := 0
	for same < min(len(g.last), len(k.SessionID)) && g.last[same] == k.SessionID[same] {
		same++
	}
	kind := byte(itemMark)
	if k.Moved {
		kind |= itemMoved
	}
	b := append(g.data, kind)
	b = binary.AppendUvarint(b, k.Session)
	b = binary.AppendUvarint(b, uint64(same))
	b = octets.AppendString(b, k.SessionID[same:])
	b = binary.AppendUvarint(b, uint64(k.Number))
	b = binary.AppendUvarint(b, uint64(len(classes)))
	for _, c := range classes {
		b = binary.AppendUvarint(b, c)
	}
	g.data, g.last = b, k.SessionID
}

// name returns the number of a name, which it introduces if need be. There are
// few.
func (g *segment) name(name string) uint64 {
	if i := slices.Index(g.names, name); i >= 0 {
		return uint64(i)
	}
	g.names = append(g.names, name)
	g.data = octets.AppendString(append(g.data, itemName), name)
	return uint64(len(g.names) - 1)
}

// each calls visit, or marked, for each item of g in order. What they are given
// is used again.
func (g *segment) each(visit func(*Charge), marked func(*Mark)) error {
	r := octets.NewReader(g.data)
	if r.Octet() != segmentVersion {
		r.Fail()
	}
	begun := r.Varint()
	var names []string
	name := func(i uint64) string {
		if i >= uint64(len(names)) {
			r.Fail()
			return ""
		}
		return names[i]
	}
	last := ""
	var c Charge
	var k Mark
	for r.Len() > 0 {
		kind := r.Octet()
		switch kind & itemKind {
		case itemName:
			names = append(names, r.Text())
		case itemMark:
			k = Mark{Session: r.Uvarint(), Moved: kind&itemMoved != 0}
			same := r.Uvarint()
			if same > uint64(len(last)) {
				r.Fail()
				break
			}
			k.SessionID = last[:same] + r.Text()
			last = k.SessionID
			k.Number = uint32(r.Uvarint())
			for range r.Count() {
				k.Classes = append(k.Classes, name(r.Uvarint()))
			}
			if r.Err() == nil && marked != nil {
				marked(&k)
			}
		case itemCharge:
			c = Charge{Session: r.Uvarint(), Layers: acct.Layers(kind >> itemLayer), Estimated: kind&itemEstimated != 0}
			c.End = begun + r.Varint()
			size := uint64(4)
			if kind&itemIPv6 != 0 {
				size = 16
			}
			c.Addr, _ = netip.AddrFromSlice(r.Take(size))
			if kind&itemVRF != 0 {
				c.VRF = name(r.Uvarint())
			}
			if kind&itemShared != 0 {
				c.Shared = true
				c.Port, c.Protocol = r.Uint16(), r.Octet()
				a := r.Addr()
				c.Remote = netip.AddrPortFrom(a, r.Uint16())
			}
			class := r.Uvarint()
			c.Class, c.OfBinding, c.Moved = name(class>>2), class&1 != 0, class&2 != 0
			for _, v := range [...]*uint64{&c.Usage.InputOctets, &c.Usage.OutputOctets, &c.Usage.InputPackets, &c.Usage.OutputPackets} {
				*v = r.Uvarint()
			}
			if r.Err() == nil && visit != nil {
				visit(&c)
			}
		default:
			r.Fail()
		}
	}
	return r.Close()
}

// without returns g without the charges of those ordinals, which are sorted:
// the store has none of it yet.
func (g *segment) without(ordinals []int) (*segment, error) {
	kept := newSegment(g.number, g.begun)
	n := 0
	err := g.each(func(c *Charge) {
		if _, gone := slices.BinarySearch(ordinals, n); !gone {
			kept.addCharge(c)
		}
		n++
	}, kept.addMark)
	return kept, err
}

// keys returns the names of the pieces that the store has of g.
func (g *segment) keys() (keys []string) {
	for _, at := range g.pieces {
		keys = append(keys, g.key(at))
	}
	return keys
}

func (g *segment) key(at int) string { return fmt.Sprintf("%d/%d", g.number, at) }

// read returns g, of which only data and what is stored are known.
func (g *segment) read() (*segment, error) {
	r := octets.NewReader(g.data)
	r.Octet()
	read := newSegment(g.number, r.Varint())
	if err := g.each(read.addCharge, read.addMark); err != nil {
		return nil, err
	}
	if !bytes.Equal(read.data, g.data) {
		return nil, octets.ErrCorrupt
	}
	read.pieces, read.stored = g.pieces, g.stored
	return read, nil
}
