package aaaserver

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"

	"tollbridge/aaaclient/peer"
	"tollbridge/dict/avp"
)

// A Peer is a node that may connect.
type Peer struct {
	Host string // Origin-Host of its CER, and a dNSName of its certificate over TLS

	// Realms are the Origin-Realms of the requests that it may hand over for
	// others, as a relay or a partner's server does. None: it may speak for
	// itself alone, that is for its own Origin-Host, in a realm that this name
	// lies in.
	Realms []string

	// Access says that it is an access server: its requests say who holds
	// which addresses (RFC 7155), and what they count is not asked.
	Access bool
}

// maySpeak reports whether p, whose Origin-Host is as configured or whatever
// it said, may send requests of that origin.
func (p *Peer) maySpeak(host, realm string) bool {
	return containsIdentity(p.Realms, realm) || avp.EqualIdentity(p.Host, host) && within(host, realm)
}

// within reports whether a DiameterIdentity lies in a realm by its name.
func within(host, realm string) bool {
	n := len(host) - len(realm)
	return n == 0 && avp.EqualIdentity(host, realm) || n > 1 && host[n-1] == '.' && avp.EqualIdentity(host[n:], realm)
}

func containsIdentity(list []string, id string) bool {
	for _, one := range list {
		if avp.EqualIdentity(one, id) {
			return true
		}
	}
	return false
}

// admit returns who n is, nil where anybody may connect, or why it may not:
// its certificate is not for its name, or the name is not configured.
func (s *Server) admit(nc net.Conn, n peer.Node) (*Peer, error) {
	if c, ok := nc.(*tls.Conn); ok {
		if err := peer.VerifyCertificate(c.ConnectionState(), n.OriginHost); err != nil {
			return nil, err
		}
	}
	if len(s.cfg.Peers) == 0 {
		return nil, nil
	}
	for i := range s.cfg.Peers {
		if p := &s.cfg.Peers[i]; avp.EqualIdentity(p.Host, n.OriginHost) {
			return p, nil
		}
	}
	return nil, fmt.Errorf("Origin-Host %s is not configured here", n.OriginHost)
}

// authorize refuses a request whose origin its sender may not speak for (RFC
// 6733, Section 2.10): no retry and no other way would change that.
func (r *request) authorize() bool {
	if r.speaker == nil || r.speaker.maySpeak(r.cdr.OriginHost, r.cdr.OriginRealm) {
		return true
	}
	r.refuse(avp.ResultAuthorizationRejected,
		fmt.Sprintf("%s may not speak for %s of realm %s", r.speaker.Host, r.cdr.OriginHost, r.cdr.OriginRealm),
		avp.AVP{Code: avp.OriginRealm, Flags: avp.FlagMandatory, Data: []byte(r.cdr.OriginRealm)})
	return false
}

// looped reports whether a request was here before: a Route-Record names this
// node (RFC 6733, Section 6.1.3).
func (s *Server) looped(routeRecord []byte) bool {
	return avp.EqualIdentity(routeRecord, s.cfg.OriginHost) || containsIdentity(s.cfg.Aliases, string(routeRecord))
}

// hostOf returns the address of a without its port, by which lines about
// strangers are told apart.
func hostOf(a net.Addr) string {
	s := a.String()
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		return s[:i]
	}
	return s
}
