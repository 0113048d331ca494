package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"tollbridge/cmd/tollbridge/internal/config"
)

const (
	// credentialsLook is the time between two looks at the files.
	credentialsLook = 10 * time.Second

	// expiryNotice is how long before its end a certificate is warned of, once
	// a day.
	expiryNotice = 14 * 24 * time.Hour
)

// credentials are a certificate, its key and the authorities that we believe,
// as their files have them. The zero config.TLS has no files.
type credentials struct {
	files config.TLS
	key   string // what the log calls them
	log   *slog.Logger

	// use takes new ones, for the handshakes from then on.
	use func(tls.Certificate, *x509.CertPool) error

	digest  [32]byte     // of the files when they were read last
	expires atomic.Int64 // Unix seconds; 0 without files
	warned  time.Time    // of expires
}

// load reads the files for the first time.
func (c *credentials) load() (tls.Certificate, *x509.CertPool, error) {
	c.digest = c.sum()
	certificate, authorities, err := c.files.Load()
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("%s: %w", c.key, err)
	}
	c.loaded(certificate)
	return certificate, authorities, nil
}

func (c *credentials) loaded(certificate tls.Certificate) {
	c.expires.Store(certificate.Leaf.NotAfter.Unix())
	c.warned = time.Time{}
	c.warn()
}

// sum returns what changes when a file does.
func (c *credentials) sum() [32]byte {
	h := sha256.New()
	for _, name := range []string{c.files.Certificate, c.files.Key, c.files.CA} {
		b, err := os.ReadFile(name)
		fmt.Fprintf(h, "%d %v\n", len(b), err)
		h.Write(b)
	}
	return [32]byte(h.Sum(nil))
}

// watch reads the files again whenever they have changed, and looks at once
// on SIGHUP, until ctx ends. Files that are of no use change nothing, and are
// told once: certificate and key are seldom written at the same moment.
func (c *credentials) watch(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	ticker := time.NewTicker(credentialsLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-hangup:
			c.log.Info("looking for new certificates")
		}
		if c.files != (config.TLS{}) {
			c.look()
		}
	}
}

func (c *credentials) look() {
	defer c.warn()
	sum := c.sum()
	if sum == c.digest {
		return
	}
	c.digest = sum
	certificate, authorities, err := c.files.Load()
	if err == nil {
		err = c.use(certificate, authorities)
	}
	if err != nil {
		c.log.Error("new certificate can't be used; the one before counts on", "what", c.key, "error", err)
		return
	}
	c.loaded(certificate)
	c.log.Info("new certificate for the handshakes from now on", "what", c.key, "certificate", c.files.Certificate, "expires", certificate.Leaf.NotAfter)
}

// warn tells of a certificate that ends soon.
func (c *credentials) warn() {
	at := c.expires.Load()
	if at == 0 || time.Until(time.Unix(at, 0)) > expiryNotice || time.Since(c.warned) < 24*time.Hour {
		return
	}
	c.warned = time.Now()
	c.log.Warn("certificate expires soon, or has: no handshake succeeds then", "what", c.key, "certificate", c.files.Certificate, "expires", time.Unix(at, 0).UTC())
}
