// Package collect is an IPFIX Collecting Process (RFC 7011) over UDP, TCP,
// TLS, DTLS and SCTP.
//
// A Process checks what needs no state, that every Message is well formed,
// and hands it raw to a Journal. Templates, sequence numbers and records are
// for those who read the Journal.
package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
)

// A Journal stores what a Process receives. Its methods are called by several
// goroutines at once, though never at once for one session.
//
// An error is final: the Process stops serving and returns it.
type Journal interface {
	// Open begins a Transport Session and returns its number. A UDP session
	// that was open when the Process stopped was not closed, as its Exporting
	// Process knows nothing of the stop and its Templates still hold (RFC
	// 7011, Section 8.4). An Open with an equal Session continues it.
	Open(at time.Time, s Session) (number uint64, err error)

	// Message stores one well-formed Message and returns its position. It
	// copies data. It may block to hold up the exporters: TCP stops reading,
	// and the kernel drops, and counts, what comes by UDP.
	Message(at time.Time, session uint64, data []byte) (position uint64, err error)

	// Close ends a Transport Session.
	Close(at time.Time, session uint64) error
}

// A DurableJournal is a Journal that can tell when what it was given is
// durable. A Process closes its end of a TCP connection, with TLS or without,
// only then: an exporter that waits for that knows that all it sent is kept.
type DurableJournal interface {
	// Sync returns once all that was given before it is durable.
	Sync(ctx context.Context) error
}

// A Session is what identifies a Transport Session (RFC 7011, Section 2).
type Session struct {
	Transport ipfix.Transport
	Exporter  string // the configured name, or the address without port, or the certificate's first name
	Remote    netip.AddrPort
	Local     netip.AddrPort // what the Process listens on; for TCP and TLS, the connection's own
}

// A Config says how a Process collects.
type Config struct {
	Journal Journal // required

	// Exporters are who may export. Over UDP, TCP and SCTP the longest prefix
	// that holds an address names it; over TLS and DTLS a name in its certificate
	// does. Where there are none everyone may, and an exporter is its address
	// or the first name of its certificate.
	Exporters []Exporter

	// TLS is required to serve TLS or DTLS; see SetTLS too.
	TLS *TLS

	// LookUp returns the addresses of a name in the DNS, such as those of
	// net.Resolver.LookupNetIP. Where it is given, an exporter over TLS or DTLS has to
	// come from an address of its name (RFC 7011, Section 11.3). It is part of
	// the handshake, and bounded with it.
	LookUp func(ctx context.Context, name string) ([]netip.Addr, error)

	// MaxHandshakes bounds the handshakes of TLS and DTLS under way, and
	// HandshakeTimeout each. The oldest gives way to a new one. 0 means 64,
	// and 10 seconds.
	MaxHandshakes    int
	HandshakeTimeout time.Duration

	// MaxExporters bounds the exporters remembered where none are configured.
	// One without a session makes room for a new one. 0 means 4096.
	MaxExporters int

	// MaxSessions and MaxExporterSessions bound the UDP Transport Sessions, or
	// DTLS associations, of one socket, in all and per exporter. The least recently used is closed
	// to make room for a new one. 0 means 4096 and 256.
	MaxSessions         int
	MaxExporterSessions int

	// MaxConnections and MaxExporterConnections bound the TCP connections, with
	// TLS or without, and SCTP associations, in all and per exporter. One too many is refused. 0 means 1024 and 16.
	MaxConnections         int
	MaxExporterConnections int

	// IdleTimeout closes a UDP or DTLS Transport Session that brought no well-formed
	// Message for so long. It should be no shorter than the time between two
	// sendings of a Template. 0 means 30 minutes (RFC 7011, Section 8.4).
	IdleTimeout time.Duration

	// StopTimeout bounds how long a Process that was told to stop reads on
	// until the exporters have closed, and how long an end of a connection waits
	// for a DurableJournal. 0 means 5 seconds.
	StopTimeout time.Duration

	// ReceiveBuffer is the SO_RCVBUF, in octets, to ask for UDP sockets. The
	// kernel may grant less. As much waits, at most, to be decrypted at one DTLS
	// socket. 0 means 8 MiB.
	ReceiveBuffer int

	// MaxDatagram is the longest Message taken from UDP, in octets. 0 means
	// 65535, as long as a Message can be.
	MaxDatagram int

	// Acknowledge answers exporters over TCP, TLS and SCTP that ask for
	// acknowledged export. Nil answers nobody: they see a plain Process.
	Acknowledge Durability

	// Enterprise is the Private Enterprise Number of the elements of
	// acknowledged export. 0 means ack.Enterprise.
	Enterprise uint32

	Now func() time.Time // arrival times and idleness; nil means time.Now
	Log *slog.Logger     // nil discards
}

