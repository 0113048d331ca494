package sim

import (
	"fmt"

	"tollbridge/asm/acct"
	"tollbridge/dict"
)

// A client is an AAA client that the bridge is the AAA server of (RFC 5472,
// Section 3.5.1): each flow that it has measured comes in an
// Accounting-Request, which says itself what it amounts to. Some it sends
// again, as their answers are lost; some have the Session-Id of another.
type client struct {
	exporter
	encoded map[string]requested // what was put into the journal
	count   int                  // of Session-Ids
}

// A requested flow came in a request of a session, of which there should be one.
type requested struct {
	flow    *flow
	session string
}

const clientHost = "client.visited.example"

// begin lets some worlds have a client. Requests are known by what they are,
// not by what the journal has, so identities must not collide.
func (c *client) begin(w *world) {
	if w.mood.weak || w.rng.IntN(3) > 0 {
		return
	}
	c.exporter = exporter{w: w, name: "south"}
	c.encoded = map[string]requested{}
	w.after(w.between(0, 2*w.mood.gap), c.request)
}

// request sends a flow, and goes on for as long as there is traffic.
func (c *client) request() {
	w := c.w
	if w.quiet {
		return
	}
	w.after(w.between(0, 2*w.mood.gap), c.request)
	form := w.rng.IntN(optionsForm)
	if forms[form].totals {
		return // it would have made differences of them
	}
	f := c.measure(0, form)
	f.stated = true
	d := dict.For(0)
	flow, err := d.AppendFlow(nil, w.template(form, fixedID(form)), f.octets)
	if err != nil {
		w.fail("flow %d: %v", f.id, err)
	}
	// Where the clock jumps, what came before it may be forgotten.
	if c.count == 0 || w.mood.steps > 0 || !w.chance(0.1) {
		c.count++
	}
	r := acct.Record{
		SessionID: fmt.Sprint(clientHost, ";1;", c.count), Type: acct.Event, Event: w.today(), End: milli(f.end), Realm: "home.example",
		Flow: d.AppendExporter(flow, c.name),
		Usage: acct.Usage{
			InputOctets: f.forward.octets, InputPackets: f.forward.packets,
			OutputOctets: f.backward.octets, OutputPackets: f.backward.packets,
		},
	}
	avps := d.AppendRecord(nil, &r, dict.Options{OriginHost: clientHost, OriginRealm: "visited.example", DestinationRealm: "home.example"})
	data, err := acct.Request{Task: acct.RequestFlows, Peer: clientHost, AVPs: avps}.AppendBinary(nil)
	if err != nil {
		w.fail("request: %v", err)
	}
	c.encoded[string(data)] = requested{f, r.SessionID}
	arrive := func() {
		if w.proc != nil && !w.quiet && !w.proc.blocked() {
			w.log("request of %s: flow %d, session %s", c.name, f.id, r.SessionID)
			w.proc.append(acct.EntryRequest, 0, data)
		}
	}
	w.after(0, arrive)
	for w.chance(w.mood.double) {
		w.after(w.between(0, 2*w.mood.gap), arrive)
	}
}
