package aaaclient

import (
	"context"
	"errors"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/dict/avp"
)

// A Stepper is the delivery of a Client without its goroutines, sockets and
// timers: whoever holds it says what happens and when, one call after the
// other, so that a simulator can repeat it exactly. What is decided is decided
// by the same code as in Run.
//
//	Opened, Received, Closed, Woken ──► Round ──► Conn.Send
//	                                     │ ▲
//	                                Work ▼ │ Done
//	                                   Outbox
type Stepper struct {
	d      *delivery
	job    *job  // to be worked on
	worked *done // to be told to delivery
}

// Stepper returns a Stepper in place of a Run.
func (c *Client) Stepper() *Stepper { return &Stepper{d: newDelivery(c)} }

// Opened says that there is a connection to Config.Peers[index], which has
// none.
func (s *Stepper) Opened(index int, c Conn) {
	s.d.happen(event{link: s.d.links[index], opened: c})
}

// Received says that octets, whole messages, came from Config.Peers[index].
func (s *Stepper) Received(index int, octets []byte) error {
	h := handler{link: s.d.links[index]}
	for len(octets) > 0 {
		header, err := avp.ParseHeader(octets)
		if err != nil {
			return err
		}
		if int(header.Length) > len(octets) {
			return errors.New("aaaclient: the octets end within a message")
		}
		h.Receive(peer.Message{Header: header, Octets: octets[:header.Length]})
		octets = octets[header.Length:]
	}
	if h.batch != nil {
		s.d.happen(event{link: h.link, answers: h.batch})
	}
	return nil
}

// Closed says that the connection to Config.Peers[index] has ended, and why,
// as peer.Conn.Run does.
func (s *Stepper) Closed(index int, err error) {
	s.d.happen(event{link: s.d.links[index], closed: true, err: err})
}

// Woken says that Outbox.Wake has received.
func (s *Stepper) Woken() { s.d.woken() }

// Round does all that can be done at a time, which follows whatever has
// happened, and returns when the next Round is due if nothing does: the zero
// time for never.
func (s *Stepper) Round(now time.Time) (next time.Time) {
	s.d.round(now)
	if j, ok := s.d.job(); ok {
		s.job = &j
	}
	return s.d.next()
}

// Work calls the Outbox if a Round has left work for it, and reports whether
// it did. No Round starts another work before Done.
func (s *Stepper) Work(ctx context.Context) bool {
	if s.job == nil {
		return false
	}
	r := s.d.work(ctx, *s.job)
	s.job, s.worked = nil, &r
	return true
}

// Done tells delivery at a time what came of Work. A Round follows.
func (s *Stepper) Done(now time.Time) {
	if r := s.worked; r != nil {
		s.worked = nil
		s.d.now = now
		s.d.done(*r)
	}
}
