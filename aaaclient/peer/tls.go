package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"tollbridge/dict/avp"
)

// A CertificateError says that a peer's certificate is good, but is not that
// of the node that the peer is, or should be.
type CertificateError struct {
	Host  string   // the DiameterIdentity wanted
	Names []string // those that the certificate is for; none in one without dNSNames
}

func (e *CertificateError) Error() string {
	if len(e.Names) == 0 {
		return fmt.Sprintf("peer: the certificate names no DiameterIdentity (subjectAltName dNSName), wanted %s", e.Host)
	}
	return fmt.Sprintf("peer: the certificate is for %s, not for %s", strings.Join(e.Names, ", "), e.Host)
}

// VerifyCertificate checks that the peer's certificate is for a
// DiameterIdentity: one dNSName of its subjectAltName equals host (RFC 6733,
// Section 5.2). A wildcard matches nothing and a common name counts for
// nothing: an authority that vouches for many nodes must vouch for each by its
// name. The error is a *CertificateError. That the certificate's chain was
// verified is the business of the handshake.
func VerifyCertificate(state tls.ConnectionState, host string) error {
	names := certified(state)
	if slices.ContainsFunc(names, func(name string) bool { return avp.EqualIdentity(name, host) }) {
		return nil
	}
	return &CertificateError{Host: host, Names: names}
}

func certified(state tls.ConnectionState) []string {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	return state.PeerCertificates[0].DNSNames
}

// CertificateNames returns the dNSNames of the certificate that the other side
// of nc has shown; none where nc is no TLS connection or has not shaken hands.
func CertificateNames(nc net.Conn) []string {
	if c, ok := nc.(*tls.Conn); ok {
		return certified(c.ConnectionState())
	}
	return nil
}

// Credentials are the files that say who we are over TLS and whose word we
// take for who others are. They are read again when they have changed, before
// the next handshake; connections that stand are left alone. Files that can't
// be used then leave the former ones in force, and a line in the log. Methods
// may be called by many goroutines at once.
type Credentials struct {
	files [3]string // certificate, key, authorities: PEM
	log   *slog.Logger

	mu          sync.Mutex
	stamps      [3]stamp
	certificate tls.Certificate
	roots       *x509.CertPool
}

// A stamp tells two states of a file apart.
type stamp struct {
	size     int64
	modified time.Time
}

// LoadCredentials reads the PEM files of a certificate with its chain, of its
// private key, and of the authorities that vouch for others. A nil log
// discards.
func LoadCredentials(certificate, key, authorities string, log *slog.Logger) (*Credentials, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Credentials{files: [3]string{certificate, key, authorities}, log: log}
	c.mu.Lock()
	defer c.mu.Unlock()
	stamps, err := c.stat()
	if err != nil {
		return nil, err
	}
	if err := c.loadLocked(); err != nil {
		return nil, err
	}
	c.stamps = stamps
	return c, nil
}

func (c *Credentials) stat() (stamps [3]stamp, err error) {
	for i, name := range c.files {
		info, err := os.Stat(name)
		if err != nil {
			return stamps, fmt.Errorf("peer: credentials: %w", err)
		}
		stamps[i] = stamp{info.Size(), info.ModTime()}
	}
	return stamps, nil
}

func (c *Credentials) loadLocked() error {
	certificate, err := tls.LoadX509KeyPair(c.files[0], c.files[1])
	if err != nil {
		return fmt.Errorf("peer: credentials: %s and %s: %w", c.files[0], c.files[1], err)
	}
	ca, err := os.ReadFile(c.files[2])
	if err != nil {
		return fmt.Errorf("peer: credentials: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("peer: credentials: %s holds no certificate in PEM", c.files[2])
	}
	c.certificate, c.roots = certificate, roots
	return nil
}

// current returns what the files hold now, or held when they could be used.
func (c *Credentials) current() (tls.Certificate, *x509.CertPool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamps, err := c.stat()
	if err == nil && stamps != c.stamps {
		if err = c.loadLocked(); err == nil {
			c.log.Info("certificate is read anew", "file", c.files[0])
		}
		c.stamps = stamps // else the same files would be blamed at each handshake
	}
	if err != nil {
		c.log.Error("certificate can't be read anew: the former one stays in force", "error", err)
	}
	return c.certificate, c.roots
}

// Certificate returns our certificate's own DiameterIdentities, its dNSNames.
func (c *Credentials) Certificate() ([]string, error) {
	certificate, _ := c.current()
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("peer: credentials: %s: %w", c.files[0], err)
	}
	return leaf.DNSNames, nil
}

// Client returns the configuration of one handshake with the node of a
// DiameterIdentity, whose certificate must be for it (RFC 6733, Section 13.1).
func (c *Credentials) Client(host string) *tls.Config {
	certificate, roots := c.current()
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{certificate},
		ServerName:   host,
		// The name is a DiameterIdentity, which VerifyCertificate compares
		// without wildcards; what Go would compare is the same but for those.
		RootCAs: roots,
		// Go would speak of "x509: certificate is valid for ..." first.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if err := verifyChain(state, roots, x509.ExtKeyUsageServerAuth); err != nil {
				return err
			}
			return VerifyCertificate(state, host)
		},
	}
}

// Verify checks that one of the authorities vouches for the node on the other
// side of nc, as for the side of a handshake that it was: the server where we
// have initiated the connection, else the client.
func (c *Credentials) Verify(nc *tls.Conn, initiated bool) error {
	_, roots := c.current()
	usage := x509.ExtKeyUsageClientAuth
	if initiated {
		usage = x509.ExtKeyUsageServerAuth
	}
	return verifyChain(nc.ConnectionState(), roots, usage)
}

// verifyChain is what crypto/tls does where it is left to it, but for the
// name.
func verifyChain(state tls.ConnectionState, roots *x509.CertPool, usage x509.ExtKeyUsage) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("peer: no certificate was shown")
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return fmt.Errorf("peer: the certificate of %s is not to be trusted: %w", state.PeerCertificates[0].Subject, err)
	}
	return nil
}

// Server returns the configuration of a listener. Whoever connects must show
// a certificate of the authorities; whether it is for the Origin-Host of its
// CER is for Config.Admit to ask, with VerifyCertificate.
func (c *Credentials) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			certificate, roots := c.current()
			return &tls.Config{
				MinVersion:   tls.VersionTLS12,
				Certificates: []tls.Certificate{certificate},
				ClientAuth:   tls.RequireAndVerifyClientCert,
				ClientCAs:    roots,
			}, nil
		},
	}
}
