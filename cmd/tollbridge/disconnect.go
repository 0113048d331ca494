package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tollbridge/aaaclient/credit"
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
type disconnector struct {
	nas     []controlledNAS
	servers accessControl // nil for none
	access  []string      // DiameterIdentities of the access servers that there are
	change  bool          // a session goes on, with less
	filter  string        // with change: Filter-Id that a NAS is to give it
	want    chan withdrawal
	log     *slog.Logger
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

// A controlledNAS is one that takes Disconnect- and CoA-Requests.
type controlledNAS struct {
	name     string // of the client
	prefixes []netip.Prefix
	radius.Controller
}

// maxDisconnects is how many sessions may wait to be ended.
const maxDisconnects = 1024

// newDisconnector returns the one of clients that say where they take
// Disconnect-Requests.
func newDisconnector(clients []config.RADIUSClient, action config.AtZero, filter string, log *slog.Logger) (*disconnector, error) {
	d := &disconnector{change: action == "change", filter: filter, want: make(chan withdrawal, maxDisconnects), log: log}
	for _, c := range clients {
		if !c.Disconnect.IsValid() {
			continue
		}
		secret, err := c.Secret.Load()
		if err != nil {
			return nil, err
		}
		d.nas = append(d.nas, controlledNAS{c.Name, prefixes(c.Prefixes), radius.Controller{Address: c.Disconnect.String(), Secret: secret}})
	}
	return d, nil
}

// exhausted withdraws the session of a user whose credit is.
func (d *disconnector) exhausted(e credit.Exhausted) {
	select {
	case d.want <- withdrawal{e.SessionID, e.User, e.Attributes, e.Source, e.NAS, "credit is exhausted: " + e.Why}:
	default:
		d.log.Error("session is not ended at its NAS: too many wait for it", "session_id", e.SessionID)
	}
}

// withdraw has a session ended, or changed, soon, and reports whether there is
// room for it beside those whose credit will be exhausted meanwhile. It does not
// block.
func (d *disconnector) withdraw(w withdrawal) bool {
	if len(d.want) >= maxDisconnects/2 {
		return false
	}
	select {
	case d.want <- w:
		return true
	default:
		return false
	}
}

// run asks the NASes, one session after the other, until ctx ends.
func (d *disconnector) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case w := <-d.want:
			d.disconnect(ctx, w)
		}
	}
}

func (d *disconnector) disconnect(ctx context.Context, w withdrawal) {
	name, err := "", error(nil)
	switch w.source {
	case radius.Source:
		name, err = d.askNAS(ctx, w)
	case nasreq.Source:
		name, err = d.askAccessServer(ctx, w)
	default:
		err = fmt.Errorf("%w: source %q", errNobodyToAsk, w.source)
	}
	log := d.log.With("session_id", w.sessionID, "why", w.why)
	switch {
	case errors.Is(err, errNobodyToAsk):
		log.Warn("session is not ended: nobody can be asked to", "source", w.source, "nas", w.nas, "error", err)
	case err != nil:
		log.Error("the NAS has not ended a session, nor changed it", "nas", name, "error", err)
	case d.change:
		log.Info("the NAS changes what a session may do", "nas", name, "filter_id", d.filter)
	default:
		log.Info("the NAS has ended a session", "nas", name)
	}
}

// errNobodyToAsk is matched by the error of a session whose source takes no
// requests.
var errNobodyToAsk = errors.New("its source takes no requests")

// askNAS asks the NAS of a session that RADIUS told of, and returns its address.
func (d *disconnector) askNAS(ctx context.Context, w withdrawal) (string, error) {
	session := []users.Attribute{{Code: avp.UserName, Data: w.user}}
	var address netip.Addr
	for _, a := range w.attributes {
		if a.Vendor != 0 {
			continue
		}
		switch a.Code {
		case avp.NASIPAddress, avp.NASIPv6Address:
			if n, ok := netip.AddrFromSlice(a.Data); ok {
				address = n
			}
		case avp.AcctSessionID, avp.NASPort, avp.FramedIPAddress, avp.CallingStationID, avp.NASIdentifier:
		default:
			continue
		}
		session = append(session, users.Attribute{Code: a.Code, Data: string(a.Data)})
	}
	nas := d.find(address, w.nas)
	switch {
	case nas == nil:
		return "", fmt.Errorf("%w: none of users.radius.clients with the key disconnect is the NAS, or told of it", errNobodyToAsk)
	case d.change:
		return nas.Address, nas.Change(ctx, append(session, users.Attribute{Code: avp.FilterID, Data: d.filter})...)
	}
	return nas.Address, nas.Disconnect(ctx, session...)
}

// accessTimeout bounds the wait for an access server's answer.
const accessTimeout = 10 * time.Second

// askAccessServer asks the access server that told of a session, and returns
// its name.
func (d *disconnector) askAccessServer(ctx context.Context, w withdrawal) (string, error) {
	known := slices.ContainsFunc(d.access, func(name string) bool { return avp.EqualIdentity(name, w.nas) })
	at := slices.IndexFunc(w.attributes, func(a acct.Attribute) bool { return a.Vendor == 0 && a.Code == avp.AcctSessionID })
	if d.servers == nil || !known || at < 0 {
		return "", fmt.Errorf("%w: it is none of server.accessServers any more", errNobodyToAsk)
	}
	ctx, cancel := context.WithTimeout(ctx, accessTimeout)
	defer cancel()
	ask := d.servers.Abort
	if d.change {
		ask = d.servers.Reauthorize
	}
	return w.nas, ask(ctx, w.nas, string(w.attributes[at].Data))
}

// find returns the NAS of an address, else the client that told of it, which is
// the name of a session's NAS up to a slash; nil if there is neither.
func (d *disconnector) find(a netip.Addr, told string) *controlledNAS {
	var client *controlledNAS
	for i := range d.nas {
		n := &d.nas[i]
		if slices.ContainsFunc(n.prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return n
		}
		if (told == n.name || strings.HasPrefix(told, n.name+"/")) && (client == nil || len(n.name) > len(client.name)) {
			client = n
		}
	}
	return client
}
