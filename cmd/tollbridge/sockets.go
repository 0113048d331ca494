package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"tollbridge/aaaclient/peer"
	"tollbridge/internal/sctp"
)

// sockets are what the daemon listens on.
type sockets struct {
	udp, dtls   []*net.UDPConn // of the Collecting Process, as the next two lines
	tcp, tls    []net.Listener
	sctp        []*sctp.Listener
	diameter    []net.Listener // of the Diameter entrance, over TCP and SCTP
	diameterTLS []net.Listener
	status      net.Listener // nil for none
}

// listen opens the sockets that the configuration asks for, and names each
// that can't be had.
func (b *bridge) listen() error {
	c, s := &b.cfg.CollectingProcess, &b.cfg.Server
	errs := []error{
		listenOn(b, &b.udp, "collectingProcess.udpCollectors", c.UDPCollectors, listenUDP),
		listenOn(b, &b.dtls, "collectingProcess.dtlsCollectors", c.DTLSCollectors, listenUDP),
		listenOn(b, &b.tcp, "collectingProcess.tcpCollectors", c.TCPCollectors, listenTCP),
		listenOn(b, &b.tls, "collectingProcess.tlsCollectors", c.TLSCollectors, listenTCP),
		listenOn(b, &b.sctp, "collectingProcess.sctpCollectors", c.SCTPCollectors, listenSCTP),
		listenOn(b, &b.diameter, "server.listen", s.Listen, listenTCP),
		listenOn(b, &b.diameter, "server.sctpListen", s.SCTPListen, peer.ListenSCTP),
		listenOn(b, &b.diameterTLS, "server.tlsListen", s.TLSListen, listenTCP),
	}
	if a := b.cfg.Status.Listen; a.IsValid() {
		var one []net.Listener
		if err := listenOn(b, &one, "status.listen", []netip.AddrPort{a}, listenTCP); err != nil {
			errs = append(errs, err)
		} else {
			b.status = one[0]
		}
	}
	return errors.Join(errs...)
}

// listenOn opens a socket at each address of a key of the configuration, adds
// them to those in to, and has b close them.
func listenOn[T io.Closer](b *bridge, to *[]T, key string, addrs []netip.AddrPort, open func(netip.AddrPort) (T, error)) error {
	for _, a := range addrs {
		s, err := open(a)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			return fmt.Errorf("%s: %w: load the kernel's SCTP (modprobe sctp), or remove the key", key, err)
		case errors.Is(err, syscall.EADDRINUSE):
			return fmt.Errorf("%s: %w: stop the process that has the port, or choose another", key, err)
		case errors.Is(err, syscall.EACCES):
			return fmt.Errorf("%s: %w: ports below 1024 need root or CAP_NET_BIND_SERVICE", key, err)
		case err != nil:
			return fmt.Errorf("%s: %w", key, err)
		}
		b.closers = append(b.closers, s.Close)
		b.log.Info("listening", "what", key, "address", localAddr(s))
		*to = append(*to, s)
	}
	return nil
}

// localAddr is where a socket is, with the port that the kernel chose for 0.
func localAddr(s any) string {
	switch s := s.(type) {
	case interface{ Addr() net.Addr }:
		return s.Addr().String()
	case net.PacketConn:
		return s.LocalAddr().String()
	}
	return ""
}

func listenTCP(a netip.AddrPort) (net.Listener, error) {
	var c net.ListenConfig
	return c.Listen(context.Background(), network("tcp", a), a.String())
}

func listenUDP(a netip.AddrPort) (*net.UDPConn, error) {
	return net.ListenUDP(network("udp", a), net.UDPAddrFromAddrPort(a))
}

// network returns that of a's version of IP alone: 0.0.0.0 would else be all of
// IPv6 too, and have [::] beside it refused.
func network(protocol string, a netip.AddrPort) string {
	if a.Addr().Is4() {
		return protocol + "4"
	}
	return protocol + "6"
}

func listenSCTP(a netip.AddrPort) (*sctp.Listener, error) { return sctp.Listen(a, sctp.Config{}) }
