package export

import (
	"context"
	"net"
	"time"
)

// A collector is a Collecting Process that may be exported to.
type collector struct {
	address  string
	due      time.Time // no attempt to connect before it
	failures int       // attempts since the last that brought a lasting connection
}

// attempt notes that one begins. It has failed unless told otherwise.
func (c *collector) attempt(now time.Time, b backoff) {
	c.due = now.Add(b.after(c.failures))
	c.failures++
}

// succeeded notes that one did, with a connection that stood from a time on.
func (c *collector) succeeded(since time.Time, b backoff) {
	c.failures = 0
	c.due = since.Add(b.after(0))
}

// A route is all of them, the preferred first. It is used by Run, or by the
// search for a better one that Run waits for, never by both at once.
type route struct{ collectors []collector }

// A link is a connection to one of them.
type link struct {
	conn  net.Conn
	to    *collector
	since time.Time
}

func newRoute(addresses []string) *route {
	r := new(route)
	for _, a := range addresses {
		r.collectors = append(r.collectors, collector{address: a})
	}
	return r
}

// next returns which of the first n to try: the first that is due, or the one
// that is so first.
func (r *route) next(n int) *collector {
	now, best := time.Now(), &r.collectors[0]
	for i := range r.collectors[:n] {
		c := &r.collectors[i]
		if !c.due.After(now) {
			return c
		}
		if c.due.Before(best.due) {
			best = c
		}
	}
	return best
}

// rank returns how many are preferred to one.
func (r *route) rank(of *collector) int {
	for i := range r.collectors {
		if &r.collectors[i] == of {
			return i
		}
	}
	panic("export: internal error: a collector that is not of this route")
}

// A search looks for a connection to a preferred Collecting Process.
type search struct {
	found  chan struct{} // closed when link stands
	ended  chan struct{}
	cancel context.CancelFunc
	link   link
}

// prefer begins a search for a better link. It tries each collector as often
// as Run itself would.
func (p *Process) prefer(ctx context.Context, r *route, than link) *search {
	ctx, cancel := context.WithCancel(ctx)
	s := &search{found: make(chan struct{}), ended: make(chan struct{}), cancel: cancel}
	better := r.rank(than.to)
	if better == 0 {
		close(s.ended)
		return s
	}
	go func() {
		defer close(s.ended)
		for {
			c := r.next(better)
			timer := time.NewTimer(time.Until(c.due))
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
			if l, err := p.connect(ctx, c); err == nil {
				s.link = l
				close(s.found)
				return
			}
			if ctx.Err() != nil {
				return
			}
		}
	}()
	return s
}

// stop ends the search and returns what it found.
func (s *search) stop() link {
	s.cancel()
	<-s.ended
	return s.link
}
