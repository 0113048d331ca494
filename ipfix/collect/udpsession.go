package collect

import (
	"container/list"
	"net/netip"
	"time"

	"tollbridge/ipfix"
)

// A udpPeer is the far end of a UDP Transport Session.
type udpPeer struct {
	addr  netip.AddrPort // IPv4 as such, no zone
	scope uint32         // the interface of an IPv6 link-local address, else 0
}

// udpSessions are the Transport Sessions of one UDP socket, bounded in all
// and per exporter. One goroutine uses it.
type udpSessions struct {
	*Process
	local      netip.AddrPort
	peers      map[udpPeer]*udpSession
	recent     list.List                // of *udpSession, the most recently used last
	byExporter map[*exporter]*list.List // the same of one exporter
	latest     *udpSession              // the one found last: datagrams come in runs
}

type udpSession struct {
	peer     udpPeer
	exporter *exporter
	number   uint64
	last     time.Time // of the latest well-formed Message

	inAll, inExporter *list.Element
}

func newUDPSessions(p *Process, local netip.AddrPort) *udpSessions {
	return &udpSessions{
		Process:    p,
		local:      local,
		peers:      make(map[udpPeer]*udpSession),
		byExporter: make(map[*exporter]*list.List),
	}
}

// find returns the session of a peer, or nil.
func (t *udpSessions) find(peer udpPeer) *udpSession {
	if t.latest != nil && t.latest.peer == peer {
		return t.latest
	}
	s := t.peers[peer]
	if s != nil {
		t.latest = s
	}
	return s
}

// touch makes s the most recently used.
func (t *udpSessions) touch(s *udpSession, at time.Time) {
	s.last = at
	t.recent.MoveToBack(s.inAll)
	t.byExporter[s.exporter].MoveToBack(s.inExporter)
}

// begin opens a session and takes over the caller's hold on its exporter.
func (t *udpSessions) begin(at time.Time, peer udpPeer, e *exporter) (*udpSession, error) {
	if err := t.makeRoom(at, e); err != nil {
		t.exporters.release(e)
		return nil, err
	}
	number, err := t.open(at, e, Session{Transport: ipfix.UDP, Exporter: e.name, Remote: peer.remote(), Local: t.local})
	if err != nil {
		t.exporters.release(e)
		return nil, err
	}
	own := t.byExporter[e]
	if own == nil {
		own = list.New()
		t.byExporter[e] = own
	}
	s := &udpSession{peer: peer, exporter: e, number: number, last: at}
	s.inAll = t.recent.PushBack(s)
	s.inExporter = own.PushBack(s)
	t.peers[peer] = s
	t.latest = s
	return s, nil
}

// makeRoom closes the least recently used session where the table is full.
func (t *udpSessions) makeRoom(at time.Time, e *exporter) error {
	var victim *list.Element
	if own := t.byExporter[e]; own != nil && own.Len() >= t.cfg.MaxExporterSessions {
		victim = own.Front()
	} else if t.recent.Len() >= t.cfg.MaxSessions {
		victim = t.recent.Front()
	}
	if victim == nil {
		return nil
	}
	s := victim.Value.(*udpSession)
	s.exporter.evicted.Add(1)
	return t.end(at, s)
}

// oldest returns the session that has idled longest, or nil.
func (t *udpSessions) oldest() *udpSession {
	if front := t.recent.Front(); front != nil {
		return front.Value.(*udpSession)
	}
	return nil
}

// expire closes the sessions that have been idle for too long.
func (t *udpSessions) expire(now time.Time) error {
	for {
		s := t.oldest()
		if s == nil || now.Sub(s.last) < t.cfg.IdleTimeout {
			return nil
		}
		if err := t.end(now, s); err != nil {
			return err
		}
	}
}

func (t *udpSessions) end(at time.Time, s *udpSession) error {
	delete(t.peers, s.peer)
	t.recent.Remove(s.inAll)
	own := t.byExporter[s.exporter]
	own.Remove(s.inExporter)
	if own.Len() == 0 {
		delete(t.byExporter, s.exporter)
	}
	if t.latest == s {
		t.latest = nil
	}
	err := t.close(at, s.exporter, s.number)
	t.exporters.release(s.exporter)
	return err
}

// release lets go of the exporters once the socket is served no more.
func (t *udpSessions) release() {
	for _, s := range t.peers {
		t.exporters.release(s.exporter)
	}
}
