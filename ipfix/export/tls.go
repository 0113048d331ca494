package export

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
)

// A TLS says who a Process is to Collecting Processes over TLS and DTLS, and
// whom it exports to. Both ends always show a certificate (RFC 7011, Section
// 11.3).
type TLS struct {
	Certificate tls.Certificate // required
	RootCAs     *x509.CertPool  // required: who may vouch for Collecting Processes

	// ServerName is the DNS name or address that the Collecting Process's
	// certificate must be of. "" means the host of its Address.
	ServerName string
}

// SetTLS takes the place of Config.TLS, for a Process over TLS or DTLS, from the
// next handshake on. The connection or association that stands goes on.
func (p *Process) SetTLS(t TLS) error {
	if p.tls.Load() == nil {
		return errors.New("export: SetTLS: Config.TLS is required")
	}
	if err := t.check(); err != nil {
		return err
	}
	p.tls.Store(&t)
	return nil
}

// check reports what is missing.
func (t *TLS) check() error {
	switch {
	case len(t.Certificate.Certificate) == 0 || t.Certificate.PrivateKey == nil:
		return errors.New("export: Config.TLS: a certificate with its key is required")
	case t.RootCAs == nil:
		return errors.New("export: Config.TLS: RootCAs is required")
	}
	return nil
}

// serverName returns whom the certificate of a Collecting Process must be of.
func (t *TLS) serverName(address string) string {
	if t.ServerName != "" {
		return t.ServerName
	}
	host, _, _ := net.SplitHostPort(address)
	return host
}

func (p *Process) dialTLS(ctx context.Context, address string) (net.Conn, error) {
	conn, err := p.cfg.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	t := p.tls.Load()
	c := tls.Client(conn, &tls.Config{
		MinVersion:   tls.VersionTLS12,
		ServerName:   t.serverName(address),
		RootCAs:      t.RootCAs,
		Certificates: []tls.Certificate{t.Certificate},
	})
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("tls handshake: %w", err)
	}
	return c, nil
}
