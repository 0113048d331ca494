package peer_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/dict/avp"
	"tollbridge/internal/certtest"
)

const bridgeName, homeName = "bridge.visited.example", "acct.home.example"

// shake connects both sides over TLS and returns what each said.
func shake(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	for _, c := range []net.Conn{near, far} {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		s := tls.Server(far, server)
		err := s.HandshakeContext(context.Background())
		if err == nil {
			if names := peer.CertificateNames(s); len(names) != 1 || names[0] != bridgeName {
				err = errors.New("the server saw " + strings.Join(names, " "))
			}
			_, writeErr := s.Write([]byte{0})
			err = errors.Join(err, writeErr)
		}
		done <- err
		if err != nil {
			far.Close()
		}
	}()
	c := tls.Client(near, client)
	if clientErr = c.HandshakeContext(context.Background()); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1)) // TLS 1.3 refuses a client here
	} else {
		near.Close()
	}
	return clientErr, <-done
}

func credentials(t *testing.T, ca *certtest.Authority, c tls.Certificate, log *slog.Logger) (*peer.Credentials, certtest.Files) {
	t.Helper()
	f := ca.Write(c)
	cr, err := peer.LoadCredentials(f.Certificate, f.Key, f.CA, log)
	if err != nil {
		t.Fatal(err)
	}
	return cr, f
}

// RFC 6733, Sections 5.2 and 13.1: both sides show a certificate, and it is
// for the DiameterIdentity that is wanted.
func TestCertificateOfIdentity(t *testing.T) {
	ca, stranger := certtest.NewAuthority(t), certtest.NewAuthority(t)
	ours, _ := credentials(t, ca, ca.Issue(bridgeName), nil)
	for _, test := range []struct {
		name   string
		server tls.Certificate
		want   string // in the client's error; "" for none
	}{
		{"subjectAltName dNSName equals the identity", ca.Issue(homeName), ""},
		{"identities differ in case only", ca.Issue("ACCT.Home.Example"), ""},
		{"one of several names", ca.Issue("other.home.example", homeName), ""},
		{"another node of the same authority", ca.Issue("acct.other.example"), "the certificate is for acct.other.example, not for acct.home.example"},
		{"a wildcard of the realm", ca.Issue("*.home.example"), "the certificate is for *.home.example, not for acct.home.example"},
		{"no name but an address", ca.Issue(), "names no DiameterIdentity"},
		{"an authority that nobody trusts", stranger.Issue(homeName), "is not to be trusted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			theirs, _ := credentials(t, ca, test.server, nil)
			clientErr, serverErr := shake(t, ours.Client(homeName), theirs.Server())
			if test.want == "" {
				if clientErr != nil || serverErr != nil {
					t.Errorf("refused: %v, %v", clientErr, serverErr)
				}
				return
			}
			if clientErr == nil || !strings.Contains(clientErr.Error(), test.want) {
				t.Errorf("error %v, want %q", clientErr, test.want)
			}
		})
	}
	t.Run("a client of another authority", func(t *testing.T) {
		theirs, _ := credentials(t, ca, ca.Issue(homeName), nil)
		bad := ours.Client(homeName)
		bad.Certificates = []tls.Certificate{stranger.Issue(bridgeName)}
		if _, serverErr := shake(t, bad, theirs.Server()); serverErr == nil {
			t.Error("the server took it")
		}
	})
	t.Run("a client without a certificate", func(t *testing.T) {
		theirs, _ := credentials(t, ca, ca.Issue(homeName), nil)
		bad := ours.Client(homeName)
		bad.Certificates = nil
		if _, serverErr := shake(t, bad, theirs.Server()); serverErr == nil {
			t.Error("the server took it")
		}
	})
}

