package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// checkIdentity reports a DiameterIdentity that is none.
func checkIdentity(report func(key, format string, args ...any), key, s string) {
	if s == "" || strings.ContainsAny(s, " ;@/") || !strings.Contains(s, ".") {
		report(key, "%q is not a DiameterIdentity: write a fully qualified domain name such as bridge.isp.example", s)
	}
}

// OneNode reports whether client and server are one Diameter node: it has one
// connection with each peer, whoever made it. Otherwise they are two.
func (c *Config) OneNode() bool { return strings.EqualFold(c.Server.OriginHost, c.Identity.OriginHost) }

// checkNode reports what one node that is client and server can't do.
func (c *Config) checkNode(report func(key, format string, args ...any)) {
	if !c.OneNode() {
		return
	}
	if c.Embedded() {
		report("server.originHost", "%q is identity.originHost too: records go to the server of this process (delivery.peers is empty), and a Diameter node does not connect to itself, so give the server a name of its own", c.Server.OriginHost)
	}
	if len(c.Delivery.Peers) > 0 && c.Server.nobody() {
		report("server.clients", "is missing, with relays and accessServers: server.originHost is identity.originHost, so client and server are one node, whom the peers of delivery could ask for anybody; name those that may send requests")
	}
	secure := slices.ContainsFunc(c.Delivery.Peers, func(p Peer) bool { return p.TLS })
	if secure && !c.Server.nobody() && c.Server.TLS == (TLS{}) {
		report("server.tls", "is missing: server.originHost is identity.originHost, so client and server are one node, and a peer of delivery with tls: true sends its requests on the connection that we make, where server.tls.ca says who may vouch for it; name the same files as delivery.tls, say")
	}
	for i, p := range c.Delivery.Peers {
		if p.Host == "" {
			report(fmt.Sprintf("delivery.peers[%d].host", i), "is missing: server.originHost is identity.originHost, so client and server are one node, which has one connection with each peer and must know it by its name")
		}
	}
}

// nobody reports whether no one is named that may connect.
func (s *Server) nobody() bool { return len(s.Clients)+len(s.Relays)+len(s.AccessServers) == 0 }

// checkServer reports who could not connect to the Diameter entrance, or could
// who should not, and requests that would go in a circle.
func (c *Config) checkServer(report func(key, format string, args ...any)) {
	s := &c.Server
	nobody := s.nobody()
	for what, list := range map[string][]netip.AddrPort{"listen": s.Listen, "sctpListen": s.SCTPListen} {
		for i, a := range list {
			key := fmt.Sprintf("server.%s[%d]", what, i)
			if !a.Addr().IsLoopback() && !s.Plaintext {
				report(key, "%s can be reached from other hosts, and accounting records would cross the network in the clear: use server.tlsListen, or set server.plaintext to true where IPsec or a private link protects them", a)
			}
			c.checkReach(report, key, a, nobody)
		}
	}
	for i, a := range s.TLSListen {
		c.checkReach(report, fmt.Sprintf("server.tlsListen[%d]", i), a, nobody)
	}
	if len(s.TLSListen) > 0 || s.TLS != (TLS{}) {
		s.TLS.check(report, "server.tls", len(s.TLSListen) > 0, "the addresses of tlsListen need it", "clients and relays")
	}
	for i, host := range s.Clients {
		checkIdentity(report, fmt.Sprintf("server.clients[%d]", i), host)
	}
	for i, host := range s.AccessServers {
		key := fmt.Sprintf("server.accessServers[%d]", i)
		checkIdentity(report, key, host)
		if slices.Contains(s.Clients, host) {
			report(key, "%q is one of server.clients too: its requests tell either of users or of usage, so remove one of the two", host)
		}
	}
	for i, r := range s.Relays {
		key := fmt.Sprintf("server.relays[%d]", i)
		checkIdentity(report, key+".host", r.Host)
		if slices.Contains(s.Clients, r.Host) {
			report(key+".host", "%q is one of server.clients too: a relay may speak for itself in any case, so remove it there", r.Host)
		}
		if len(r.Realms) == 0 {
			report(key+".realms", "is missing: name the realms whose requests it may hand over, or make it one of server.clients")
		}
		for j, realm := range r.Realms {
			checkIdentity(report, fmt.Sprintf("%s.realms[%d]", key, j), realm)
		}
	}
	for i, realm := range s.Realms {
		checkIdentity(report, fmt.Sprintf("server.realms[%d]", i), realm)
	}
	for i, realm := range s.Forward {
		checkIdentity(report, fmt.Sprintf("server.forward[%d]", i), realm)
	}
	if c.Embedded() && len(s.Forward) > 0 {
		report("server.forward", "has nowhere to go: delivery.peers is empty, so requests would come back here")
	}
	if c.Embedded() && s.Flows == FlowsPipeline && c.Accounting.Mode == "aaa-client" {
		report("server.flows", "would go in a circle: with accounting.mode aaa-client each flow is sent on as it came, and delivery.peers is empty, so that is to here")
	}
}

func (c *Config) checkReach(report func(key, format string, args ...any), key string, a netip.AddrPort, nobody bool) {
	if !a.Addr().IsLoopback() && nobody {
		report(key, "%s can be reached from other hosts, but server.clients, relays and accessServers name none that may connect", a)
	}
}
