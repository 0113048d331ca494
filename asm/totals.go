package asm

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/internal/octets"
	"tollbridge/ipfix"
)

// flowKeys are the Information Elements that tell flows apart whose counters
// are totals. The time at which a flow started is one of them, as it was sent:
// another flow with the same addresses and ports has a total of its own.
var flowKeys = []uint16{
	ipfix.SourceIPv4Address, ipfix.DestinationIPv4Address, ipfix.SourceIPv6Address, ipfix.DestinationIPv6Address,
	ipfix.SourceTransportPort, ipfix.DestinationTransportPort, 180, 181, 182, 183, // of UDP and TCP
	ipfix.ProtocolIdentifier, ipfix.IpClassOfService, ipfix.IpDiffServCodePoint, ipfix.FlowLabelIPv6,
	32, 139, 176, 177, 178, 179, // ICMP type and code
	ipfix.IngressInterface, ipfix.EgressInterface, 252, 253, // physical interfaces
	ipfix.FlowDirection, ipfix.FlowId, ipfix.VlanId, ipfix.PostVlanId, 243, 245, 254, 255, // IEEE 802.1Q
	ipfix.SourceMacAddress, ipfix.PostDestinationMacAddress, 80, 81,
	ipfix.IngressVRFID, ipfix.EgressVRFID, ipfix.ObservationPointId, ipfix.SamplerId, ipfix.SelectorId,
	225, 226, 227, 228, 281, 282, // after network address translation
	ipfix.UserName, ipfix.ApplicationId,
	ipfix.FlowStartSysUpTime, ipfix.FlowStartSeconds, ipfix.FlowStartMilliseconds, ipfix.FlowStartMicroseconds, ipfix.FlowStartNanoseconds,
}

// A total is what a flow's counters were last.
type total struct {
	key    dedup.Identity
	values [counterCount]uint64
	end    int64  // of the flow as it was last reported, Unix milliseconds
	used   uint64 // ascending: when it was last used
	over   bool   // the flow has ended, by its flowEndReason
	dirty  bool   // listed in totals.dirty
	gone   bool

	older, newer *total
}

// totals are those of one exporter, in the order of their use.
type totals struct {
	byKey          map[dedup.Identity]*total
	oldest, newest *total
	next           uint64 // total.used
	horizon        int64  // the latest end of a flow that was forgotten while it may have gone on, Unix milliseconds

	dirty   []*total
	removed []dedup.Identity // since the last checkpoint
	pieces  []totalsPiece    // stored
	size    int              // octets of them
	piece   uint64           // number of the latest
}

// A totalsPiece is a part of the totals as stored.
type totalsPiece struct {
	key  string
	size int
}

func newTotals() *totals { return &totals{byKey: make(map[dedup.Identity]*total)} }

// totals returns those of an exporter.
func (m *Module) totalsOf(exporter string) *totals {
	t := m.totals[exporter]
	if t == nil {
		t = newTotals()
		m.totals[exporter] = t
	}
	return t
}

// A sighting is a record with totals.
type sighting struct {
	key        dedup.Identity
	values     [counterCount]uint64
	start, end int64
	over       bool
}

// deltasOnly returns what s adds without its totals.
func (s *sighting) deltasOnly(c *counters) (delta [counterCount]uint64) {
	for i := range delta {
		if c.totals>>i&1 == 0 {
			delta[i] = s.values[i]
		}
	}
	return delta
}

// delta returns what s adds, by the totals of c, to what its flow was known to
// have: for its first record all of it. A counter that falls has wrapped if it
// is the only one, was in the upper half of its range and moved by less than
// half; or else the exporter began anew, and all counts again. A record that
// ends no later than what is known but has less is an old one, and adds
// nothing. Known is false if s adds what a forgotten flow may have had already.
func (t *totals) delta(c *counters, s *sighting) (delta [counterCount]uint64, known bool) {
	delta = s.values
	e := t.byKey[s.key]
	if e == nil {
		return delta, t.horizon == 0 || s.start > t.horizon
	}
	fell, wrapped := 0, false
	for i := range delta {
		if c.totals>>i&1 == 0 || s.values[i] >= e.values[i] {
			continue
		}
		fell++
		half := uint64(1) << (c.widths[i] - 1)
		moved := (s.values[i] - e.values[i]) & (2*half - 1)
		wrapped = e.values[i] >= half && moved < half
	}
	old := fell > 0 && s.end <= e.end
	anew := fell > 1 || fell == 1 && !wrapped
	for i := range delta {
		switch {
		case c.totals>>i&1 == 0 || anew && !old:
		case old:
			delta[i] = 0
		default:
			delta[i] = (s.values[i] - e.values[i]) & (1<<c.widths[i] - 1)
		}
	}
	return delta, true
}

