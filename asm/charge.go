package asm

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/internal/octets"
)

// A charge is usage of one flow as it was accounted to one side's user, with
// what it takes to ask again whose it was.
type charge struct {
	session uint64 // whose it was accounted to; 0 for nobody any more
	end     int64  // the moment that decides, Unix milliseconds

	addr     netip.Addr // the user's
	vrf      string
	shared   bool // the following are known, as some address was shared by ports
	port     uint16
	protocol uint8
	remote   netip.AddrPort

	class     string
	ofBinding bool // the class is the binding's, as no rule had one
	usage     acct.Usage
	estimated bool
	layer     layers
	moved     bool // by a correction
}

// A recordMark says that the charges of a session before it are in a record:
// those that a correction moved in the correction's, the others in any other.
type recordMark struct {
	session   uint64
	moved     bool
	sessionID string
	number    uint32
	classes   []string // those in the record, nil for all
}

// charges remember what was accounted, in order, for as long as a late binding
// may contradict it. They are pieces of text to which is only appended, so
// that a checkpoint stores what has come since the last.
//
// The zero charges are off.
type charges struct {
	window   int64 // how long they are remembered, milliseconds; 0 for off
	limit    int   // octets of all segments
	segments []*segment
	next     uint64 // number of the next segment
	size     int    // octets of all segments
	newest   int64  // latest end of any charge, Unix milliseconds
	lost     int64  // latest end of any that was forgotten since the start
	stale    []string

	doubts  []users.Doubt // since the last look
	changed bool          // doubts, since the last checkpoint
}

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

// segmentParts is the least number of segments that the octets of all are
// spread over: as many as that are forgotten at a time.
const segmentParts = 16

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

// on reports whether charges are remembered.
func (x *charges) on() bool { return x.window != 0 }

// configure sets how long and in how many octets charges are remembered.
func (x *charges) configure(window int64, limit int) {
	x.window, x.limit = window, limit
	if window == 0 && len(x.segments) > 0 {
		x.forgetAll()
	}
	if window == 0 && len(x.doubts) > 0 {
		x.doubts, x.changed = nil, true
	}
}

// current returns the segment that is written to.
func (x *charges) current(now int64) *segment {
	if n := len(x.segments); n > 0 && len(x.segments[n-1].data) < x.limit/segmentParts {
		return x.segments[n-1]
	}
	return x.begin(now)
}

// begin begins a segment.
func (x *charges) begin(now int64) *segment {
	g := newSegment(x.next, now)
	x.next++
	x.segments = append(x.segments, g)
	x.size += len(g.data)
	return g
}

func newSegment(number uint64, begun int64) *segment {
	g := &segment{number: number, begun: begun}
	g.data = binary.AppendVarint(append(g.data, segmentVersion), begun)
	g.head = len(g.data)
	return g
}

// endSegment begins a new segment unless nothing has come into the last one.
func (x *charges) endSegment(now int64) {
	if n := len(x.segments); n > 0 && len(x.segments[n-1].data) > x.segments[n-1].head {
		x.begin(now)
	}
}

// forget forgets the segments that ended too long ago, and what came before: a
// clock that was set back has left later times there.
func (x *charges) forget(now int64) {
	for i := len(x.segments) - 1; i > 0; i-- {
		if x.segments[i].begun <= now-x.window {
			x.drop(i)
			return
		}
	}
}

// forgetAll forgets whatever was charged so far.
func (x *charges) forgetAll() {
	x.drop(len(x.segments))
	x.next = 0 // as it is when none is restored
}

// bound forgets the oldest segments beyond the limit.
func (x *charges) bound() {
	for x.size > x.limit && len(x.segments) > 1 {
		x.drop(1)
	}
}

// drop forgets the oldest n segments.
func (x *charges) drop(n int) {
	for _, g := range x.segments[:n] {
		x.size -= len(g.data)
		x.lost = max(x.lost, g.latest)
		x.stale = append(x.stale, g.keys()...)
	}
	if x.segments = slices.Delete(x.segments, 0, n); n > 0 {
		x.newest = 0
		for _, g := range x.segments {
			x.newest = max(x.newest, g.latest)
		}
	}
}

// add remembers c.
func (x *charges) add(c *charge, now int64) {
	g := x.current(now)
	before := len(g.data)
	g.addCharge(c)
	x.size += len(g.data) - before
	x.newest = max(x.newest, c.end)
	x.bound()
}

// mark notes which record the charges of a session are in.
func (x *charges) mark(k *recordMark, now int64) {
	g := x.current(now)
	before := len(g.data)
	g.addMark(k)
	x.size += len(g.data) - before
	x.bound()
}

// markAll notes which of records, all that one was split into, the charges of a
// session are in: those that were moved, or the others.
func (x *charges) markAll(session uint64, moved bool, records []acct.Record, now int64) {
	for i := range records {
		r := &records[i]
		k := recordMark{session: session, moved: moved, sessionID: r.SessionID, number: r.Number}
		if len(records) > 1 {
			for _, c := range r.Classes {
				k.classes = append(k.classes, c.Class)
			}
		}
		x.mark(&k, now)
	}
}

