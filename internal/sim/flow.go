package sim

import (
	"net/netip"
	"slices"
	"time"
)

// A flow is what an exporter has measured, as its Template tells it.
type flow struct {
	id                 uint64 // in the record, so that no two flows are equal
	exporter           string
	domain             uint32
	form               int // index of forms
	from, to           netip.Addr
	fromPort, toPort   uint16
	fromVRF, toVRF     uint32
	fromSpace, toSpace string // of the addresses, as the bridge calls them
	protocol, dscp     uint8
	start, end         int64 // Unix milliseconds
	forward, backward  volume
	user               string      // that the record names
	rate               uint64      // each packet counted stands for so many, as the record says; 0 if it doesn't
	long               *connection // whose counters are totals; nil for a flow of its own
	octets             []byte      // the Data Record
	stated             bool        // it came in a request that says what it amounts to
	half               half        // what still waits for a user
	behind             [2]end      // private addresses that its ends stood for, where the NAT's word is forgotten; zero for none
	journaled          bool
}

// A half is the end of a flow that waits for a user, where the other's is known.
type half uint8

const (
	bothEnds half = iota
	fromEnd
	toEnd
)

type volume struct{ octets, packets uint64 }

func (f *flow) source() end { return end{f.fromSpace, f.from, f.fromPort} }

func (f *flow) destination() end { return end{f.toSpace, f.to, f.toPort} }

// began returns when f began as far as its record says, Unix milliseconds.
func (f *flow) began() int64 {
	if forms[f.form].begins {
		return f.start
	}
	return f.end
}

// A connection is a flow that is reported again and again, with counters that
// go on.
type connection struct {
	flow   flow // as it was reported last
	domain uint32
}

func milli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

var (
	insiders = addresses("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.1.6", "10.0.1.7", "10.0.1.8")
	inside6  = addresses("2001:db8::1", "2001:db8::2", "2001:db8:1::3")
	outside  = addresses("192.0.2.1", "192.0.2.2", "203.0.113.9")
	outside6 = addresses("2001:db8:ffff::1", "2001:db8:ffff::2")
)

func addresses(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// measure makes a flow.
func (e *exporter) measure(domain uint32, formAt int) *flow {
	w := e.w
	w.nextFlow++
	w.report.Flows++
	fo := &forms[formAt]
	in, out := insiders, outside
	if fo.ipv6 {
		in, out = inside6, outside6
	}
	f := &flow{
		id: w.nextFlow, exporter: e.name, domain: domain, form: formAt,
		from: one(&w.scheduler, in), to: one(&w.scheduler, out),
		fromPort: uint16(1024 + w.rng.IntN(60000)), toPort: one(&w.scheduler, []uint16{53, 443, 5060, 8080}),
		protocol: one(&w.scheduler, []uint8{6, 17}), dscp: one(&w.scheduler, []uint8{0, 0, 46, 34}),
		forward: volume{uint64(w.rng.IntN(1 << 24)), uint64(w.rng.IntN(1 << 14))},
	}
	switch w.rng.IntN(12) {
	case 0, 1, 2, 3, 4:
		f.from, f.to = f.to, f.from
		f.fromPort, f.toPort = f.toPort, f.fromPort
	case 5:
		f.to = one(&w.scheduler, in) // between users
	case 6:
		f.from = one(&w.scheduler, out) // nobody's
	}
	if w.mood.shared {
		f.share(w)
	}
	if fo.backward {
		f.backward = volume{uint64(w.rng.IntN(1 << 24)), uint64(w.rng.IntN(1 << 14))}
	}
	if fo.named && w.chance(0.8) {
		f.user = one(&w.scheduler, named)
	}
	if fo.sampled {
		f.rate = uint64(1 + w.rng.IntN(4))
	}
	age := w.between(0, 40*time.Second)
	switch w.rng.IntN(40) {
	case 0, 1:
		age = w.between(time.Minute, 30*time.Minute) // late; for some windows too late
	case 2:
		age = -w.between(0, 4*time.Minute) // ahead of the clock
	}
	f.end = (w.now + e.offset - int64(age)) / int64(time.Millisecond)
	f.start = f.end - int64(w.rng.IntN(20000))
	if fo.seconds {
		f.end -= f.end % 1000
		f.start = f.end
	}
	if fo.totals {
		e.goOn(f)
	}
	octets, err := w.template(formAt, 256).AppendRecord(nil, fo.values(f)...)
	if err != nil {
		w.fail("flow %+v: %v", f, err)
	}
	f.octets = octets
	return f
}

// share lets f be of shared addresses, and of other address spaces.
func (f *flow) share(w *world) {
	if a := one(&w.scheduler, []netip.Addr{translated, translated, divided}); w.chance(0.5) && f.from.Is4() {
		port := uint16(1000 + w.rng.IntN(1600))
		switch {
		case slices.Contains(insiders, f.from):
			f.from, f.fromPort = a, port
		case slices.Contains(insiders, f.to):
			f.to, f.toPort = a, port
		}
	}
	f.fromVRF, f.toVRF = one(&w.scheduler, vrfs), one(&w.scheduler, vrfs)
}

var vrfs = []uint32{0, 5, 5, 6}

// named are users that records name; some of them hold addresses too.
var named = []string{"ann", "bob", "yve", "zoe"}

// goOn makes f another report of a connection, or the first of a new one.
func (e *exporter) goOn(f *flow) {
	w := e.w
	if len(e.long) > 0 && w.chance(0.8) {
		c := one(&w.scheduler, e.long)
		if c.domain == f.domain {
			next := c.flow
			next.id, next.end = f.id, max(f.end, next.end+1+int64(w.rng.IntN(1000)))
			next.forward.octets += 1 + f.forward.octets
			next.forward.packets += 1 + f.forward.packets
			*f = next
			c.flow = next
			return
		}
	}
	c := &connection{domain: f.domain}
	f.long = c
	f.forward.octets++
	f.forward.packets++
	c.flow = *f
	e.long = append(e.long, c)
	e.long = e.long[max(0, len(e.long)-6):]
}
