package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"tollbridge/dict/avp"
)

// A Destination says how a peer is reached.
type Destination struct {
	Host    string       // DiameterIdentity that its certificate must be for; required with TLS
	Address string       // host:port
	SCTP    bool         // in place of TCP
	TLS     *Credentials // nil is no TLS (RFC 6733, Section 13.1: from the start)
}

// Check reports what can't be.
func (d *Destination) Check() error {
	switch {
	case d.TLS != nil && d.SCTP:
		return errors.New("TLS over SCTP: RFC 6733, Section 2.2 has DTLS there, which is not supported")
	case d.TLS != nil && d.Host == "":
		return errors.New("a Host is required over TLS, for the certificate to be compared with")
	}
	return nil
}

// Dial connects the transport: over TLS the peer has shown a certificate for
// its DiameterIdentity before the first octet of Diameter. A nil tcp is a
// net.Dialer.
func (d *Destination) Dial(ctx context.Context, tcp func(ctx context.Context, network, address string) (net.Conn, error)) (net.Conn, error) {
	if d.SCTP {
		return DialSCTP(ctx, d.Address)
	}
	if tcp == nil {
		tcp = new(net.Dialer).DialContext
	}
	nc, err := tcp(ctx, "tcp", d.Address)
	if err != nil || d.TLS == nil {
		return nc, err
	}
	secure := tls.Client(nc, d.TLS.Client(d.Host))
	if err := secure.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secure, nil
}

// Proves reports, by a *Refusal, that a connection which someone has made to us
// proves less of being from d than one that Dial makes. Over TLS that takes the
// same authorities and name; without, the address that d is at, whatever the
// port.
func (d *Destination) Proves(ctx context.Context, nc net.Conn) error {
	secure, ok := nc.(*tls.Conn)
	switch {
	case d.TLS == nil:
		return d.at(ctx, nc.RemoteAddr())
	case !ok:
		return &Refusal{Code: avp.ResultNoCommonSecurity, Message: "this node speaks to " + d.Host + " over TLS alone"}
	}
	err := d.TLS.Verify(secure, false)
	if err == nil {
		err = VerifyCertificate(secure.ConnectionState(), d.Host)
	}
	if err != nil {
		return &Refusal{Code: avp.ResultUnknownPeer, Message: err.Error()}
	}
	return nil
}

// at reports, by a *Refusal, that an address is none of d's.
func (d *Destination) at(ctx context.Context, remote net.Addr) error {
	host, _, err := net.SplitHostPort(d.Address)
	var known []netip.Addr
	if err == nil {
		known, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}
	if err != nil {
		return &Refusal{Code: avp.ResultUnknownPeer, Message: fmt.Sprintf("the address of %s can't be found: %v", d.Host, err)}
	}
	from := hostAddress(remote)
	if !slices.ContainsFunc(known, func(a netip.Addr) bool { return a.Unmap().WithZone("") == from }) {
		return &Refusal{Code: avp.ResultUnknownPeer, Message: fmt.Sprintf("%s without TLS is at %s, not at %v", d.Host, host, from)}
	}
	return nil
}
