package aaaclient

import (
	"time"

	"tollbridge/dict/avp"
)

// transmit encodes the head of s for l. It leaves at the end of the round.
func (d *delivery) transmit(s *session, l *link) {
	h := s.head()
	flags := uint8(avp.FlagRequest | avp.FlagProxiable)
	if h.MaySent || s.sendings > 0 {
		flags |= avp.FlagRetransmitted
		d.count.resent.Add(1)
	}
	d.move(s, inFlight)
	s.link, s.hopByHop = l, l.window.Add(h.EndToEnd, s)
	s.sendings++
	s.copies |= l.bit()
	s.due = d.now.Add(d.cfg.Timeout)
	if l.window.Len() == 1 {
		l.oldest = s.due
	}
	start := len(l.requests)
	writer, application := d.writer(h), d.cfg.Application
	if writer != nil && h.Record.Received == nil {
		application = writer.Profile().Applications()[0]
	}
	l.requests = avp.AppendHeader(l.requests, avp.Header{
		Flags: flags, Command: avp.CommandAccounting, Application: application,
		HopByHop: s.hopByHop, EndToEnd: h.EndToEnd,
	})
	options := l.options
	options.DestinationHost = s.route.hosts[s.id]
	switch {
	case h.Record.Received != nil:
		l.requests = append(l.requests, h.Record.Received...)
	case writer != nil:
		l.requests = writer.Append(l.requests, &h.Record, options)
	default:
		l.requests = d.cfg.Dictionary.AppendRecord(l.requests, &h.Record, options)
	}
	avp.SetLength(l.requests[start:])
	d.count.sent.Add(1)
	l.count.sent.Add(1)
	s.route.count.sent.Add(1)
}

// abandon gives up waiting for s where it is in flight. An answer that comes
// late settles it all the same.
func (d *delivery) abandon(s *session) {
	s.link.window.Remove(s.hopByHop)
	s.link.released(s)
	s.link = nil
	s.abandoned = true
	d.late[s.head().EndToEnd] = s
}

// land takes the head of s out of flight and out of late.
func (d *delivery) land(s *session) {
	if s.link != nil {
		s.link.window.Remove(s.hopByHop)
		s.link.released(s)
		s.link = nil
	}
	if s.abandoned {
		s.abandoned = false
		delete(d.late, s.head().EndToEnd)
	}
	s.alone = false
	s.drops, s.timeouts = 0, 0
}

// expire times out the requests of l that have waited too long for an answer.
func (d *delivery) expire(l *link) {
	l.oldest = time.Time{}
	for _, s := range l.window.All() {
		if s.due.After(d.now) {
			if l.oldest.IsZero() || s.due.Before(l.oldest) {
				l.oldest = s.due
			}
			continue
		}
		d.count.timeouts.Add(1)
		l.count.timeouts.Add(1)
		d.abandon(s)
		d.acquit(s)
		d.silent(l)
		s.avoid = l.bit()
		if s.timeouts++; s.timeouts == 1 {
			d.move(s, sendable)
		} else {
			s.due = d.now.Add(d.backoff(s.timeouts - 2))
			d.move(s, waiting)
		}
	}
}

// backoff returns the pause after n failures before.
func (d *delivery) backoff(n int) time.Duration {
	pause := d.cfg.RetryMin << min(n, 30)
	if pause <= 0 || pause > d.cfg.RetryMax {
		return d.cfg.RetryMax
	}
	return pause
}