// put makes s what is known of its flow, forgetting the one least recently
// used if there are more than most. Of an old record only its use is noted.
func (t *totals) put(c *counters, s *sighting, most int) (forgotten int) {
	e := t.byKey[s.key]
	if e == nil {
		e = &total{key: s.key}
		t.byKey[s.key] = e
	} else {
		t.unlink(e)
	}
	less := false
	for i := range s.values {
		less = less || c.totals>>i&1 != 0 && s.values[i] < e.values[i]
	}
	if !less || s.end > e.end {
		e.values, e.end, e.over = s.values, max(s.end, e.end), s.over
	}
	e.used = t.next
	t.next++
	t.link(e)
	if !e.dirty {
		e.dirty = true
		t.dirty = append(t.dirty, e)
	}
	return t.bound(most)
}

// bound forgets the totals least recently used beyond most. What is forgotten
// of a flow that may go on raises the horizon.
func (t *totals) bound(most int) (forgotten int) {
	for len(t.byKey) > most {
		e := t.oldest
		if !e.over {
			t.horizon = max(t.horizon, e.end)
			forgotten++
		}
		t.unlink(e)
		delete(t.byKey, e.key)
		e.gone = true
		t.removed = append(t.removed, e.key)
	}
	return forgotten
}

func (t *totals) unlink(e *total) {
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		t.oldest = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		t.newest = e.older
	}
	e.older, e.newer = nil, nil
}

// link makes e the newest.
func (t *totals) link(e *total) {
	if e.older = t.newest; e.older != nil {
		e.older.newer = e
	} else {
		t.oldest = e
	}
	t.newest = e
}

// settle turns the totals of the first n flows of the chunk, records of set and
// p, into what they add, and returns how many flows are left: those that add
// more than can be are rejected. A duplicate adds nothing. The totals of a
// record that ends ahead of the clock add nothing either, and are not
// remembered: its end tells nothing of the order of reports, and a later one
// says it again. So may its copy, below the window: what adds to the totals of
// its flow was not counted, whatever came before.
func (m *Module) settle(set *ipfix.DataSet, p *plan, n int, row *acct.LedgerRow, key acct.LedgerKey) (kept int, received acct.Count) {
	c := &m.decoder
	t := m.totalsOf(m.identityOf(key.Exporter))
	for i := range n {
		f, s := &c.flows[i], &c.sightings[i]
		v, known := c.verdicts[i], true
		var delta [counterCount]uint64
		s.end = f.end
		switch v {
		case dedup.Duplicate:
		case dedup.AheadOfClock:
			delta = s.deltasOnly(&p.counters)
		default:
			delta, known = t.delta(&p.counters, s)
		}
		proven := v == dedup.BelowFloor && known && p.counters.addsTotals(delta)
		if v != dedup.Duplicate && !proven && m.cameBefore(set, p, i) {
			v, delta, known = dedup.Duplicate, [counterCount]uint64{}, true
		}
		c.flows[kept], c.octets[kept], c.ids[kept], c.ordinals[kept], c.verdicts[kept], c.doubts[kept] = *f, c.octets[i], c.ids[i], c.ordinals[i], v, !known
		f = &c.flows[kept]
		f.forward = volume{delta[forwardOctets], delta[forwardPackets]}
		f.reverse = volume{delta[reverseOctets], delta[reversePackets]}
		if f.scale(c.rates[i]); !f.fits() {
			received = received.Plus(f.count())
			m.tooLarge(f, row, key, uint64(p.template.ID))
			continue
		}
		if v == dedup.New || v == dedup.BelowFloor {
			m.stats.TotalsForgotten += uint64(t.put(&p.counters, s, m.settings.MaxTotals))
		}
		received = received.Plus(f.count())
		kept++
	}
	return kept, received
}

// sight notes the totals of record r, number n of the chunk.
func (p *plan) sight(r ipfix.Record, f *flow, s *sighting, scratch []byte) []byte {
	scratch = scratch[:0]
	for _, a := range p.refiner.keys {
		scratch = append(scratch, a.Bytes(r)...)
	}
	s.key = p.refiner.keyPrefix.Sum(scratch)
	s.values = [counterCount]uint64{f.forward.octets, f.forward.packets, f.reverse.octets, f.reverse.packets}
	s.start = f.start
	const activeTimeout = 2
	s.over = p.refiner.hasReason && p.refiner.reason.Uint64(r) != activeTimeout
	return scratch
}

