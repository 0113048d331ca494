package main

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"tollbridge/aaaclient/credit"
	"tollbridge/asm/users"
	"tollbridge/asm/users/radius"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/dict/avp"
)

// A disconnector has the NAS of a user whose credit is exhausted end the
// session: by RADIUS (RFC 5176) where RADIUS told of it, by Diameter where an
// access server did (RFC 6733, Section 8.5).
type disconnector struct {
	nas []controlledNAS
	// abort asks an access server to end a session of its own; access has the
	// DiameterIdentities of those that there are.
	abort  func(ctx context.Context, host, sessionID string) error
	access []string
	filter string // Filter-Id that a session gets in place of its end (RFC 5176, Section 3.2: CoA); "" ends it
	want   chan credit.Exhausted
	log    *slog.Logger
}

// A controlledNAS is one that takes Disconnect-Requests.
type controlledNAS struct {
	prefixes []netip.Prefix
	radius.Controller
}

// maxDisconnects is how many sessions may wait to be ended.
const maxDisconnects = 1024

// newDisconnector returns the one of clients that say where they take
// Disconnect-Requests.
func newDisconnector(clients []config.RADIUSClient, filter string, log *slog.Logger) (*disconnector, error) {
	d := &disconnector{filter: filter, want: make(chan credit.Exhausted, maxDisconnects), log: log}
	for _, c := range clients {
		if !c.Disconnect.IsValid() {
			continue
		}
		secret, err := c.Secret.Load()
		if err != nil {
			return nil, err
		}
		d.nas = append(d.nas, controlledNAS{prefixes(c.Prefixes), radius.Controller{Address: c.Disconnect.String(), Secret: secret}})
	}
	return d, nil
}

// exhausted asks for a session to be ended. It does not block.
func (d *disconnector) exhausted(e credit.Exhausted) {
	select {
	case d.want <- e:
	default:
		d.log.Error("session is not ended at its NAS: too many wait for it", "session_id", e.SessionID)
	}
}

// run asks the NASes, one session after the other, until ctx ends.
func (d *disconnector) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-d.want:
			d.disconnect(ctx, e)
		}
	}
}

// RADIUS attributes that tell a NAS and a session of it (RFC 5176, Section 3).
const (
	userName         = 1
	nasIPAddress     = 4
	nasPort          = 5
	framedIPAddress  = 8
	filterID         = 11
	callingStationID = 31
	nasIdentifier    = 32
	acctSessionID    = 44
	nasIPv6Address   = 95
)

func (d *disconnector) disconnect(ctx context.Context, e credit.Exhausted) {
	session := []users.Attribute{{Code: userName, Data: e.User}}
	var address netip.Addr
	theirs := "" // the NAS's name of the session
	for _, a := range e.Attributes {
		if a.Vendor != 0 {
			continue
		}
		switch a.Code {
		case nasIPAddress, nasIPv6Address:
			if n, ok := netip.AddrFromSlice(a.Data); ok {
				address = n
			}
		case acctSessionID:
			theirs = string(a.Data)
		case nasPort, framedIPAddress, callingStationID, nasIdentifier:
		default:
			continue
		}
		session = append(session, users.Attribute{Code: a.Code, Data: string(a.Data)})
	}
	name, err := "", error(nil)
	if nas := d.find(address); nas != nil && d.filter != "" {
		name, err = nas.Address, nas.Change(ctx, append(session, users.Attribute{Code: filterID, Data: d.filter})...)
	} else if nas != nil {
		name, err = nas.Address, nas.Disconnect(ctx, session...)
	} else if host := d.accessServer(theirs); host != "" && !address.IsValid() {
		asking, cancel := context.WithTimeout(ctx, abortTimeout)
		defer cancel()
		name, err = host, d.abort(asking, host, theirs)
	} else {
		d.log.Warn("session is not ended: none of users.radius.clients is its NAS and takes Disconnect-Requests, and no access server told of it",
			"session_id", e.SessionID, "nas", address)
		return
	}
	if err != nil {
		d.log.Error("the NAS has not ended a session, nor changed it", "session_id", e.SessionID, "nas", name, "error", err)
		return
	}
	if d.filter != "" {
		d.log.Info("the NAS has given a session whose credit is exhausted another filter", "session_id", e.SessionID, "nas", name, "filter_id", d.filter)
		return
	}
	d.log.Info("the NAS has ended a session whose credit is exhausted", "session_id", e.SessionID, "nas", name)
}

// abortTimeout bounds the wait for an Abort-Session-Answer.
const abortTimeout = 10 * time.Second

// accessServer returns the access server that made a Session-Id, which begins
// with its DiameterIdentity (RFC 6733, Section 8.8); "" if it is none of those
// configured. An Acct-Session-Id of RADIUS may have semicolons too.
func (d *disconnector) accessServer(sessionID string) string {
	host, _, _ := strings.Cut(sessionID, ";")
	for _, name := range d.access {
		if avp.EqualIdentity(name, host) {
			return name
		}
	}
	return ""
}

// find returns the NAS of an address, nil if there is none.
func (d *disconnector) find(a netip.Addr) *controlledNAS {
	for i := range d.nas {
		for _, p := range d.nas[i].prefixes {
			if p.Contains(a) {
				return &d.nas[i]
			}
		}
	}
	return nil
}