// replace puts g in the place of segment number i of those remembered.
func (x *charges) replace(i int, g *segment) {
	before := x.segments[i]
	x.stale = append(x.stale, before.keys()...)
	x.size += len(g.data) - len(before.data)
	x.segments[i] = g
}

// covers reports whether all charges that end after a moment are remembered.
func (x *charges) covers(moment int64) bool { return x.on() && moment >= x.lost }

// correctable reports whether all charges that end after a moment can be
// corrected: they are remembered, and so is who held their addresses.
func (m *Module) correctable(moment int64) bool {
	return m.charges.covers(moment) && moment >= m.horizon()
}

// horizon returns the moment after which charges must end to be corrected, Unix
// milliseconds: of what ended until then somebody may be forgotten who held the
// address, or was charged for it. It does not fall, so no charge is asked about
// once more without news.
func (m *Module) horizon() int64 { return m.forgotten + m.settings.UserTolerance.Milliseconds() }

func (g *segment) addCharge(c *charge) {
	class := g.name(c.class) << 2
	if c.ofBinding {
		class |= 1
	}
	if c.moved {
		class |= 2
	}
	// Whatever is no single layer stays none in any set.
	kind := byte(itemCharge) | byte(min(c.layer, layerNetwork|layerLink))<<itemLayer
	vrf := uint64(0)
	if c.vrf != "" {
		kind |= itemVRF
		vrf = g.name(c.vrf)
	}
	if c.addr.Is6() {
		kind |= itemIPv6
	}
	if c.shared {
		kind |= itemShared
	}
	if c.estimated {
		kind |= itemEstimated
	}
	b := append(g.data, kind)
	b = binary.AppendUvarint(b, c.session)
	b = binary.AppendVarint(b, c.end-g.begun)
	if c.addr.Is6() {
		a := c.addr.As16()
		b = append(b, a[:]...)
	} else {
		a := c.addr.As4()
		b = append(b, a[:]...)
	}
	if c.vrf != "" {
		b = binary.AppendUvarint(b, vrf)
	}
	if c.shared {
		b = binary.BigEndian.AppendUint16(b, c.port)
		b = append(b, c.protocol)
		b = octets.AppendAddr(b, c.remote.Addr())
		b = binary.BigEndian.AppendUint16(b, c.remote.Port())
	}
	b = binary.AppendUvarint(b, class)
	for _, v := range [...]uint64{c.usage.InputOctets, c.usage.OutputOctets, c.usage.InputPackets, c.usage.OutputPackets} {
		b = binary.AppendUvarint(b, v)
	}
	g.data, g.latest = b, max(g.latest, c.end)
}

