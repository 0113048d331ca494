package sim

import (
	"errors"
	"syscall"
	"time"

	"tollbridge/aaaclient"
	"tollbridge/aaaclient/peer"
	"tollbridge/dict/avp"
)

// A link is a connection to an AAA peer, as aaaclient has it of peer.Conn.
// Requests and answers go in order and are lost when it breaks.
type link struct {
	w       *world
	p       *process
	server  *server
	state   peer.State
	proven  bool
	leaving bool
	alive   bool
	there   int64 // when the latest request arrives
	back    int64 // when the latest answer does
}

// Status implements aaaclient.Conn.
func (l *link) Status() peer.Status {
	return peer.Status{State: l.state, Proven: l.proven, Leaving: l.leaving}
}

// Send implements aaaclient.Conn.
func (l *link) Send(b []byte) error {
	for len(b) > 0 {
		h, err := avp.ParseHeader(b)
		if err != nil {
			l.w.fail("what is sent is no message: %v", err)
		}
		m := peer.Message{Header: h, Octets: append([]byte(nil), b[:h.Length]...)}
		b = b[h.Length:]
		l.w.wire.sent(l, m)
		l.there = max(l.there, l.w.now+int64(l.w.between(0, 100*time.Millisecond)))
		kept := l.w.chance(0.5)
		l.w.after(time.Duration(l.there-l.w.now), func() {
			// What has left may arrive though the connection is gone.
			if l.alive || kept {
				l.server.receive(l, m)
			}
		})
	}
	if !l.alive {
		return errors.New("connection is closed")
	}
	return nil
}

// answer brings octets to the client.
func (l *link) answer(octets []byte, after time.Duration) {
	l.w.after(after, func() {
		l.back = max(l.back, l.w.now+int64(l.w.between(0, 50*time.Millisecond)))
		l.w.after(time.Duration(l.back-l.w.now), func() {
			if !l.alive || l.w.proc != l.p {
				return
			}
			l.w.wire.answered(l, octets)
			if err := l.p.stepper.Received(l.server.index, octets); err != nil {
				l.w.fail("answer: %v", err)
			}
			l.p.deliver()
		})
	})
}

// breaks ends the connection, for both sides.
func (l *link) breaks(err error) {
	if !l.alive {
		return
	}
	l.alive, l.leaving, l.state = false, true, peer.Down
	l.w.log("connection to peer %d: %v", l.server.index, err)
	if l.w.proc != l.p {
		return
	}
	l.p.later(l.w.between(0, 100*time.Millisecond), func() {
		l.p.stepper.Closed(l.server.index, err)
		l.p.deliver()
		l.p.later(l.w.between(time.Second, 10*time.Second), func() { l.p.dial(l.server) })
	})
}

// connect makes delivery, and lets it connect to all peers.
func (p *process) connect() {
	cfg := aaaclient.Config{
		OriginHost: p.w.mood.settings.OriginHost, OriginRealm: "visited.example", DestinationRealm: "home.example",
		Outbox: p.w.disk, Obey: p.obey, Window: 1 + p.w.rng.IntN(8), Buffer: 8 + p.w.rng.IntN(64), RetryMax: 20 * time.Second,
	}
	for _, s := range p.w.peers {
		cfg.Peers = append(cfg.Peers, aaaclient.Peer{Address: s.address()})
	}
	c, err := aaaclient.New(cfg)
	if err != nil {
		p.w.fail("delivery: %v", err)
	}
	p.stepper = c.Stepper()
	for _, s := range p.w.peers {
		p.later(p.w.between(0, time.Second), func() { p.dial(s) })
	}
	p.deliver()
}

// dial connects to a peer, or tries again later.
func (p *process) dial(s *server) {
	w := p.w
	if s.down {
		p.later(w.between(time.Second, 30*time.Second), func() { p.dial(s) })
		return
	}
	l := &link{w: w, p: p, server: s, state: peer.Okay, alive: true}
	if s.known == w.lives {
		l.state = peer.Reopen
	}
	s.known = w.lives
	s.link = l
	p.stepper.Opened(s.index, l)
	w.log("connected to peer %d", s.index)
	p.deliver()
	change := func(after time.Duration, do func()) {
		p.later(after, func() {
			if l.alive {
				do()
				p.deliver()
			}
		})
	}
	answered := w.between(0, time.Second)
	change(answered, func() { l.proven = true })
	change(answered+w.between(0, 20*time.Second), func() {
		if l.state == peer.Reopen {
			l.state = peer.Okay
		}
	})
	if w.quiet || !w.chance(w.mood.answers) {
		return
	}
	change(w.between(0, 2*time.Minute), func() {
		switch w.rng.IntN(3) {
		case 0:
			l.breaks(syscall.ECONNRESET)
		case 1:
			l.leaving = true
			change(w.between(0, time.Second), func() { l.breaks(&peer.DisconnectError{Cause: avp.Rebooting}) })
		default:
			l.state = peer.Suspect
			w.log("peer %d is suspect", s.index)
			change(w.between(time.Second, 30*time.Second), func() {
				if w.chance(0.5) && !w.quiet {
					l.breaks(peer.ErrSilent)
				} else {
					l.state = peer.Okay
				}
			})
		}
	})
}

// deliver lets delivery do what can be done now.
func (p *process) deliver() {
	select {
	case <-p.w.disk.Wake():
		p.stepper.Woken()
	default:
	}
	next := p.stepper.Round(p.clock())
	p.w.mayCrash("requests handed over")
	p.timer++
	if timer := p.timer; !next.IsZero() {
		p.later(next.Sub(p.clock()), func() {
			if p.timer == timer {
				p.deliver()
			}
		})
	}
	if p.working {
		return
	}
	p.working = true
	p.later(p.w.between(0, 20*time.Millisecond), p.clerk)
}

// clerk works for the outbox.
func (p *process) clerk() {
	if !p.stepper.Work(p.w.ctx) {
		p.working = false
		return
	}
	p.later(p.w.between(0, 20*time.Millisecond), func() {
		p.working = false
		p.stepper.Done(p.clock())
		p.deliver()
	})
}

// clock is delivery's: it does not step.
func (p *process) clock() time.Time { return time.Unix(0, p.w.now) }
