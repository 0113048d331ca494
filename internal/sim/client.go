package sim

import (
	"fmt"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dict"
)

// A client is an AAA client that the bridge is the AAA server of (RFC 5472,
// Section 3.5.1): each flow that it has measured comes in an
// Accounting-Request, which says itself what it amounts to. It sends each until
// it is answered, and some once more; some have the Session-Id of another.
type client struct {
	exporter
	encoded  map[string]*request // what was put into the journal
	sessions map[string]*request // the first of each Session-Id
	count    int                 // of Session-Ids
	waiting  int                 // requests that are not answered
}

// A request is one of a session, of which there should be one.
type request struct {
	flow     *flow
	session  string
	data     []byte // for the journal
	answered bool
}

const clientHost = "client.visited.example"

// begin lets some worlds have a client. Requests are known by what they are,
// not by what the journal has, so identities must not collide.
func (c *client) begin(w *world) {
	if w.rng.IntN(3) > 0 && !w.draws(Requests) || w.mood.weak {
		return
	}
	c.exporter = exporter{w: w, name: "south"}
	c.encoded, c.sessions = map[string]*request{}, map[string]*request{}
	w.after(w.between(0, 2*w.mood.gap), c.measureOne)
}

// measureOne sends a flow, and goes on for as long as there is traffic.
func (c *client) measureOne() {
	w := c.w
	if w.quiet {
		return
	}
	w.after(w.between(0, 2*w.mood.gap), c.measureOne)
	form := w.rng.IntN(optionsForm)
	if forms[form].totals {
		return // it would have made differences of them
	}
	f := c.measure(0, form)
	f.stated = true
	// Where the clock jumps, what came before it may be forgotten.
	if c.count == 0 || w.mood.steps > 0 || !w.chance(0.1) {
		c.count++
	}
	r := &request{flow: f, session: fmt.Sprint(clientHost, ";1;", c.count)}
	r.encode(w, c.name)
	c.encoded[string(r.data)] = r
	if c.sessions[r.session] == nil {
		c.sessions[r.session] = r
	}
	c.waiting++
	c.send(r)
	for w.chance(w.mood.double) {
		w.after(w.between(0, 2*w.mood.gap), func() { c.arrive(r) })
	}
}

func (r *request) encode(w *world, exporter string) {
	d, f := dict.For(0), r.flow
	flow, err := d.AppendFlow(nil, w.template(f.form, fixedID(f.form)), f.octets)
	if err != nil {
		w.fail("flow %d: %v", f.id, err)
	}
	record := acct.Record{
		SessionID: r.session, Type: acct.Event, Event: w.today(), End: milli(f.end), Realm: "home.example",
		Flow: d.AppendExporter(flow, exporter),
		Usage: acct.Usage{
			InputOctets: f.forward.octets, InputPackets: f.forward.packets,
			OutputOctets: f.backward.octets, OutputPackets: f.backward.packets,
		},
	}
	avps := d.AppendRecord(nil, &record, dict.Options{OriginHost: clientHost, OriginRealm: "visited.example", DestinationRealm: "home.example"})
	if r.data, err = (acct.Request{Task: acct.RequestFlows, Peer: clientHost, AVPs: avps}).AppendBinary(nil); err != nil {
		w.fail("request: %v", err)
	}
}

// send sends r, and goes on until it is answered.
func (c *client) send(r *request) {
	w := c.w
	if r.answered {
		return
	}
	if !w.chance(w.mood.loss) || w.quiet {
		c.arrive(r)
	}
	w.after(w.between(2*time.Second, 20*time.Second), func() { c.send(r) })
}

// arrive brings r to the bridge, which answers once it is durable.
func (c *client) arrive(r *request) {
	w := c.w
	if w.proc == nil || w.proc.blocked() {
		return
	}
	w.log("request of %s: flow %d, session %s", c.name, r.flow.id, r.session)
	if w.bug == ConflictSettled && c.sessions[r.session] != r {
		c.answer(r)
		return
	}
	at := w.proc.append(acct.EntryRequest, 0, r.data)
	w.proc.acks = append(w.proc.acks, ack{at, func() { c.answer(r) }})
}

// answer brings the client the word that r is durable, unless it is lost.
func (c *client) answer(r *request) {
	w := c.w
	if !w.quiet && w.chance(w.mood.loss) {
		return
	}
	w.after(w.between(0, 300*time.Millisecond), func() {
		if !r.answered {
			r.answered = true
			c.waiting--
			w.truth.promise(r.flow)
		}
	})
}
