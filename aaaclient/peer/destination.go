package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
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
