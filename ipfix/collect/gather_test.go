package collect

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// gathering returns a gatherer that has begun to gather, and its peer.
func gathering(t *testing.T) (*gatherer, *net.TCPConn) {
	t.Helper()
	ln := listenTCP(t, "127.0.0.1")
	defer ln.Close()
	peer := dial(t, ln.Addr()).(*net.TCPConn)
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	g, ok := newGatherer(conn).(*gatherer)
	if !ok {
		t.Fatal("a TCP connection does not gather")
	}
	write(t, peer, []byte("a"))
	if n, err := g.Read(make([]byte, 1000)); n != 1 || err != nil || !g.gathering {
		t.Fatalf("read %d octets, %v, gathering %v", n, err, g.gathering)
	}
	return g, peer
}

// However few octets come, and then no more, they are read.
func TestGathererReadsTheLastOctet(t *testing.T) {
	g, peer := gathering(t)
	b := make([]byte, 1000)
	for range 20 {
		write(t, peer, []byte("bc"))
		if n, err := io.ReadFull(g, b[:2]); n != 2 || err != nil {
			t.Fatalf("read %d octets, %v", n, err)
		}
	}
	// It waits in Conn.Read, where the next octet wakes it.
	read := make(chan error, 1)
	go func() {
		_, err := g.Read(b)
		read <- err
	}()
	write(t, peer, []byte("d"))
	if err := <-read; err != nil {
		t.Fatal(err)
	}
}

func TestGathererEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(g *gatherer, peer *net.TCPConn)
		want error
	}{
		{"the peer closes", func(_ *gatherer, peer *net.TCPConn) { peer.Close() }, io.EOF},
		{"the peer resets", func(_ *gatherer, peer *net.TCPConn) { peer.SetLinger(0); peer.Close() }, syscall.ECONNRESET},
		{"the deadline passes", func(g *gatherer, _ *net.TCPConn) { g.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"it is closed", func(g *gatherer, _ *net.TCPConn) { g.Close() }, net.ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, peer := gathering(t)
			tt.end(g, peer)
			if _, err := g.Read(make([]byte, 10)); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}
