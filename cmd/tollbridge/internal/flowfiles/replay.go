package flowfiles

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
)

const (
	// maxReplaySessions bounds the sockets that a replay opens.
	maxReplaySessions = 512
	// maxDatagram is the longest UDP payload over IPv4.
	maxDatagram = 65507
	// closeTimeout bounds how long is waited for a collector to have read all.
	closeTimeout = 10 * time.Second
)

func newReplay() *cobra.Command {
	var to string
	var udp bool
	var rate float64
	cmd := &cobra.Command{
		Use:   "replay FILE... --to HOST:PORT",
		Short: "Send the messages of files to a collector, as they are",
		Long: `Replay sends messages octet by octet as they were recorded: same domains,
sequence numbers and export times. Every transport session of a capture gets a
socket of its own, and so do all other files together, so that templates stay
apart. Over TCP it waits at the end until the collector has read everything;
over UDP it sends one datagram each, and --rate keeps the collector's buffers
from running over.`,
		Example: `  tollbridge ipfix replay flows.ipfix --to 127.0.0.1:4739
  tollbridge ipfix replay router.pcap --to '[::1]:2055' --udp --rate 5000`,
		Args: cobra.MinimumNArgs(1),
	}
	ports := portsFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&to, "to", "", "address and port of the collector (required)")
	flags.BoolVar(&udp, "udp", false, "send over UDP instead of TCP")
	flags.Float64Var(&rate, "rate", 0, "at most so many messages a second; 0 for no limit")
	if err := cmd.MarkFlagRequired("to"); err != nil {
		panic(err)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if rate < 0 {
			return fmt.Errorf("ipfix replay: --rate %v: is below 0", rate)
		}
		network := "tcp"
		if udp {
			network = "udp"
		}
		r := &replay{ctx: cmd.Context(), network: network, to: to, rate: rate, sockets: make(map[file.Session]net.Conn), begun: time.Now()}
		defer r.abort()
		in := newMessageInput(cmd, *ports)
		in.bar = true
		in.message = r.send
		err := in.read(args)
		if err == nil {
			err = r.finish()
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d messages of %d octets sent to %s over %s, in %d transport sessions, in %s\n",
			r.messages, r.octets, to, network, len(r.sockets), time.Since(r.begun).Round(time.Millisecond))
		if err != nil {
			return err
		}
		return in.verdict()
	}
	return cmd
}

// A replay sends messages.
type replay struct {
	ctx      context.Context // of the command
	network  string
	to       string
	rate     float64 // messages a second; 0 for no limit
	begun    time.Time
	sockets  map[file.Session]net.Conn
	messages uint64
	octets   uint64
}

// send sends a message when its time has come.
func (r *replay) send(m *message) error {
	if err := r.fits(m); err != nil {
		return err
	}
	if r.rate > 0 {
		due := r.begun.Add(time.Duration(float64(r.messages) / r.rate * float64(time.Second)))
		if err := waitUntil(r.ctx, due); err != nil {
			return err
		}
	}
	conn := r.sockets[m.Session]
	if conn == nil {
		if len(r.sockets) == maxReplaySessions {
			return fmt.Errorf("ipfix replay: %s: is of one transport session more than %d: split the capture by exporter", m.where(), maxReplaySessions)
		}
		var err error
		var dialer net.Dialer
		if conn, err = dialer.DialContext(r.ctx, r.network, r.to); err != nil {
			return fmt.Errorf("ipfix replay: %w", err)
		}
		r.sockets[m.Session] = conn
	}
	if _, err := conn.Write(m.Octets); err != nil {
		return fmt.Errorf("ipfix replay: %s: %w", m.where(), err)
	}
	r.messages++
	r.octets += uint64(len(m.Octets))
	return nil
}

// fits says why the transport can't carry a message.
func (r *replay) fits(m *message) error {
	if r.network == "udp" && len(m.Octets) > maxDatagram {
		return fmt.Errorf("ipfix replay: %s: %d octets are too long for a datagram: send it over TCP", m.where(), len(m.Octets))
	}
	if version := binary.BigEndian.Uint16(m.Octets); r.network == "tcp" && version != ipfix.Version {
		return fmt.Errorf("ipfix replay: %s: NetFlow %d can't be sent over TCP: use --udp", m.where(), version)
	}
	return nil
}

// waitUntil waits until a moment, or for the context's end, which is its error.
func waitUntil(ctx context.Context, at time.Time) error {
	wait := time.Until(at)
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish closes connections in order: half, and then whole when the collector
// has read to the end (RFC 7011, Section 10.2.4), or after closeTimeout.
func (r *replay) finish() error {
	deadline := time.Now().Add(closeTimeout)
	var errs []error
	for _, conn := range r.sockets {
		if tcp, ok := conn.(*net.TCPConn); ok {
			errs = append(errs, drain(tcp, deadline))
		}
	}
	return errors.Join(errs...)
}

func drain(conn *net.TCPConn, deadline time.Time) error {
	if err := errors.Join(conn.CloseWrite(), conn.SetReadDeadline(deadline)); err != nil {
		return fmt.Errorf("ipfix replay: close: %w", err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return fmt.Errorf("ipfix replay: the collector may not have read everything: %w", err)
	}
	return nil
}

// abort closes all sockets.
func (r *replay) abort() {
	for _, conn := range r.sockets {
		conn.Close()
	}
}
