package export

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"tollbridge/ipfix"
)

// A Config says how a Process exports.
type Config struct {
	Transport ipfix.Transport // required
	Address   string          // required: host and port of the Collecting Process
	Domain    uint32          // Observation Domain ID

	// Backups are other Collecting Processes, the preferred first. One is
	// exported to while Address and those before it can't be reached. A plain
	// UDP exporter can't know of that and has none.
	Backups []string

	// TLS is required for TLS and DTLS; see SetTLS too.
	TLS *TLS

	// Streams is how many SCTP streams carry Data Records, in turn; Templates
	// have another. They are fewer where the other end takes fewer. 0 means 1.
	Streams int

	// Lifetime lets SCTP give up a Message of Data Records after so long
	// (PR-SCTP, RFC 3758): it is missing by the sequence numbers of its stream.
	// It is not for what is billed from. 0 means never.
	Lifetime time.Duration

	// MaxMessage is the longest Message, in octets. 0 means 8192 over TCP, TLS
	// and SCTP. Over UDP 0 means 1400, but 1232, what every IPv6 path carries, unless
	// Address is an IPv4 address; over DTLS it is 37 less. Over both a Message
	// is never longer than the path's MTU allows, as far as the kernel knows it;
	// where it does not, 0 means what a packet of 512 octets holds (RFC 7011,
	// Section 10.3.3).
	MaxMessage int

	// TemplateRefresh and TemplateRefreshMessages say when Templates are sent
	// again over UDP and DTLS: after so long, or after so many Messages if that
	// comes first. 0 means 10 minutes (RFC 7011, Section 8.4) and 1000 Messages.
	// A DTLS association lasts no longer than TemplateRefresh, as a Collecting
	// Process that lost its end can't tell.
	TemplateRefresh         time.Duration
	TemplateRefreshMessages int

	// Reconnect is the least time between two attempts to connect to one
	// Collecting Process. 0 means the 1 minute of RFC 7011, Section 10.4.4. The
	// first comes at once. While attempts fail the time doubles, up to
	// MaxReconnect; it is up to a quarter longer at random, so that exporters
	// that lost a Collecting Process together do not all return at once. A
	// connection that lasts as long as Reconnect ends that.
	Reconnect time.Duration

	// MaxReconnect is the most time between two attempts. 0 means ten times
	// Reconnect.
	MaxReconnect time.Duration

	// ConnectTimeout bounds one attempt, with its handshake (RFC 7011, Sections
	// 10.2.4 and 10.4.4). 0 means 30 seconds.
	ConnectTimeout time.Duration

	// Linger is how long a record waits, at most, for others to fill its
	// Message. 0 means 1 second.
	Linger time.Duration

	// Buffer is how many octets of Messages wait for the kernel before Export
	// blocks. It may be exceeded by one Message. 0 means 8 MiB.
	Buffer int

	// DropWhenFull lets Export drop a record where it would block. It is
	// counted as lost, and missing by the sequence numbers. With Acknowledged
	// it drops the oldest Messages instead, and tells of them.
	DropWhenFull bool

	// Acknowledged asks Collecting Processes for acknowledged export. It needs
	// TCP, TLS or SCTP. Buffer is not used then: Messages wait on disk.
	Acknowledged *Acknowledged

	// Dial connects over "udp" or "tcp"; nil means a net.Dialer's DialContext.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Log *slog.Logger // nil discards
}

// maxStreams bounds what an association costs.
const maxStreams = 1024

// minMessage is what a Message of one small Template or record needs.
const minMessage = 64

// check reports what is missing or impossible.
func (c *Config) check() error {
	switch c.Transport {
	case ipfix.UDP:
		if len(c.Backups) > 0 {
			return errors.New("export: Config.Backups: over UDP nobody learns that a Collecting Process is gone")
		}
	case ipfix.TCP, ipfix.SCTP:
	case ipfix.TLS, ipfix.DTLS:
		if c.TLS == nil {
			return fmt.Errorf("export: Config.TLS is required for %v", c.Transport)
		}
		if err := c.TLS.check(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("export: Config.Transport: %v can't be exported over", c.Transport)
	}
	if c.Lifetime < 0 || c.Lifetime > 0 && (c.Transport != ipfix.SCTP || c.Acknowledged != nil) {
		return fmt.Errorf("export: Config.Lifetime: %v: is for sctp without acknowledged export alone", c.Lifetime)
	}
	if c.Acknowledged != nil && !c.Transport.Reliable() {
		return fmt.Errorf("export: Config.Acknowledged: %v brings no answers: use tcp, tls or sctp", c.Transport)
	}
	for i, a := range c.collectors() {
		host, _, err := net.SplitHostPort(a)
		if err == nil && c.TLS != nil && cmp.Or(c.TLS.ServerName, host) == "" {
			err = errors.New("whom the certificate must be of is not said")
		}
		if err != nil {
			if i == 0 {
				return fmt.Errorf("export: Config.Address: %w", err)
			}
			return fmt.Errorf("export: Config.Backups[%d]: %w", i-1, err)
		}
	}
	return nil
}

// collectors returns the addresses of all Collecting Processes, the preferred
// first.
func (c *Config) collectors() []string { return append([]string{c.Address}, c.Backups...) }

func (c *Config) defaultMaxMessage() int {
	if c.Transport.Reliable() {
		return 8192
	}
	n := 1400
	if !c.overIPv4() {
		n = 1232
	}
	return n - c.overhead()
}

// unmeasuredMessage returns what a packet of 512 octets holds.
func (c *Config) unmeasuredMessage() int {
	n := 512 - headers6
	if c.overIPv4() {
		n = 512 - headers4
	}
	return n - c.overhead()
}

// overIPv4 reports whether it is known that nobody is exported to over IPv6.
func (c *Config) overIPv4() bool {
	return !slices.ContainsFunc(c.collectors(), func(address string) bool {
		host, _, _ := net.SplitHostPort(address)
		addr, err := netip.ParseAddr(host)
		return err != nil || !addr.Unmap().Is4()
	})
}

// overhead returns the octets of a datagram beside its Message.
func (c *Config) overhead() int {
	if c.Transport == ipfix.DTLS {
		return dtlsOverhead
	}
	return 0
}

func orDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