// A certificate that is renewed is shown from the next handshake on; one that
// can't be read leaves the former in force.
func TestCredentialsReload(t *testing.T) {
	ca := certtest.NewAuthority(t)
	var lines bytes.Buffer
	cr, files := credentials(t, ca, ca.Issue("old.example"), slog.New(slog.NewTextHandler(&lines, nil)))
	put := func(from certtest.Files) {
		t.Helper()
		for to, name := range map[string]string{files.Certificate: from.Certificate, files.Key: from.Key} {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, append(b, '\n'), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	is := func(want string) {
		t.Helper()
		if names, err := cr.Certificate(); err != nil || len(names) != 1 || names[0] != want {
			t.Fatalf("the certificate is for %v (%v), want %s", names, err, want)
		}
	}
	is("old.example")
	put(ca.Write(ca.Issue("longer.new.example")))
	is("longer.new.example")
	if err := os.WriteFile(files.Certificate, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	is("longer.new.example")
	is("longer.new.example")
	if n := strings.Count(lines.String(), "former one stays in force"); n != 1 {
		t.Errorf("%d lines about the bad file, want 1:\n%s", n, &lines)
	}
	put(ca.Write(ca.Issue("third.even-longer.new.example")))
	is("third.even-longer.new.example")
	if _, err := peer.LoadCredentials(files.Certificate, files.Key, files.Certificate+".none", nil); err == nil {
		t.Error("a file that is not there is taken")
	}
}

// A refusal is told in words that say what to do.
func TestRefusalIsExplained(t *testing.T) {
	for code, want := range map[uint32]string{
		5010: "peer: capabilities refused: Result-Code 5010 DIAMETER_NO_COMMON_APPLICATION (the nodes share no application: accounting is 3, coupled NASREQ 1): because",
		5017: "peer: capabilities refused: Result-Code 5017 DIAMETER_NO_COMMON_SECURITY (one side wants TLS, the other does not): because",
		5999: "peer: capabilities refused: Result-Code 5999: because",
	} {
		if got := (&peer.Refusal{Code: code, Message: "because"}).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A connection that someone has made is a peer's where it proves what the
// peer's own side would have to (RFC 6733, Section 13.1): its authority and name,
// or without TLS its address.
func TestDestinationProves(t *testing.T) {
	ours, other := certtest.NewAuthority(t), certtest.NewAuthority(t)
	trusted, _ := credentials(t, ours, ours.Issue(bridgeName), nil)
	issue := func(a *certtest.Authority, name string, usage x509.ExtKeyUsage) *tls.Certificate {
		c := a.IssueLike(func(c *x509.Certificate) { c.DNSNames, c.ExtKeyUsage = []string{name}, []x509.ExtKeyUsage{usage} })
		return &c
	}
	secure, clear := peer.Destination{Host: homeName, TLS: trusted}, peer.Destination{Host: homeName, Address: "127.0.0.1:3868"}
	elsewhere, nowhere := clear, clear
	elsewhere.Address, nowhere.Address = "192.0.2.1:3868", "127.0.0.1"
	for name, test := range map[string]struct {
		peer  peer.Destination
		shows *tls.Certificate // nil for no TLS
		want  uint32
	}{
		"its certificate":                        {secure, issue(ours, homeName, x509.ExtKeyUsageClientAuth), 0},
		"its name by another authority":          {secure, issue(other, homeName, x509.ExtKeyUsageClientAuth), avp.ResultUnknownPeer},
		"another name":                           {secure, issue(ours, bridgeName, x509.ExtKeyUsageClientAuth), avp.ResultUnknownPeer},
		"a certificate that is for servers only": {secure, issue(ours, homeName, x509.ExtKeyUsageServerAuth), avp.ResultUnknownPeer},
		"no TLS":                                 {secure, nil, avp.ResultNoCommonSecurity},
		"its address":                            {clear, nil, 0},
		"another address":                        {elsewhere, nil, avp.ResultUnknownPeer},
		"an address that can't be found":         {nowhere, nil, avp.ResultUnknownPeer},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			far, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			near, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer near.Close()
			if test.shows != nil {
				own := ours.Issue(bridgeName)
				s := tls.Server(near, &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAnyClientCert})
				c := tls.Client(far, &tls.Config{RootCAs: ours.Pool(), ServerName: bridgeName, Certificates: []tls.Certificate{*test.shows}})
				shaken := make(chan error, 1)
				go func() { shaken <- c.HandshakeContext(t.Context()) }()
				if err := errors.Join(s.HandshakeContext(t.Context()), <-shaken); err != nil {
					t.Fatal(err)
				}
				near = s
			}
			err = test.peer.Proves(t.Context(), near)
			var refused *peer.Refusal
			if test.want == 0 && err != nil || test.want != 0 && (!errors.As(err, &refused) || refused.Code != test.want) {
				t.Errorf("it gets %v, want %d", err, test.want)
			}
		})
	}
}