// totalsVersion is the first octet of an encoded piece.
const totalsVersion = 1

// appendPiece appends what changed since the last piece, or all there is.
func (t *totals) appendPiece(b []byte, all bool) []byte {
	b = append(b, totalsVersion)
	b = binary.AppendUvarint(b, t.next)
	b = binary.AppendVarint(b, t.horizon)
	removed := t.removed
	if all {
		removed = nil
	}
	b = binary.AppendUvarint(b, uint64(len(removed)))
	for _, k := range removed {
		b = k.Append(b)
	}
	one := func(e *total) {
		b = e.key.Append(b)
		for _, v := range e.values {
			b = binary.AppendUvarint(b, v)
		}
		b = binary.AppendVarint(b, e.end)
		b = binary.AppendUvarint(b, e.used)
		b = octets.AppendBool(b, e.over)
	}
	if all {
		for e := t.oldest; e != nil; e = e.newer {
			one(e)
		}
		return b
	}
	for _, e := range t.dirty {
		if !e.gone {
			one(e)
		}
	}
	return b
}

// restorePiece takes in a piece. After the last one order must be called.
func (t *totals) restorePiece(data []byte) error {
	r := octets.NewReader(data)
	if r.Octet() != totalsVersion {
		r.Fail()
	}
	t.next, t.horizon = r.Uvarint(), r.Varint()
	for range r.Count() {
		delete(t.byKey, dedup.ReadIdentity(&r))
	}
	for r.Len() > 0 {
		e := &total{key: dedup.ReadIdentity(&r)}
		for i := range e.values {
			e.values[i] = r.Uvarint()
		}
		e.end, e.used, e.over = r.Varint(), r.Uvarint(), r.Bool()
		t.byKey[e.key] = e
	}
	return r.Close()
}

// order links what was restored in the order of its use.
func (t *totals) order() {
	all := make([]*total, 0, len(t.byKey))
	for _, e := range t.byKey {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *total) int { return cmp.Compare(a.used, b.used) })
	for _, e := range all {
		t.link(e)
	}
}

// putTotals hands out what of the totals changed, as a piece per exporter and
// checkpoint. Once the pieces of an exporter are twice what one would be, one
// takes the place of all.
func (m *Module) putTotals(put func(kind, key string, value []byte)) {
	for _, exporter := range sortedKeys(m.totals) {
		t := m.totals[exporter]
		if len(t.dirty)+len(t.removed) == 0 {
			continue
		}
		const each = 48 // octets of an encoded total, about
		all := t.size > 2*each*len(t.byKey)+1<<14
		t.piece++
		p := totalsPiece{key: exporter + "/" + strconv.FormatUint(t.piece, 10)}
		value := t.appendPiece(nil, all)
		p.size = len(value)
		if all {
			for _, old := range t.pieces {
				put(stateTotals, old.key, nil)
			}
			t.pieces, t.size = nil, 0
		}
		t.pieces = append(t.pieces, p)
		t.size += p.size
		put(stateTotals, p.key, value)
		for _, e := range t.dirty {
			e.dirty = false
		}
		clear(t.dirty)
		t.dirty, t.removed = t.dirty[:0], t.removed[:0]
	}
}

// restoreTotals takes in the pieces of all exporters, in the order in which
// they were made.
func (m *Module) restoreTotals(state []acct.State) error {
	type piece struct {
		acct.State
		exporter string
		number   uint64
	}
	var pieces []piece
	for _, s := range state {
		if s.Kind != stateTotals {
			continue
		}
		i := strings.LastIndexByte(s.Key, '/')
		number, err := strconv.ParseUint(s.Key[i+1:], 10, 64)
		if i < 0 || err != nil {
			return fmt.Errorf("state %s %s: %w", s.Kind, s.Key, ErrCorrupt)
		}
		pieces = append(pieces, piece{s, s.Key[:i], number})
	}
	slices.SortFunc(pieces, func(a, b piece) int {
		return cmp.Or(strings.Compare(a.exporter, b.exporter), cmp.Compare(a.number, b.number))
	})
	for _, p := range pieces {
		t := m.totalsOf(p.exporter)
		if err := t.restorePiece(p.Value); err != nil {
			return fmt.Errorf("state %s %s: %w", p.Kind, p.Key, err)
		}
		t.pieces = append(t.pieces, totalsPiece{p.Key, len(p.Value)})
		t.size += len(p.Value)
		t.piece = p.number
	}
	for _, t := range m.totals {
		t.order()
	}
	return nil
}
