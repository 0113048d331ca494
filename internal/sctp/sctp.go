// Package sctp is SCTP (RFC 9260) for IPFIX and Diameter: associations with
// several streams, whole messages, deadlines, and partial reliability for what
// asks for it (RFC 3758). Types and constants are those of ishidawataru/sctp;
// the sockets are our own, as they must wait in the runtime's poller, be woken
// by Close, and keep messages whole.
//
// A kernel without SCTP refuses to open a socket: errors.Is(err,
// errors.ErrUnsupported).
package sctp

import (
	"errors"
	"net/netip"
	"time"
)

// ErrTooLong says that a message was longer than the buffer for it. It was
// thrown away whole; the next can be read.
var ErrTooLong = errors.New("message is too long")

// ErrAbandoned says that the rest of a message, of which a part was read, will
// not come: its sender has given it up (RFC 3758). The next can be read.
var ErrAbandoned = errors.New("the rest of a message was given up")

// A Config says how associations are made.
type Config struct {
	// Streams is the most streams in each direction. Each costs memory at both
	// ends. 0 means 16.
	Streams uint16

	// Buffer is the SO_SNDBUF and SO_RCVBUF to ask for, in octets; a message
	// must fit. 0 means 1 MiB.
	Buffer int
}

func (c Config) withDefaults() Config {
	if c.Streams == 0 {
		c.Streams = 16
	}
	if c.Buffer == 0 {
		c.Buffer = 1 << 20
	}
	return c
}

// A Message says how one is sent, or was received.
type Message struct {
	Stream    uint16
	Unordered bool
	Protocol  uint32 // Payload Protocol Identifier; 0 is unspecified

	// Lifetime bounds how long sending is tried, in milliseconds at least. 0
	// is for ever: the message is reliable. It is 0 in what was received.
	Lifetime time.Duration
}

// An Addr is one address and the port of an end of an association.
type Addr struct{ addr netip.AddrPort }

// Network returns "sctp".
func (Addr) Network() string { return "sctp" }

// AddrPort returns the address and port, IPv4 as such.
func (a Addr) AddrPort() netip.AddrPort { return a.addr }

func (a Addr) String() string { return a.addr.String() }
