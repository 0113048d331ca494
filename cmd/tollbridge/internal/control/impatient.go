package control

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// An impatientConn gives up when nothing has gone either way for a while. Which
// of its readers and writers then hears of it first is open, so it is noted.
type impatientConn struct {
	net.Conn
	patience time.Duration
	expired  *atomic.Bool
}

func (c impatientConn) Read(b []byte) (n int, err error) {
	if err = c.SetDeadline(time.Now().Add(c.patience)); err == nil {
		n, err = c.Conn.Read(b)
	}
	c.note(err)
	return n, err
}

// writeOctets are written at once at most, so that each shows that the other
// side goes on.
const writeOctets = 64 << 10

func (c impatientConn) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		if err = c.SetDeadline(time.Now().Add(c.patience)); err == nil {
			var wrote int
			wrote, err = c.Conn.Write(b[n:min(len(b), n+writeOctets)])
			n += wrote
		}
	}
	c.note(err)
	return n, err
}

func (c impatientConn) note(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.expired.Store(true)
	}
}
