package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/pion/dtls/v3"

	"tollbridge/ipfix"
)

// dtlsOverhead is what DTLS 1.2 adds to a Message, in octets: record header,
// nonce and tag of AES-GCM (RFC 6347, Section 4.1; RFC 5288).
const dtlsOverhead = 13 + 8 + 16

// maxDTLSMessage is what the library takes in one record.
const maxDTLSMessage = 8192 - dtlsOverhead

// dtlsSuites are those with the overhead above. They authenticate by
// certificate, and keep no secret that a stolen key would tell later.
var dtlsSuites = []dtls.CipherSuiteID{
	dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
}

// A dtlsConn is a DTLS association over a socket of its own.
type dtlsConn struct {
	*dtls.Conn
	socket net.Conn
}

func (p *Process) dialDTLS(ctx context.Context, address string) (net.Conn, error) {
	socket, err := p.cfg.Dial(ctx, "udp", address)
	if err != nil {
		return nil, err
	}
	forbidFragments(socket)
	mtu := p.unmeasured
	if octets := pathLimit(socket); octets > 0 {
		mtu = min(1200, octets)
	}
	secure := p.tls.Load()
	c, err := dtls.ClientWithOptions(connected{socket}, socket.RemoteAddr(),
		dtls.WithCertificates(secure.Certificate),
		dtls.WithRootCAs(secure.RootCAs),
		dtls.WithServerName(secure.serverName(address)),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithCipherSuites(dtlsSuites...),
		dtls.WithMTU(mtu),
	)
	if err == nil {
		err = c.HandshakeContext(ctx)
	}
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("dtls handshake: %w", err)
	}
	return dtlsConn{Conn: c, socket: socket}, nil
}

// connected is a connected socket in the shape that the library asks for.
type connected struct{ net.Conn }

func (c connected) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := c.Read(b)
	return n, c.RemoteAddr(), err
}

func (c connected) WriteTo(b []byte, _ net.Addr) (int, error) { return c.Write(b) }

// errRenew is why an association ends that has lasted long enough.
var errRenew = errors.New("export: association is to be renewed")

// dtlsCarrier carries Messages over a DTLS association. Datagrams get lost as
// over UDP, so Templates are sent again too.
type dtlsCarrier struct {
	*udp
	renew time.Time
	ended chan error // see carrier.gone; closed after that
}

func newDTLS(s sender) *dtlsCarrier {
	conn := s.conn.(dtlsConn)
	c := &dtlsCarrier{
		udp:   newUDP(s, conn.socket),
		renew: time.Now().Add(s.cfg.TemplateRefresh),
		ended: make(chan error, 1),
	}
	go c.watch()
	return c
}

// watch waits for the Collecting Process to end the association, or for ICMP
// to tell that nobody is there.
func (c *dtlsCarrier) watch() {
	b := make([]byte, 8192)
	var err error
	for err == nil {
		_, err = c.conn.Read(b)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	c.ended <- err
	close(c.ended)
}

func (c *dtlsCarrier) send(batch []message, templates []*ipfix.Template) (int, error) {
	if len(batch) > 0 && !time.Now().Before(c.renew) {
		return 0, errRenew
	}
	return c.udp.send(batch, templates)
}

func (c *dtlsCarrier) gone() <-chan error { return c.ended }

func (c *dtlsCarrier) close() {
	c.conn.Close()
	for range c.ended { // until watch has ended
	}
}
