package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tollbridge/aaaclient/credit"
	"tollbridge/asm/aaaserver"
	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/asm/users/nasreq"
	"tollbridge/asm/users/radius"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/dict/avp"
)

// A disconnector has whoever told of a session that must not go on as it does
// end it, or change what it may do: a NAS by RADIUS (RFC 5176), an access server
// by Diameter (RFC 6733, Sections 8.5 and 8.3). No other source of bindings can
// be asked.
//
//	credit ───► exhausted ──┐     ┌─► queue ──► ask a NAS
//	realtime ──► withdraw ──┴─────┼─► queue ──► ask another
//	                              └─► queue ──► ask an access server
type disconnector struct {
	nas    []*controlledNAS
	access []*controlled // by DiameterIdentity
	change bool          // a session goes on, with less
	filter string        // with change: Filter-Id that a NAS is to give it
	log    *slog.Logger
}

// A withdrawal is a session that must not go on as it does, as its accounting
// records tell of it.
type withdrawal struct {
	sessionID, user string
	attributes      []acct.Attribute
	source, nas     string
	why             string // for people
}

// An accessControl asks access servers about their sessions (aaaserver.Server).
type accessControl interface {
	Abort(ctx context.Context, host, sessionID string) error
	Reauthorize(ctx context.Context, host, sessionID string) error
}

// A controlled is who is asked about its sessions, one after the other: where it
// does not answer, nobody else's wait for that.
type controlled struct {
	name  string           // for people
	queue chan *withdrawal // sessions that wait
	ask   func(ctx context.Context, w *withdrawal) error
}

// maxDisconnects is how many sessions of one NAS may wait to be ended.
const maxDisconnects = 1024

func newControlled(name string, ask func(context.Context, *withdrawal) error) *controlled {
	return &controlled{name, make(chan *withdrawal, maxDisconnects), ask}
}

// A controlledNAS is one that takes Disconnect- and CoA-Requests.
type controlledNAS struct {
	*controlled
	client   string
	prefixes []netip.Prefix
}

// newDisconnector returns the one of clients that say where they take
// Disconnect-Requests.
func newDisconnector(clients []config.RADIUSClient, action config.AtZero, filter string, log *slog.Logger) (*disconnector, error) {
	d := &disconnector{change: action == "change", filter: filter, log: log}
	for _, c := range clients {
		if !c.Disconnect.IsValid() {
			continue
		}
		secret, err := c.Secret.Load()
		if err != nil {
			return nil, err
		}
		by := &radius.Controller{Address: c.Disconnect.String(), Secret: secret}
		ask := func(ctx context.Context, w *withdrawal) error { return d.askNAS(ctx, by, w) }
		d.nas = append(d.nas, &controlledNAS{newControlled(by.Address, ask), c.Name, prefixes(c.Prefixes)})
	}
	return d, nil
}

// addAccessServers has these access servers asked too, by their DiameterIdentities.
func (d *disconnector) addAccessServers(by accessControl, names []string) {
	for _, name := range names {
		d.access = append(d.access, newControlled(name, func(ctx context.Context, w *withdrawal) error {
			return d.askAccessServer(ctx, by, name, w)
		}))
	}
}

// exhausted withdraws the session of a user whose credit is, as withdraw.
func (d *disconnector) exhausted(e credit.Exhausted) bool {
	return d.offer(&withdrawal{e.SessionID, e.User, e.Attributes, e.Source, e.NAS, "credit is exhausted: " + e.Why}, maxDisconnects)
}

// withdraw has a session ended, or changed, soon, and reports whether its NAS has
// room for it beside those whose credit will be exhausted meanwhile. It does not
// block.
func (d *disconnector) withdraw(w withdrawal) bool { return d.offer(&w, maxDisconnects/2) }

// offer puts a session into the queue of its NAS, unless so many wait there.
func (d *disconnector) offer(w *withdrawal, most int) bool {
	who := d.whose(w)
	if who == nil {
		return true
	}
	if len(who.queue) >= most {
		return false
	}
	select {
	case who.queue <- w:
		return true
	default:
		return false
	}
}

// run asks everyone about the sessions that wait for it, until ctx ends.
func (d *disconnector) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	serve := func(c *controlled) { g.Go(func() error { return d.serve(ctx, c) }) }
	for _, n := range d.nas {
		serve(n.controlled)
	}
	for _, a := range d.access {
		serve(a)
	}
	return g.Wait()
}

// Of whoever gives no answer at all it is assumed that it will: it is asked again
// after a while, for so long that what is known of the session still holds.
const (
	askAgain = 30 * time.Second
	askFor   = 15 * time.Minute
)

