package sim

import (
	"cmp"
	"fmt"
	"slices"
	"syscall"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
)

// A server is an AAA peer before the application, which all of them share.
type server struct {
	w     *world
	index int
	down  bool
	known int // the life that was connected to it
	link  *link
}

func (s *server) address() string { return fmt.Sprintf("192.0.2.%d:3868", 101+s.index) }

func (s *server) node() peer.Node {
	return peer.Node{OriginHost: fmt.Sprintf("acct%d.home.example", s.index), OriginRealm: "home.example"}
}

// hangUp ends the connection.
func (s *server) hangUp() {
	if s.link != nil {
		s.link.breaks(syscall.ECONNRESET)
	}
}

// lose says that the bridge has crashed.
func (s *server) lose() {
	if s.link != nil {
		s.link.alive = false
	}
}

// receive takes a request, and mostly answers it.
func (s *server) receive(l *link, m peer.Message) {
	w := s.w
	r, err := dict.For(0).ParseRecord(m.AVPs())
	if err != nil {
		w.fail("a request is no record: %v", err)
	}
	reply := func(result uint32, after time.Duration) {
		b := s.node().AppendError(nil, m, result, "", nil)
		if asks := w.intervals; asks != nil && result == avp.ResultSuccess && asks.IntN(3) == 0 {
			b = avp.AppendUint32(b, avp.AcctInterimInterval, 0, avp.FlagMandatory, asks.Uint32N(300))
			avp.SetLength(b)
		}
		l.answer(b, after)
	}
	account := func() { w.app.account(&r, m.AVPs()) }
	soon := w.between(0, 200*time.Millisecond)
	if w.quiet || !w.chance(w.mood.answers) {
		account()
		reply(avp.ResultSuccess, soon)
		return
	}
	kind := w.rng.IntN(12)
	w.log("peer %d misbehaves, kind %d: %s/%d", s.index, kind, r.SessionID, r.Number)
	switch kind {
	case 0: // silent
	case 1: // its answer is lost
		account()
	case 2: // its answer comes too late
		account()
		reply(avp.ResultSuccess, w.between(5*time.Second, 40*time.Second))
	case 3:
		reply(avp.ResultTooBusy, soon)
	case 4:
		reply(avp.ResultUnableToDeliver, soon)
	case 5: // answers twice
		account()
		reply(avp.ResultSuccess, soon)
		reply(avp.ResultSuccess, w.between(0, 20*time.Second))
	case 6: // of two minds
		account()
		reply(avp.ResultUnableToComply, soon)
		reply(avp.ResultSuccess, w.between(0, 5*time.Second))
	case 7: // answered, and the connection goes with it
		account()
		reply(avp.ResultSuccess, soon)
		w.after(w.between(0, 300*time.Millisecond), func() { l.breaks(syscall.ECONNRESET) })
	case 8:
		if !w.mood.refuse {
			account()
			reply(avp.ResultSuccess, soon)
			return
		}
		reply(avp.ResultAVPUnsupported, soon)
	case 9: // answers what nobody asked
		other := m
		other.EndToEnd += 1 << 20
		l.answer(s.node().AppendError(nil, other, avp.ResultSuccess, "", nil), soon)
	case 10: // accounts, and answers by another Hop-by-Hop Identifier
		account()
		other := m
		other.HopByHop += 1 << 20
		l.answer(s.node().AppendError(nil, other, avp.ResultSuccess, "", nil), soon)
	default: // slow
		account()
		reply(avp.ResultSuccess, w.between(time.Second, 9*time.Second))
	}
}

// An application is the accounting application: it keeps CDRs, knows
// duplicates by Session-Id and number, and is durable.
type application struct {
	w       *world
	cdrs    map[cdrKey]*cdr
	order   map[string][]*cdr // by Session-Id, as they were accounted
	ids     []string          // Session-Ids in the order of their first
	real    *cdrStore         // the same, on the real spool; nil for none
	refused map[string]bool   // Session-Ids of which a record was quarantined
}

type cdrKey struct {
	session string
	number  uint32
}

func (k cdrKey) compare(o cdrKey) int {
	return cmp.Or(cmp.Compare(k.session, o.session), cmp.Compare(k.number, o.number))
}

type cdr struct {
	acct.Record
	digest [32]byte
}

func newApplication(w *world) *application {
	a := &application{w: w, cdrs: map[cdrKey]*cdr{}, order: map[string][]*cdr{}, refused: map[string]bool{}}
	if w.cfg.Dir != "" {
		a.real = newCDRStore(w, w.cfg.Dir)
	}
	return a
}

