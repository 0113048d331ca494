package collect

import (
	"bytes"
	"container/list"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// maxQueued is the most datagrams that wait for one association.
const maxQueued = 256

// associations are the DTLS associations of one socket. A peer has at most
// one that stands, and one whose handshake is pending: an exporter that was
// started anew may come from the address and port of before.
type associations struct {
	max, maxExporter int

	queued atomic.Int64 // octets that wait, for all of them

	mu       sync.Mutex
	standing map[netip.AddrPort]*association
	pending  map[netip.AddrPort]*association
	recent   list.List // of *association, those that stand, the most recently used last
}

// An association is the far end of one, as a net.PacketConn: what came from
// it, and the way to it. Its methods may be called at once.
type association struct {
	peer   netip.AddrPort
	socket *net.UDPConn
	in     chan []byte
	queued *atomic.Int64
	closed chan struct{}
	close  func()        // closes closed, once
	ready  chan struct{} // closed once the handshake is done

	// of the one goroutine that reads
	isReady bool
	early   [][]byte // application data that came before that, and its end

	mu      sync.Mutex
	expired chan struct{} // closed while the read deadline is one that has passed

	// guarded by associations.mu
	exporter *exporter
	evict    func()
	recent   *list.Element // nil while pending
}

// begin returns a new pending association, or nil where one is pending.
func (t *associations) begin(peer netip.AddrPort, socket *net.UDPConn) *association {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending[peer] != nil {
		return nil
	}
	a := &association{
		peer:    peer,
		socket:  socket,
		in:      make(chan []byte, maxQueued),
		queued:  &t.queued,
		closed:  make(chan struct{}),
		ready:   make(chan struct{}),
		expired: make(chan struct{}),
	}
	a.close = sync.OnceFunc(func() { close(a.closed) })
	t.pending[peer] = a
	return a
}

// deliver hands a copy of a datagram to the peer's associations, to both where
// there are two: the wrong one can't decrypt it. It reports false where one
// had no room. What is of no association is none of our business.
func (t *associations) deliver(peer netip.AddrPort, b []byte, maxQueued int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	fits := true
	for _, a := range []*association{t.standing[peer], t.pending[peer]} {
		if a == nil {
			continue
		}
		if t.queued.Load() >= maxQueued {
			fits = false
			continue
		}
		t.queued.Add(int64(len(b)))
		select {
		case a.in <- bytes.Clone(b):
		default:
			t.queued.Add(-int64(len(b)))
			fits = false
		}
	}
	return fits
}

// stand notes that the handshake is done. It ends the peer's association of
// before, and the least recently used where there are too many.
func (t *associations) stand(a *association, e *exporter, evict func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.pending, a.peer)
	if before := t.standing[a.peer]; before != nil {
		t.removeLocked(before)
		before.close()
	}
	for {
		victim := t.victimLocked(e)
		if victim == nil {
			break
		}
		t.removeLocked(victim)
		go victim.evict() // it may have to wait for the network
	}
	a.exporter, a.evict = e, evict
	a.recent = t.recent.PushBack(a)
	t.standing[a.peer] = a
}

// victimLocked returns what must go before e may have one more, or nil.
func (t *associations) victimLocked(e *exporter) *association {
	var oldest *association
	n := 0
	for x := t.recent.Front(); x != nil; x = x.Next() {
		if a := x.Value.(*association); a.exporter == e {
			if oldest == nil {
				oldest = a
			}
			n++
		}
	}
	switch {
	case n >= t.maxExporter:
		return oldest
	case t.recent.Len() >= t.max:
		return t.recent.Front().Value.(*association)
	}
	return nil
}

// touch makes a the most recently used.
func (t *associations) touch(a *association) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.recent != nil {
		t.recent.MoveToBack(a.recent)
	}
}

// removeLocked takes a from the tables.
func (t *associations) removeLocked(a *association) {
	if t.pending[a.peer] == a {
		delete(t.pending, a.peer)
	}
	if t.standing[a.peer] == a {
		delete(t.standing, a.peer)
	}
	if a.recent != nil {
		t.recent.Remove(a.recent)
		a.recent = nil
	}
}

// end forgets a, and what waits for it.
func (t *associations) end(a *association) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeLocked(a)
	a.close()
	for {
		select {
		case b := <-a.in:
			t.queued.Add(-int64(len(b)))
		default:
			return
		}
	}
}

// maxEarly is the most datagrams that are kept until a handshake is done.
const maxEarly = maxQueued

// ReadFrom implements net.PacketConn. It holds application data back until
// the handshake is done: the library, which may notice that later than the
// exporter does, would throw it away.
func (a *association) ReadFrom(b []byte) (int, net.Addr, error) {
	a.mu.Lock()
	expired := a.expired
	a.mu.Unlock()
	for {
		ready := a.ready
		if a.isReady {
			ready = nil
			if len(a.early) > 0 {
				d := a.early[0]
				a.early = a.early[1:]
				return copy(b, d), net.UDPAddrFromAddrPort(a.peer), nil
			}
		}
		select {
		case <-expired:
			return 0, nil, os.ErrDeadlineExceeded
		case <-a.closed:
			return 0, nil, net.ErrClosed
		case <-ready:
			a.isReady = true
		case d := <-a.in:
			a.queued.Add(-int64(len(d)))
			if !a.isReady && a.isEarly(d) && len(a.early) < maxEarly {
				a.early = append(a.early, d)
				continue
			}
			return copy(b, d), net.UDPAddrFromAddrPort(a.peer), nil
		}
	}
}

// isEarly reports whether a datagram must wait for the handshake to be done:
// application data, and the alert that may end it.
func (a *association) isEarly(b []byte) bool {
	const alert, applicationData = 21, 23
	return len(b) > 0 && (b[0] == applicationData || b[0] == alert && len(a.early) > 0)
}

// WriteTo implements net.PacketConn. There is only one to write to.
func (a *association) WriteTo(b []byte, _ net.Addr) (int, error) {
	return a.socket.WriteToUDPAddrPort(b, a.peer)
}

// Close implements net.PacketConn. The socket belongs to all.
func (a *association) Close() error {
	a.close()
	return nil
}

// LocalAddr implements net.PacketConn.
func (a *association) LocalAddr() net.Addr { return a.socket.LocalAddr() }

// SetReadDeadline implements net.PacketConn for what the library asks for: a
// time long past, to wake a read, and none.
func (a *association) SetReadDeadline(at time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.expired:
		if at.IsZero() {
			a.expired = make(chan struct{})
		}
	default:
		if !at.IsZero() {
			close(a.expired)
		}
	}
	return nil
}

// SetWriteDeadline implements net.PacketConn. No datagram waits.
func (a *association) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline implements net.PacketConn.
func (a *association) SetDeadline(at time.Time) error { return a.SetReadDeadline(at) }