// serve asks one NAS about the sessions that wait for it, until ctx ends.
func (d *disconnector) serve(ctx context.Context, c *controlled) error {
	type asked struct {
		*withdrawal
		until time.Time
	}
	var silent []asked // the longest ago first
	again := time.NewTimer(0)
	again.Stop()
	for {
		var w asked
		select {
		case <-ctx.Done():
			return nil
		case next := <-c.queue:
			w = asked{next, time.Now().Add(askFor)}
		case <-again.C:
			w, silent = silent[0], silent[1:]
		}
		final := len(silent) >= maxDisconnects || !time.Now().Before(w.until)
		answered := d.disconnect(ctx, c, w.withdrawal, final)
		if !answered && !final {
			silent = append(silent, w)
		}
		switch {
		case len(silent) == 0:
			again.Stop()
		case answered:
			again.Reset(0) // it is back
		default:
			again.Reset(askAgain)
		}
	}
}

// disconnect asks about a session, and reports whether there was an answer. Is this
// not final, and there is none, it will be asked again.
func (d *disconnector) disconnect(ctx context.Context, who *controlled, w *withdrawal, final bool) (answered bool) {
	err := who.ask(ctx, w)
	log := d.log.With("session_id", w.sessionID, "why", w.why, "nas", who.name)
	answered = !errors.Is(err, radius.ErrUnanswered) && !errors.Is(err, aaaserver.ErrNotConnected) && !errors.Is(err, context.DeadlineExceeded)
	switch {
	case !answered && !final:
		log.Warn("the NAS does not answer: it is asked about the session again", "error", err)
	case err != nil:
		log.Error("the NAS has not ended a session, nor changed it", "error", err)
	case d.change:
		log.Info("the NAS changes what a session may do", "filter_id", d.filter)
	default:
		log.Info("the NAS has ended a session")
	}
	return answered
}

// whose returns who is to be asked about a session; nil, with a word in the log,
// where nobody can be.
func (d *disconnector) whose(w *withdrawal) *controlled {
	why := "its source takes no requests"
	switch w.source {
	case radius.Source:
		if n := d.find(nasAddress(w.attributes), w.nas); n != nil {
			return n.controlled
		}
		why = "none of users.radius.clients with the key disconnect is the NAS, or told of it"
	case nasreq.Source:
		i := slices.IndexFunc(d.access, func(a *controlled) bool { return avp.EqualIdentity(a.name, w.nas) })
		if _, known := w.accessSessionID(); known && i >= 0 {
			return d.access[i]
		}
		why = "it is none of server.accessServers any more"
	}
	d.log.Warn("session is not ended: nobody can be asked to", "session_id", w.sessionID, "why", w.why, "source", w.source, "nas", w.nas, "error", why)
	return nil
}

// nasAddress returns the address by which accounting records name a NAS; the zero
// Addr for none.
func nasAddress(attributes []acct.Attribute) (address netip.Addr) {
	for _, a := range attributes {
		if a.Vendor == 0 && (a.Code == avp.NASIPAddress || a.Code == avp.NASIPv6Address) {
			if n, ok := netip.AddrFromSlice(a.Data); ok {
				address = n
			}
		}
	}
	return address
}

// askNAS asks the NAS of a session that RADIUS told of.
func (d *disconnector) askNAS(ctx context.Context, by *radius.Controller, w *withdrawal) error {
	session := []users.Attribute{{Code: avp.UserName, Data: w.user}}
	for _, a := range w.attributes {
		if a.Vendor != 0 {
			continue
		}
		switch a.Code {
		case avp.NASIPAddress, avp.NASIPv6Address, avp.AcctSessionID, avp.NASPort, avp.FramedIPAddress, avp.CallingStationID, avp.NASIdentifier:
			session = append(session, users.Attribute{Code: a.Code, Data: string(a.Data)})
		}
	}
	if d.change {
		return by.Change(ctx, append(session, users.Attribute{Code: avp.FilterID, Data: d.filter})...)
	}
	return by.Disconnect(ctx, session...)
}

// accessTimeout bounds the wait for an access server's answer.
const accessTimeout = 10 * time.Second

// accessSessionID returns what the access server that told of a session calls it.
func (w *withdrawal) accessSessionID() (id string, ok bool) {
	i := slices.IndexFunc(w.attributes, func(a acct.Attribute) bool { return a.Vendor == 0 && a.Code == avp.AcctSessionID })
	if i < 0 {
		return "", false
	}
	return string(w.attributes[i].Data), true
}

// askAccessServer asks the access server that told of a session.
func (d *disconnector) askAccessServer(ctx context.Context, by accessControl, host string, w *withdrawal) error {
	ctx, cancel := context.WithTimeout(ctx, accessTimeout)
	defer cancel()
	ask := by.Abort
	if d.change {
		ask = by.Reauthorize
	}
	id, _ := w.accessSessionID()
	return ask(ctx, host, id)
}

// find returns the NAS of an address, else the client that told of it, which is
// the name of a session's NAS up to a slash; nil if there is neither.
func (d *disconnector) find(a netip.Addr, told string) *controlledNAS {
	var client *controlledNAS
	for _, n := range d.nas {
		if slices.ContainsFunc(n.prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return n
		}
		if (told == n.client || strings.HasPrefix(told, n.client+"/")) && (client == nil || len(n.client) > len(client.client)) {
			client = n
		}
	}
	return client
}
