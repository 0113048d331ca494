package sctp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tollbridge/internal/sctp"
)

var loopbacks = []string{"127.0.0.1", "::1"}

// listen listens on a loopback address, or skips where there is no SCTP.
func listen(t *testing.T, host string, cfg sctp.Config) *sctp.Listener {
	t.Helper()
	ln, err := sctp.Listen(netip.AddrPortFrom(netip.MustParseAddr(host), 0), cfg)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this kernel has no SCTP: run make test-sctp")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// pair returns the two ends of an association.
func pair(t *testing.T, host string, cfg sctp.Config) (ours, theirs *sctp.Conn) {
	t.Helper()
	ln := listen(t, host, cfg)
	ours, err := sctp.Dial(t.Context(), ln.Addr().(sctp.Addr).AddrPort(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); conn.Close() })
	return ours, conn.(*sctp.Conn)
}

func TestMessages(t *testing.T) {
	for _, host := range loopbacks {
		t.Run(host, func(t *testing.T) {
			ours, theirs := pair(t, host, sctp.Config{})
			if ours.RemoteAddr() != theirs.LocalAddr() || ours.LocalAddr() != theirs.RemoteAddr() {
				t.Errorf("ours %v to %v, theirs %v to %v", ours.LocalAddr(), ours.RemoteAddr(), theirs.LocalAddr(), theirs.RemoteAddr())
			}
			// Longer than a packet, the socket's pieces and each other.
			var writing sync.WaitGroup
			writing.Go(func() {
				for i := range 500 {
					m := sctp.Message{Stream: uint16(i % 16), Protocol: uint32(i)}
					if err := ours.WriteMessage(bytes.Repeat([]byte{byte(i)}, 1+i*131), m); err != nil {
						t.Error(err)
					}
				}
				if err := ours.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			b := make([]byte, 65536)
			seen := make(map[uint32]bool)
			for {
				n, m, err := theirs.ReadMessage(b)
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				i := m.Protocol
				if n != 1+int(i)*131 || m.Stream != uint16(i%16) || b[0] != byte(i) || b[n-1] != byte(i) || seen[i] {
					t.Fatalf("message %d: %d octets on stream %d, seen before: %v", i, n, m.Stream, seen[i])
				}
				seen[i] = true
			}
			writing.Wait()
			if _, err := ours.Read(b); err != io.EOF {
				t.Errorf("the end that was closed reads %v, want EOF", err)
			}
			if len(seen) != 500 {
				t.Errorf("%d messages, want 500", len(seen))
			}
		})
	}
}

// A message that is too long is thrown away whole; the next is not.
func TestTooLong(t *testing.T) {
	ours, theirs := pair(t, "127.0.0.1", sctp.Config{})
	for _, n := range []int{10, 20000, 11} {
		if _, err := ours.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, 100)
	if n, err := theirs.Read(b); n != 10 || err != nil {
		t.Errorf("%d octets, %v", n, err)
	}
	if n, err := theirs.Read(b); n != 0 || !errors.Is(err, sctp.ErrTooLong) {
		t.Errorf("%d octets, %v", n, err)
	}
	if n, err := theirs.Read(b); n != 11 || err != nil {
		t.Errorf("%d octets, %v", n, err)
	}
}

func TestDeadlinesAndClose(t *testing.T) {
	ours, theirs := pair(t, "127.0.0.1", sctp.Config{Buffer: 1 << 16})
	theirs.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	theirs.SetReadDeadline(time.Time{})
	ours.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	var err error
	for err == nil { // nobody reads
		_, err = ours.Write(make([]byte, 1000))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
	ours.SetWriteDeadline(time.Time{})
	blocked := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = ours.Write(make([]byte, 1000))
		}
		blocked <- err
	}()
	ours.Close()
	if err := <-blocked; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a blocked write ended with %v", err)
	}
}

