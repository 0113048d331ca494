package aaaclient

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"tollbridge/aaaclient/peer"
)

// Taking leave is no failure of the peer.
func TestAnOrderlyStopWarnsOfNothing(t *testing.T) {
	_, address := serve(t, &storeModel{})
	for range 20 { // it was a race
		outbox := newOutbox()
		outbox.add(records(1, 1)...)
		var log bytes.Buffer
		cfg := client(outbox, address)
		cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		c, stop := runClient(t, cfg)
		settled(t, outbox, c)
		stop()
		if strings.Contains(log.String(), "not connected") {
			t.Fatalf("logged %s", log.String())
		}
	}
}

// A connection is cut off by what the peer does to the transport.
func TestCutOff(t *testing.T) {
	for name, test := range map[string]struct {
		err          error
		cut, withAsk bool // where it does not ask, and where it may
	}{
		"closed":               {io.EOF, true, true},
		"closed in a message":  {io.ErrUnexpectedEOF, true, true},
		"reset":                {&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, true, true},
		"closed before we did": {&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, true, true},
		"no Diameter":          {peer.ErrProtocol, true, false},
		"it does not read":     {&net.OpError{Op: "write", Err: os.ErrDeadlineExceeded}, false, false},
		"the network is away":  {&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}, false, false},
		"silent":               {peer.ErrSilent, false, false},
		"it took leave":        {&peer.DisconnectError{}, false, false},
		"we took leave":        {peer.ErrClosed, false, false},
	} {
		for table, want := range map[*peer.Table]bool{nil: test.cut, peer.NewTable(0): test.withAsk} {
			l := &link{client: &Client{cfg: Config{Table: table}}}
			if got := l.cutOff(fmt.Errorf("peer: %w", test.err)); got != want {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
	}
}