// account stores a record and checks that it may come now.
func (a *application) account(r *acct.Record, avps []byte) {
	w, key, digest := a.w, cdrKey{r.SessionID, r.Number}, dict.ContentDigest(avps)
	c := a.cdrs[key]
	if a.real != nil {
		want := acct.Stored
		if c != nil {
			want = acct.Duplicate
		}
		a.real.put(r, digest, avps, want)
	}
	if c != nil {
		if c.digest != digest {
			w.fail("%s/%d came with other content: %+v, before %+v", r.SessionID, r.Number, *r, c.Record)
		}
		return
	}
	c = &cdr{*r, digest}
	a.cdrs[key] = c
	before := a.order[r.SessionID]
	if len(before) == 0 {
		a.ids = append(a.ids, r.SessionID)
	}
	a.order[r.SessionID] = append(before, c)
	w.log("accounted %s/%d %v of %q: %+v", r.SessionID, r.Number, r.Type, r.User, r.Usage)
	if a.refused[r.SessionID] {
		return // quarantine may change the order
	}
	if int(r.Number) != len(before) {
		w.fail("%s/%d is accounted as number %d of its session", r.SessionID, r.Number, len(before))
	}
}

// check says what is wrong with the sessions as a whole.
func (a *application) check() {
	w := a.w
	for _, id := range a.ids {
		records := slices.SortedFunc(slices.Values(a.order[id]), func(a, b *cdr) int { return cmp.Compare(a.Number, b.Number) })
		for i, c := range records {
			last := i == len(records)-1
			switch {
			case int(c.Number) != i && !a.refused[id]: // else an INTERIM may be covered by a later record
				w.fail("%s/%d is number %d of its session", id, c.Number, i)
			case c.Type == acct.Event:
				if len(records) != 1 {
					w.fail("%s: an EVENT among %d records", id, len(records))
				}
			case (c.Number == 0) != (c.Type == acct.Start):
				w.fail("%s/%d is %v", id, c.Number, c.Type)
			case c.Type == acct.Stop && !last:
				w.fail("%s/%d: STOP before others", id, c.Number)
			case last && c.Type != acct.Stop && c.User != fallbackUser:
				w.fail("%s/%d, the last, is %v", id, c.Number, c.Type)
			}
			if i > 0 {
				p, n := records[i-1].Usage, c.Usage
				if n.InputOctets < p.InputOctets || n.OutputOctets < p.OutputOctets ||
					n.InputPackets < p.InputPackets || n.OutputPackets < p.OutputPackets {
					w.fail("%s/%d: counters fall from %+v to %+v", id, i, p, n)
				}
			}
		}
	}
}

// A wire looks at each request as it leaves.
type wire struct {
	w      *world
	copies map[uint32]cdrKey    // what left, by End-to-End Identifier
	asked  map[sending]struct{} // what was not answered
	open   map[cdrKey]int       // how many of them are of one record
	doubt  map[cdrKey]bool      // there were some when another was answered
}

// A sending is a request as an answer names it.
type sending struct {
	l             *link
	hopByHop, end uint32
}

func newWire(w *world) *wire {
	return &wire{w: w, copies: map[uint32]cdrKey{}, asked: map[sending]struct{}{}, open: map[cdrKey]int{}, doubt: map[cdrKey]bool{}}
}

// answered notes an answer that delivery gets.
func (x *wire) answered(l *link, octets []byte) {
	h, err := avp.ParseHeader(octets)
	if err != nil {
		x.w.fail("an answer is no message: %v", err)
	}
	s := sending{l, h.HopByHop, h.EndToEnd}
	if _, ok := x.asked[s]; ok {
		delete(x.asked, s)
		key := x.copies[h.EndToEnd]
		x.open[key] = max(0, x.open[key]-1)
		x.doubt[key] = x.doubt[key] || x.open[key] > 0
	}
}

// refused notes that a record was refused: requeued, it is a new request.
func (x *wire) refused(end uint32) { delete(x.open, x.copies[end]) }

// sent checks the rules of a request's identity (RFC 6733, Section 3): the T
// flag is clear on a first sending and set while an earlier copy is
// unanswered.
func (x *wire) sent(l *link, m peer.Message) {
	w := x.w
	w.report.Requests++
	id, _ := avp.Find(m.AVPs(), avp.SessionID, 0)
	a, _ := avp.Find(m.AVPs(), avp.AccountingRecordNumber, 0)
	number, err := a.Uint32()
	if err != nil || m.Command != avp.CommandAccounting || !m.Request() {
		w.fail("a peer is sent command %d, flags %#x (%v)", m.Command, m.Flags, err)
	}
	key, again := cdrKey{string(id.Data), number}, m.Flags&avp.FlagRetransmitted != 0
	if again {
		w.report.Resent++
	}
	w.log("request %s/%d to peer %d, end-to-end %d, T %v", key.session, number, l.server.index, m.EndToEnd, again)
	marked := w.disk.marked[m.EndToEnd]
	before, known := x.copies[m.EndToEnd]
	switch {
	case marked == 0:
		w.fail("%s/%d leaves before it is marked", key.session, number)
	case known && before != key:
		w.fail("%s/%d has the End-to-End Identifier %d of %s/%d", key.session, number, m.EndToEnd, before.session, before.number)
	case (known || x.open[key] > 0) && !again:
		w.fail("%s/%d is sent again without the T flag", key.session, number)
	case !known && !x.doubt[key] && again && marked == w.lives:
		w.fail("%s/%d carries the T flag at its first sending", key.session, number)
	}
	x.copies[m.EndToEnd] = key
	x.asked[sending{l, m.HopByHop, m.EndToEnd}] = struct{}{}
	x.open[key]++
}