func TestCloseWakesReadAndAccept(t *testing.T) {
	ln := listen(t, "127.0.0.1", sctp.Config{})
	ours, err := sctp.Dial(t.Context(), ln.Addr().(sctp.Addr).AddrPort(), sctp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	woken := make(chan error, 2)
	go func() { _, err := ln.Accept(); woken <- err }()
	go func() { _, err := ours.Read(make([]byte, 1)); woken <- err }()
	ln.Close()
	if err := <-woken; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	ours.Close()
	if err := <-woken; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if err := errors.Join(ln.Close(), ours.Close()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
}

func TestDialFails(t *testing.T) {
	ln := listen(t, "127.0.0.1", sctp.Config{})
	at := ln.Addr().(sctp.Addr).AddrPort()
	ln.Close()
	if _, err := sctp.Dial(t.Context(), at, sctp.Config{}); err == nil {
		t.Error("an association with nobody")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sctp.Dial(ctx, at, sctp.Config{}); err == nil {
		t.Error("an association after the end of ctx")
	}
}

// Dry tells that the other end has all, as soon as it does.
func TestDry(t *testing.T) {
	ours, theirs := pair(t, "127.0.0.1", sctp.Config{})
	go io.Copy(io.Discard, theirs)
	go io.Copy(io.Discard, ours)
	select {
	case <-ours.Dry(): // that nothing was written yet
	default:
	}
	if _, err := ours.Write([]byte("template")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ours.Dry():
	case <-time.After(20 * time.Second):
		t.Error("it does not say so")
	}
}

// An end that goes without a word, its socket aborted, is no orderly end.
func TestAbort(t *testing.T) {
	ours, theirs := pair(t, "127.0.0.1", sctp.Config{})
	if _, err := ours.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	theirs.SetReadDeadline(time.Now().Add(20 * time.Second))
	ours.SetReadDeadline(time.Now().Add(20 * time.Second))
	theirs.Close() // what it has not read is lost: Linux aborts
	if _, err := ours.Read(make([]byte, 100)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || err == io.EOF {
		t.Errorf("read: %v", err)
	}
}

// Of a message that came in part, as the receiver had no more room, and whose
// rest was then given up, nothing is read, or that it was; what is reliable comes
// whole behind it.
func TestPartOfAMessageGivenUp(t *testing.T) {
	for _, row := range []struct {
		name string
		read func(c *sctp.Conn, b []byte) (n int, err error)
	}{
		{"ReadMessage", func(c *sctp.Conn, b []byte) (n int, err error) {
			n, _, err = c.ReadMessage(b)
			return n, err
		}},
		{"ReadPart", func(c *sctp.Conn, b []byte) (n int, err error) {
			for end := false; !end && err == nil; {
				var part int
				part, _, end, err = c.ReadPart(b[n:])
				n += part
			}
			return n, err
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			ours, theirs := pair(t, "127.0.0.1", sctp.Config{Buffer: 1 << 16})
			go io.Copy(io.Discard, ours)
			const length = 50_000
			deadline := time.Now().Add(20 * time.Second)
			ours.SetDeadline(deadline)
			theirs.SetDeadline(deadline)
			for octet := byte('a'); octet < 'd'; octet++ {
				if err := ours.WriteMessage(bytes.Repeat([]byte{octet}, length), sctp.Message{Stream: 1, Lifetime: 500 * time.Millisecond}); err != nil {
					t.Fatal(err)
				}
			}
			for pieces := 1; pieces > 0; { // those that nobody has or has given up
				if time.Now().After(deadline) {
					t.Fatalf("%d pieces are neither acknowledged nor given up", pieces)
				}
				var err error
				if pieces, err = ours.Unacknowledged(); err != nil {
					t.Fatal(err)
				}
				runtime.Gosched()
			}
			go ours.WriteMessage(bytes.Repeat([]byte{'z'}, 100), sctp.Message{})
			abandoned := false
			b := make([]byte, 1<<16)
			for b[0] != 'z' {
				n, err := row.read(theirs, b)
				if errors.Is(err, sctp.ErrAbandoned) {
					abandoned = true
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				want := length
				if b[0] == 'z' {
					want = 100
				}
				if n != want || bytes.Count(b[:n], b[:1]) != n {
					t.Errorf("a message of %d octets from %c to %c was not sent", n, b[0], b[n-1])
				}
			}
			if abandoned != (row.name == "ReadPart") {
				t.Errorf("told of a message given up: %v", abandoned)
			}
		})
	}
}

// Under loss, too, what has a lifetime is given up once that is over, and
// counted; what has none arrives when the network is back.
func TestAbandonedUnderLoss(t *testing.T) {
	if os.Getenv("SCTP_VM") == "" {
		t.Skip("skipped: it takes the loopback interface away, so it needs a kernel of its own: run make test-sctp")
	}
	ours, theirs := pair(t, "127.0.0.1", sctp.Config{})
	go io.Copy(io.Discard, ours)
	setLoopback(t, false)
	t.Cleanup(func() { setLoopback(t, true) })
	const n = 20
	for i := range n {
		m := sctp.Message{Stream: 1}
		if i%2 == 1 {
			m = sctp.Message{Stream: 2, Lifetime: 50 * time.Millisecond}
		}
		if err := ours.WriteMessage(binary.BigEndian.AppendUint32(nil, uint32(i)), m); err != nil {
			t.Fatal(err)
		}
	}
	await := func(what string, is func() bool) {
		t.Helper()
		deadline := time.After(60 * time.Second)
		for !is() {
			select {
			case <-deadline:
				t.Fatalf("waited for %s in vain", what)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	await("messages to be given up", func() bool {
		abandoned, err := ours.Abandoned()
		if err != nil {
			t.Fatal(err)
		}
		return abandoned == n/2
	})
	setLoopback(t, true)
	theirs.SetReadDeadline(time.Now().Add(60 * time.Second))
	b := make([]byte, 100)
	for i := 0; i < n; i += 2 {
		got, m, err := theirs.ReadMessage(b)
		if err != nil || got != 4 || m.Stream != 1 || binary.BigEndian.Uint32(b) != uint32(i) {
			t.Fatalf("message %x of stream %d, %v, want %d", b[:got], m.Stream, err, i)
		}
	}
	await("all to be acknowledged", func() bool {
		pieces, err := ours.Unacknowledged()
		return err == nil && pieces == 0
	})
	if abandoned, err := ours.Abandoned(); err != nil || abandoned != n/2 {
		t.Errorf("%d messages given up, %v", abandoned, err)
	}
}

// setLoopback brings the loopback interface up, or takes it down.
func setLoopback(t *testing.T, up bool) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	if lo.SetUint16(0); up {
		lo.SetUint16(unix.IFF_UP)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
}

// Only what has a lifetime is given up, and only once that is over.
func TestPartialReliability(t *testing.T) {
	ours, theirs := pair(t, "127.0.0.1", sctp.Config{Buffer: 1 << 16})
	const n = 300
	ours.SetWriteDeadline(time.Now().Add(20 * time.Second))
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := range n {
			m := sctp.Message{Stream: 1}
			if i%2 == 1 {
				m = sctp.Message{Stream: 2, Lifetime: time.Millisecond}
			}
			if err := ours.WriteMessage(make([]byte, 1000), m); err != nil {
				t.Error(err)
			}
		}
		ours.CloseWrite()
	})
	var reliable, partial int
	b := make([]byte, 2000)
	for {
		got, m, err := theirs.ReadMessage(b)
		if err == io.EOF {
			break
		}
		if err != nil || got != 1000 {
			t.Fatalf("%d octets, %v", got, err)
		}
		if m.Stream == 1 {
			reliable++
		} else {
			partial++
		}
	}
	writing.Wait()
	if reliable != n/2 || partial > n/2 {
		t.Errorf("%d reliable messages of %d, and %d others", reliable, n/2, partial)
	}
}
