package collect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"tollbridge/ipfix"
)

// A TLS says who a Process is to exporters over TLS and DTLS, and whose word
// it takes for who they are. Both ends always show a certificate (RFC 7011,
// Section 11.3).
type TLS struct {
	Certificate tls.Certificate // required
	ClientCAs   *x509.CertPool  // required: who may vouch for exporters
}

// SetTLS takes the place of Config.TLS, which there must have been, from the
// next handshake on. Connections and associations that stand go on.
func (p *Process) SetTLS(t TLS) error {
	if p.cfg.TLS == nil {
		return errors.New("collect: SetTLS: Config.TLS is required")
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
		return errors.New("collect: Config.TLS: a certificate with its key is required")
	case t.ClientCAs == nil:
		return errors.New("collect: Config.TLS: ClientCAs is required")
	}
	return nil
}

// Why a certificate that ClientCAs vouch for is turned away all the same.
var (
	errNameless  = errors.New("the certificate has no DNS name and no common name")
	errStranger  = errors.New("the certificate is of no exporter")
	errElsewhere = errors.New("the certificate's name does not have this address")
)

// ServeTLS is ServeTCP for TLS over TCP, version 1.2 or later. The exporter is
// who its certificate says, whatever address it comes from. ln listens for
// plain TCP; Config.TLS is required.
//
// Handshakes are bounded in number and in time.
func (p *Process) ServeTLS(ctx context.Context, ln net.Listener) error {
	if p.cfg.TLS == nil {
		ln.Close()
		return errors.New("collect: ServeTLS: Config.TLS is required")
	}
	cfg := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return p.tlsConfig(hello.Context(), unmap(hello.Conn.RemoteAddr()).Addr()), nil
	}}
	return p.serveListener(ctx, tls.NewListener(ln, cfg), p.serveTLS)
}

// tlsConfig is that of one handshake, with a peer at remote.
func (p *Process) tlsConfig(ctx context.Context, remote netip.Addr) *tls.Config {
	t := p.tls.Load()
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		Certificates:           []tls.Certificate{t.Certificate},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              t.ClientCAs,
		SessionTicketsDisabled: true, // every connection shows its certificate
		VerifyConnection: func(s tls.ConnectionState) error {
			return p.verify(ctx, remote, s.PeerCertificates[0])
		},
	}
}

// verify turns a stranger away within the handshake, so that it is told.
func (p *Process) verify(ctx context.Context, remote netip.Addr, c *x509.Certificate) error {
	names := certificateNames(c)
	switch {
	case len(names) == 0:
		return errNameless
	case !p.exporters.known(names):
		return fmt.Errorf("%w: %s", errStranger, strings.Join(names, ", "))
	case p.cfg.LookUp == nil:
		return nil
	}
	return p.lookUp(ctx, remote, names)
}

// lookUp reports an error unless one of the names by which an exporter is known
// has the address.
func (p *Process) lookUp(ctx context.Context, remote netip.Addr, names []string) (err error) {
	for _, n := range p.exporters.identifying(names) {
		var addrs []netip.Addr
		if addrs, err = p.cfg.LookUp(ctx, n); err != nil {
			continue
		}
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == remote.WithZone("") }) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errElsewhere, err)
	}
	return fmt.Errorf("%w: %s", errElsewhere, strings.Join(names, ", "))
}

func (p *Process) serveTLS(conn net.Conn) error {
	defer conn.Close()
	remote := unmap(conn.RemoteAddr())
	c := conn.(*tls.Conn)
	ctx, done := p.handshakes.begin(context.Background(), p.cfg.HandshakeTimeout)
	err := c.HandshakeContext(ctx)
	err = whyEnded(ctx, err)
	done()
	if err != nil {
		p.handshakeFailed(remote, err)
		return nil
	}
	e := p.exporters.connectNames(certificateNames(c.ConnectionState().PeerCertificates[0]))
	if e == nil {
		p.logRefused(remote)
		return nil
	}
	return p.serveExporter(ipfix.TLS, conn, tlsReader{c}, e)
}

// certificateNames returns whom a certificate is of: its DNS names or, where
// it has none, its common name (RFC 7011, Section 11.3; RFC 6125, Section
// 6.4.4), in lower case and without a final dot.
func certificateNames(c *x509.Certificate) []string {
	names := c.DNSNames
	if len(names) == 0 && c.Subject.CommonName != "" {
		names = []string{c.Subject.CommonName}
	}
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = canonicalName(n)
	}
	return out
}

func canonicalName(n string) string { return strings.ToLower(strings.TrimSuffix(n, ".")) }

// A tlsReader makes of what ends a connection but its exporter, such as a
// record that was tampered with, an error of the network. An end of TCP
// between two records is taken for the exporter's.
type tlsReader struct{ *tls.Conn }

func (r tlsReader) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	var network net.Error
	if err != nil && err != io.EOF && !errors.As(err, &network) {
		err = &net.OpError{Op: "read", Net: "tls", Source: r.LocalAddr(), Addr: r.RemoteAddr(), Err: err}
	}
	return n, err
}

// handshakeFailed counts and logs a handshake that came to nothing. One of a
// stranger is a refusal.
func (p *Process) handshakeFailed(remote netip.AddrPort, err error) {
	switch {
	case errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled):
		return // it was us: the Process stops
	case errors.Is(err, errStranger), errors.Is(err, errNameless), errors.Is(err, errElsewhere):
		p.exporters.others.refused.Add(1)
		if times, due := logDue(p.refusals.Add(1)); due {
			p.cfg.Log.Warn("exporter refused", "remote", remote, "error", err, "times", times)
		}
		return
	}
	if times, due := logDue(p.failures.Add(1)); due {
		p.cfg.Log.Warn("handshake failed", "remote", remote, "error", err, "times", times)
	}
}