func (g *segment) addMark(k *recordMark) {
	var classes []uint64
	for _, name := range k.classes {
		classes = append(classes, g.name(name))
	}
	same := 0
	for same < min(len(g.last), len(k.sessionID)) && g.last[same] == k.sessionID[same] {
		same++
	}
	kind := byte(itemMark)
	if k.moved {
		kind |= itemMoved
	}
	b := append(g.data, kind)
	b = binary.AppendUvarint(b, k.session)
	b = binary.AppendUvarint(b, uint64(same))
	b = octets.AppendString(b, k.sessionID[same:])
	b = binary.AppendUvarint(b, uint64(k.number))
	b = binary.AppendUvarint(b, uint64(len(classes)))
	for _, c := range classes {
		b = binary.AppendUvarint(b, c)
	}
	g.data, g.last = b, k.sessionID
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
func (g *segment) each(visit func(*charge), marked func(*recordMark)) error {
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
	var c charge
	var k recordMark
	for r.Len() > 0 {
		kind := r.Octet()
		switch kind & itemKind {
		case itemName:
			names = append(names, r.Text())
		case itemMark:
			k = recordMark{session: r.Uvarint(), moved: kind&itemMoved != 0}
			same := r.Uvarint()
			if same > uint64(len(last)) {
				r.Fail()
				break
			}
			k.sessionID = last[:same] + r.Text()
			last = k.sessionID
			k.number = uint32(r.Uvarint())
			for range r.Count() {
				k.classes = append(k.classes, name(r.Uvarint()))
			}
			if r.Err() == nil && marked != nil {
				marked(&k)
			}
		case itemCharge:
			c = charge{session: r.Uvarint(), layer: layers(kind >> itemLayer), estimated: kind&itemEstimated != 0}
			c.end = begun + r.Varint()
			size := uint64(4)
			if kind&itemIPv6 != 0 {
				size = 16
			}
			c.addr, _ = netip.AddrFromSlice(r.Take(size))
			if kind&itemVRF != 0 {
				c.vrf = name(r.Uvarint())
			}
			if kind&itemShared != 0 {
				c.shared = true
				c.port, c.protocol = r.Uint16(), r.Octet()
				a := r.Addr()
				c.remote = netip.AddrPortFrom(a, r.Uint16())
			}
			class := r.Uvarint()
			c.class, c.ofBinding, c.moved = name(class>>2), class&1 != 0, class&2 != 0
			for _, v := range [...]*uint64{&c.usage.InputOctets, &c.usage.OutputOctets, &c.usage.InputPackets, &c.usage.OutputPackets} {
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
	err := g.each(func(c *charge) {
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

// doubtsKey names the state of the doubts.
const doubtsKey = "doubts"

// put hands out what changed since the last call.
func (x *charges) put(put func(kind, key string, value []byte)) {
	fresh := make(map[string][]byte)
	for _, g := range x.segments {
		if len(g.data) > g.stored {
			fresh[g.key(g.stored)] = g.data[g.stored:len(g.data):len(g.data)]
			g.pieces = append(g.pieces, g.stored)
			g.stored = len(g.data)
		}
	}
	for _, key := range x.stale {
		if fresh[key] == nil {
			put(stateCharge, key, nil)
		}
	}
	x.stale = x.stale[:0]
	for _, key := range slices.Sorted(maps.Keys(fresh)) {
		put(stateCharge, key, fresh[key])
	}
	if !x.changed {
		return
	}
	x.changed = false
	if len(x.doubts) == 0 {
		put(stateCharge, doubtsKey, nil)
		return
	}
	b := binary.AppendUvarint(nil, uint64(len(x.doubts)))
	for _, d := range x.doubts {
		b = octets.AppendString(b, d.VRF)
		b = octets.AppendPrefix(b, d.Prefix)
		b = binary.AppendVarint(b, d.From)
		b = binary.AppendVarint(b, d.Until)
	}
	put(stateCharge, doubtsKey, b)
}

// restoreCharges takes in what put handed out, in any order. What is damaged is
// forgotten: it is but for corrections, and accounting goes on without.
func (m *Module) restoreCharges(state []acct.State) {
	x := &m.charges
	type stored struct {
		key    string
		number uint64
		at     int
		value  []byte
	}
	var pieces []stored
	for _, s := range state {
		if s.Kind != stateCharge {
			continue
		}
		if s.Key == doubtsKey {
			if err := x.restoreDoubts(s.Value); err != nil {
				m.log.Error("what bindings contradict is damaged: all that is remembered as charged is looked through", "error", err)
			}
			continue
		}
		number, at, _ := strings.Cut(s.Key, "/")
		p := stored{key: s.Key, value: s.Value}
		var err1, err2 error
		p.number, err1 = strconv.ParseUint(number, 10, 64)
		p.at, err2 = strconv.Atoi(at)
		if err := cmp.Or(err1, err2); err != nil {
			x.stale = append(x.stale, s.Key)
			m.chargesDamaged(s.Key, err)
			continue
		}
		pieces = append(pieces, p)
	}
	slices.SortFunc(pieces, func(a, b stored) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.at, b.at))
	})
	for len(pieces) > 0 {
		g := &segment{number: pieces[0].number}
		var keys []string
		var err error
		for len(pieces) > 0 && pieces[0].number == g.number {
			p := pieces[0]
			pieces = pieces[1:]
			if p.at != len(g.data) {
				err = ErrCorrupt
			}
			keys = append(keys, p.key)
			g.data = append(g.data, p.value...)
			g.pieces, g.stored = append(g.pieces, p.at), len(g.data)
		}
		x.next = g.number + 1
		var read *segment
		if err == nil {
			read, err = g.read()
		}
		if err != nil {
			x.stale = append(x.stale, keys...)
			m.chargesDamaged(keys[0], err)
			continue
		}
		x.segments = append(x.segments, read)
		x.size += len(read.data)
		x.newest = max(x.newest, read.latest)
	}
}

// chargesDamaged notes that a segment of charges is damaged in the store, which has
// it under key among others.
func (m *Module) chargesDamaged(key string, err error) {
	m.charges.lost = max(m.charges.lost, m.millis())
	m.log.Error("what was charged is damaged in the store and forgotten: users.correct reaches less far back", "key", key, "error", err)
}

// read returns g, of which only data and what is stored are known.
func (g *segment) read() (*segment, error) {
	r := octets.NewReader(g.data)
	r.Octet()
	read := newSegment(g.number, r.Varint())
	if err := g.each(read.addCharge, read.addMark); err != nil {
		return nil, err
	}
	if !bytes.Equal(read.data, g.data) {
		return nil, ErrCorrupt
	}
	read.pieces, read.stored = g.pieces, g.stored
	return read, nil
}

// restoreDoubts takes in the doubts, or doubts everything if they are damaged.
func (x *charges) restoreDoubts(data []byte) error {
	r := octets.NewReader(data)
	for range r.Count() {
		x.doubts = append(x.doubts, users.Doubt{VRF: r.Text(), Prefix: r.Prefix(), From: r.Varint(), Until: r.Varint()})
	}
	err := r.Close()
	if err != nil {
		x.doubts, x.changed = []users.Doubt{{}}, true
	}
	return err
}
