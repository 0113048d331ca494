package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// CreditControl asks for users' quotas and tells what was used (RFC 8506). It
// is off while it has no peers.
type CreditControl struct {
	DestinationRealm string        `yaml:"destinationRealm"`
	Peers            []CreditPeer  `yaml:"peers"`
	OriginHost       string        `yaml:"originHost"` // "" is that of identity
	ServiceContext   string        `yaml:"serviceContext"`
	RatingGroup      int           `yaml:"ratingGroup"`
	Classes          []RatingGroup `yaml:"classes"`
	Request          Octets        `yaml:"request"`
	Threshold        int           `yaml:"threshold"`
	AtZero           AtZero        `yaml:"atZero"`
	FilterID         string        `yaml:"filterId"` // for change
}

// AtZero is what is done about a user whose quota is used up.
type AtZero string

// UnmarshalText refuses what is not done.
func (a *AtZero) UnmarshalText(b []byte) error { return oneOf(a, b, "report", "disconnect", "change") }

// A CreditPeer is a credit-control server, or an agent on the way to it.
type CreditPeer struct {
	Address   netip.AddrPort `yaml:"address"`
	Host      string         `yaml:"host"`
	TLS       bool           `yaml:"tls"` // with the files of delivery.tls
	Plaintext bool           `yaml:"plaintext"`
}

// A RatingGroup says what a class of usage is charged to.
type RatingGroup struct {
	Name        string `yaml:"name"`
	RatingGroup int    `yaml:"ratingGroup"`
	Free        bool   `yaml:"free"` // not charged at all
}

// check reports what would not work. Client and server are the other nodes'
// DiameterIdentities, classes are those of accounting.
func (c *CreditControl) check(report func(key, format string, args ...any), identity func(key, s string), client, server string, d *Delivery, nas []RADIUSClient, access []string, classes map[string]bool) {
	c.checkAction(report, nas, access)
	if len(c.Peers) == 0 {
		return
	}
	secure := false
	identity("creditControl.destinationRealm", c.DestinationRealm)
	if c.OriginHost != "" {
		identity("creditControl.originHost", c.OriginHost)
	}
	name := cmp.Or(c.OriginHost, client)
	if strings.EqualFold(name, server) {
		report("creditControl.originHost", "%q is server.originHost too: give the credit-control client a name of its own", name)
	}
	shared := strings.EqualFold(name, client)
	for i, p := range c.Peers {
		key := fmt.Sprintf("creditControl.peers[%d]", i)
		if shared && slices.ContainsFunc(d.Peers, func(q Peer) bool { return q.Address == p.Address || p.Host != "" && strings.EqualFold(q.Host, p.Host) }) {
			report(key, "is one of delivery.peers too, and a Diameter node has one connection to each peer: set creditControl.originHost to a name of its own")
		}
		switch {
		case !p.Address.IsValid():
			report(key+".address", "is missing: write it like 127.0.0.1:3868")
		case p.TLS && p.Plaintext:
			report(key+".plaintext", "contradicts tls: remove one of the two")
		case !p.Address.Addr().IsLoopback() && !p.TLS && !p.Plaintext:
			report(key+".address", "%s is another host, and users' names would cross the network in the clear: set tls to true, or plaintext where IPsec or a private link protects them", p.Address)
		}
		if p.Host != "" {
			identity(key+".host", p.Host)
		} else if p.TLS {
			report(key+".host", "is missing: the certificate that the peer shows must be for it")
		}
		secure = secure || p.TLS
	}
	if secure && d.TLS == (TLS{}) {
		d.checkTLS(report, true)
	}
	if c.ServiceContext == "" {
		report("creditControl.serviceContext", "is missing: the server's Service-Context-Id, such as 32251@3gpp.org")
	}
	if c.Threshold < 1 || c.Threshold > 100 {
		report("creditControl.threshold", "%d is out of range: 1 to 100 percent of a quota", c.Threshold)
	}
	group := func(key string, n int) {
		if n < 0 || n > 1<<32-1 {
			report(key, "%d is out of range: 0 to 4294967295", n)
		}
	}
	group("creditControl.ratingGroup", c.RatingGroup)
	for i, r := range c.Classes {
		key := fmt.Sprintf("creditControl.classes[%d]", i)
		if !classes[r.Name] {
			report(key+".name", "%q is none of accounting.classes", r.Name)
		}
		group(key+".ratingGroup", r.RatingGroup)
	}
}

// checkAction reports an action that nobody could be asked for.
func (c *CreditControl) checkAction(report func(key, format string, args ...any), nas []RADIUSClient, access []string) {
	controlled := slices.ContainsFunc(nas, func(n RADIUSClient) bool { return n.Disconnect.IsValid() })
	if c.AtZero == "change" && len(access) == 0 && !controlled {
		report("creditControl.atZero", "is change, but none of users.radius.clients says where it takes CoA-Requests, and there are no server.accessServers: give them the key disconnect")
	}
	if c.AtZero == "change" && controlled && c.FilterID == "" || c.AtZero != "change" && c.FilterID != "" {
		report("creditControl.filterId", "and atZero: change go together: name the filter that a user of users.radius.clients without credit gets")
	}
	if len(c.FilterID) > 253 {
		report("creditControl.filterId", "has %d octets: at most 253 are allowed", len(c.FilterID))
	}
	if c.AtZero == "disconnect" && len(access) == 0 && !controlled {
		report("creditControl.atZero", "is disconnect, but none of users.radius.clients says where it takes Disconnect-Requests, and there are no server.accessServers: give them the key disconnect")
	}
}
