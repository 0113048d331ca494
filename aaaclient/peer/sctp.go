package peer

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"tollbridge/dict/avp"
	"tollbridge/internal/sctp"
)

// protocolClear is the Payload Protocol Identifier of Diameter in the clear
// (RFC 6733, Section 2.1.1).
const protocolClear = 46

// sctpConfig bounds the longest message by the socket's buffers.
var sctpConfig = sctp.Config{Buffer: 2 * DefaultMaxMessage}

// DialSCTP makes an SCTP association with host:port. What is written to it must
// be whole Diameter messages: each becomes a message of SCTP (RFC 6733, Section
// 2.1.1).
func DialSCTP(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "tcp", port) // port names are those of TCP (RFC 6733, Section 11.4)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for _, ip := range ips {
		var c *sctp.Conn
		if c, err = sctp.Dial(ctx, netip.AddrPortFrom(ip.Unmap(), uint16(n)), sctpConfig); err == nil {
			return newAssociation(c), nil
		}
	}
	return nil, err
}

// ListenSCTP listens for associations as DialSCTP makes them.
func ListenSCTP(at netip.AddrPort) (net.Listener, error) {
	ln, err := sctp.Listen(at, sctpConfig)
	if err != nil {
		return nil, err
	}
	return associations{ln}, nil
}

type associations struct{ *sctp.Listener }

// Accept implements net.Listener.
func (l associations) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newAssociation(nc.(*sctp.Conn)), nil
}

// An association reads as a stream of octets, which Diameter messages say the
// bounds of themselves, and writes each message as one of SCTP. Messages of the
// base protocol go on stream 0, so in order; those of applications take turns
// on all streams, so that one that was lost holds up few others. Who sends
// requests waits for the answer before what must not overtake it.
type association struct {
	*sctp.Conn
	streams uint32
	turn    atomic.Uint32
	short   [64]byte // where a reader has less room than a notification takes
	rest    []byte   // of short, not read yet
}

func newAssociation(c *sctp.Conn) *association {
	return &association{Conn: c, streams: uint32(c.Streams())}
}

// Read reads what has come of a message.
func (a *association) Read(b []byte) (n int, err error) {
	if len(a.rest) == 0 {
		if len(b) >= len(a.short) {
			n, _, _, err = a.ReadPart(b)
			return n, err
		}
		if n, _, _, err = a.ReadPart(a.short[:]); err != nil {
			return 0, err
		}
		a.rest = a.short[:n]
	}
	n = copy(b, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Write writes whole messages.
func (a *association) Write(b []byte) (written int, err error) {
	for written < len(b) {
		h, err := avp.ParseHeader(b[written:])
		if err == nil && int(h.Length) > len(b)-written {
			err = fmt.Errorf("%w: a message of %d octets ends after %d", ErrProtocol, h.Length, len(b)-written)
		}
		if err != nil {
			return written, fmt.Errorf("peer: write over SCTP: %w", err)
		}
		m := sctp.Message{Protocol: protocolClear}
		if h.Application != avp.ApplicationCommon {
			m.Stream = uint16(a.turn.Add(1) % a.streams)
		}
		if err := a.WriteMessage(b[written:written+int(h.Length)], m); err != nil {
			return written, err
		}
		written += int(h.Length)
	}
	return written, nil
}
