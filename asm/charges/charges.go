// Package charges remembers what users were charged, flow by flow, for as long
// as a late binding may contradict it, and finds what is to be moved from one
// user to another then (docs/users-over-time.md).
package charges

import (
	"net/netip"
	"slices"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
)

// A Charge is usage of one flow as it was accounted to one side's user, with
// what it takes to ask again whose it was.
type Charge struct {
	Session uint64 // whose it was accounted to; 0 for nobody any more
	End     int64  // the moment that decides, Unix milliseconds

	Addr     netip.Addr // the user's
	VRF      string
	Shared   bool // the following are known, as some address was shared by ports
	Port     uint16
	Protocol uint8
	Remote   netip.AddrPort

	Class     string
	OfBinding bool // the class is the binding's, as no rule had one
	Usage     acct.Usage
	Estimated bool
	Layers    acct.Layers
	Moved     bool // by a correction
}

// A Mark says that the charges of a session before it are in a record: those
// that a correction moved in the correction's, the others in any other.
type Mark struct {
	Session   uint64
	Moved     bool
	SessionID string
	Number    uint32
	Classes   []string // those in the record, nil for all
}

// A Memory has what was charged, in order, and the doubts about it. It is
// pieces of text to which is only appended, so that a checkpoint stores what
// has come since the last.
//
// The zero Memory is off.
type Memory struct {
	window   int64 // how long charges are remembered, milliseconds; 0 for off
	limit    int   // octets of all segments
	segments []*segment
	next     uint64 // number of the next segment
	size     int    // octets of all segments
	newest   int64  // latest end of any charge, Unix milliseconds
	lost     int64  // latest end of any that was forgotten since the start
	stale    []string

	doubts  []users.Doubt // since the last look
	changed bool          // doubts, since the last Delta
}

// segmentParts is the least number of segments that the octets of all are
// spread over: as many as that are forgotten at a time.
const segmentParts = 16

// On reports whether charges are remembered.
func (x *Memory) On() bool { return x.window != 0 }

// Configure sets how long, in milliseconds, and in how many octets charges are
// remembered: for no time to be off.
func (x *Memory) Configure(window int64, limit int) {
	x.window, x.limit = window, limit
	if window == 0 && len(x.segments) > 0 {
		x.ForgetAll()
	}
	if window == 0 && len(x.doubts) > 0 {
		x.doubts, x.changed = nil, true
	}
}

// current returns the segment that is written to.
func (x *Memory) current(now int64) *segment {
	if n := len(x.segments); n > 0 && len(x.segments[n-1].data) < x.limit/segmentParts {
		return x.segments[n-1]
	}
	return x.begin(now)
}

// begin begins a segment.
func (x *Memory) begin(now int64) *segment {
	g := newSegment(x.next, now)
	x.next++
	x.segments = append(x.segments, g)
	x.size += len(g.data)
	return g
}

// EndSegment begins a new segment unless nothing has come into the last one.
func (x *Memory) EndSegment(now int64) {
	if n := len(x.segments); n > 0 && len(x.segments[n-1].data) > x.segments[n-1].head {
		x.begin(now)
	}
}

// Forget forgets the segments that ended too long ago, and what came before: a
// clock that was set back has left later times there.
func (x *Memory) Forget(now int64) {
	for i := len(x.segments) - 1; i > 0; i-- {
		if x.segments[i].begun <= now-x.window {
			x.drop(i)
			return
		}
	}
}

// ForgetAll forgets whatever was charged so far.
func (x *Memory) ForgetAll() {
	x.drop(len(x.segments))
	x.next = 0 // as it is when none is restored
}

// bound forgets the oldest segments beyond the limit.
func (x *Memory) bound() {
	for x.size > x.limit && len(x.segments) > 1 {
		x.drop(1)
	}
}

// drop forgets the oldest n segments.
func (x *Memory) drop(n int) {
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

// Add remembers c.
func (x *Memory) Add(c *Charge, now int64) {
	g := x.current(now)
	before := len(g.data)
	g.addCharge(c)
	x.size += len(g.data) - before
	x.newest = max(x.newest, c.End)
	x.bound()
}

// mark notes which record the charges of a session are in.
func (x *Memory) mark(k *Mark, now int64) {
	g := x.current(now)
	before := len(g.data)
	g.addMark(k)
	x.size += len(g.data) - before
	x.bound()
}

// MarkAll notes which of records, all that one was split into, the charges of a
// session are in: those that were moved, or the others.
func (x *Memory) MarkAll(session uint64, moved bool, records []acct.Record, now int64) {
	for i := range records {
		r := &records[i]
		k := Mark{Session: session, Moved: moved, SessionID: r.SessionID, Number: r.Number}
		if len(records) > 1 {
			for _, c := range r.Classes {
				k.Classes = append(k.Classes, c.Class)
			}
		}
		x.mark(&k, now)
	}
}

// Covers reports whether all charges that end after a moment are remembered.
func (x *Memory) Covers(moment int64) bool { return x.On() && moment >= x.lost }

// Newest returns the latest end of any charge, Unix milliseconds.
func (x *Memory) Newest() int64 { return x.newest }

// Size returns how many octets it takes to remember all.
func (x *Memory) Size() int { return x.size }

// Since returns since when charges are remembered, Unix milliseconds; ok is
// false if there are none.
func (x *Memory) Since() (at int64, ok bool) {
	if len(x.segments) == 0 {
		return 0, false
	}
	return x.segments[0].begun, true
}