// A Process is a Collecting Process. All its methods may be called at once.
type Process struct {
	cfg        Config
	tls        atomic.Pointer[TLS]
	exporters  *exporters
	handshakes handshakes
	dropped    atomic.Uint64 // datagrams, at all UDP sockets
	failures   atomic.Uint64 // of handshakes
	refusals   atomic.Uint64 // for the log

	answerers        sync.Map // net.Conn to its *answerer
	acknowledgements atomic.Uint64
	heldUps          atomic.Uint64
}

// New checks cfg and returns a Process that serves nothing yet.
func New(cfg Config) (*Process, error) {
	if cfg.Journal == nil {
		return nil, errors.New("collect: Config.Journal is required")
	}
	if cfg.MaxDatagram < 0 || cfg.MaxDatagram > ipfix.MaxMessage {
		return nil, fmt.Errorf("collect: Config.MaxDatagram: %d is not within 0 and %d", cfg.MaxDatagram, ipfix.MaxMessage)
	}
	if cfg.TLS != nil {
		if err := cfg.TLS.check(); err != nil {
			return nil, err
		}
	}
	orDefault(&cfg.MaxHandshakes, 64)
	orDefault(&cfg.HandshakeTimeout, 10*time.Second)
	orDefault(&cfg.MaxExporters, 4096)
	orDefault(&cfg.MaxSessions, 4096)
	orDefault(&cfg.MaxExporterSessions, 256)
	orDefault(&cfg.MaxConnections, 1024)
	orDefault(&cfg.MaxExporterConnections, 16)
	orDefault(&cfg.IdleTimeout, 30*time.Minute)
	orDefault(&cfg.StopTimeout, 5*time.Second)
	orDefault(&cfg.ReceiveBuffer, 8<<20)
	orDefault(&cfg.MaxDatagram, ipfix.MaxMessage)
	if cfg.Enterprise == 0 {
		cfg.Enterprise = ack.Enterprise
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	exporters, err := newExporters(cfg)
	if err != nil {
		return nil, err
	}
	p := &Process{cfg: cfg, exporters: exporters, handshakes: handshakes{max: cfg.MaxHandshakes}}
	p.tls.Store(cfg.TLS)
	return p, nil
}

func orDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// message journals one well-formed Message and counts it.
func (p *Process) message(at time.Time, e *exporter, session uint64, msg []byte) (position uint64, err error) {
	if position, err = p.cfg.Journal.Message(at, session, msg); err != nil {
		return 0, fmt.Errorf("collect: journal a message of %s: %w", e.name, err)
	}
	e.messages.Add(1)
	e.octets.Add(uint64(len(msg)))
	return position, nil
}

// streamMessage is message for one that came over an SCTP stream.
func (p *Process) streamMessage(at time.Time, e *exporter, session uint64, stream uint16, msg []byte) (position uint64, err error) {
	j, ok := p.cfg.Journal.(StreamJournal)
	if !ok {
		return p.message(at, e, session, msg)
	}
	if position, err = j.StreamMessage(at, session, stream, msg); err != nil {
		return 0, fmt.Errorf("collect: journal a message of %s: %w", e.name, err)
	}
	e.messages.Add(1)
	e.octets.Add(uint64(len(msg)))
	return position, nil
}

func (p *Process) open(at time.Time, e *exporter, s Session) (uint64, error) {
	number, err := p.cfg.Journal.Open(at, s)
	if err != nil {
		return 0, fmt.Errorf("collect: journal the opening of a session of %s: %w", e.name, err)
	}
	e.opened.Add(1)
	p.logSession(slog.LevelInfo, "transport session opened", e, "transport", s.Transport, "remote", s.Remote)
	return number, nil
}

// sync waits until what was read is durable, where the Journal can tell, but
// no longer than StopTimeout.
func (p *Process) sync() error {
	j, ok := p.cfg.Journal.(DurableJournal)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.StopTimeout)
	defer cancel()
	return j.Sync(ctx)
}

func (p *Process) close(at time.Time, e *exporter, session uint64) error {
	if err := p.cfg.Journal.Close(at, session); err != nil {
		return fmt.Errorf("collect: journal the closing of a session of %s: %w", e.name, err)
	}
	e.closed.Add(1)
	p.logSession(slog.LevelInfo, "transport session closed", e, "session", session)
	return nil
}
