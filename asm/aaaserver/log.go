package aaaserver

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Bounds of the lines about what is refused: strangers and faulty peers can
// repeat themselves at no cost.
const (
	lineEvery = time.Minute // between two lines of one cause
	maxCauses = 1024        // told apart
	maxLines  = 60          // a minute, of all causes
)

// A cause is why something was refused, and to whom.
type cause struct{ what, who string }

// causes count refusals, to log each cause once in a while. Its methods may be
// called at once.
type causes struct {
	mu     sync.Mutex
	seen   map[cause]*refusals
	minute int64 // the latest with a line, in Unix minutes
	lines  int   // in it
}

type refusals struct {
	logged time.Time
	since  uint64 // refusals since then
}

// due counts a refusal at a time. It reports whether a line is to be logged,
// and how many refusals that stands for.
func (c *causes) due(k cause, now time.Time) (times uint64, due bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.seen[k]
	if r == nil {
		if c.seen == nil || len(c.seen) >= maxCauses {
			c.seen = make(map[cause]*refusals)
		}
		r = new(refusals)
		c.seen[k] = r
	}
	r.since++
	if !r.logged.IsZero() && now.Sub(r.logged) < lineEvery {
		return 0, false
	}
	if minute := now.Unix() / 60; minute != c.minute {
		c.minute, c.lines = minute, 0
	}
	if c.lines++; c.lines > maxLines {
		return 0, false
	}
	times, r.since, r.logged = r.since, 0, now
	return times, true
}

// rootOf returns the innermost error of err, which names no ports.
func rootOf(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// logRefused logs a refusal, unless the same was logged a short time ago.
func (s *Server) logRefused(level slog.Level, what, who string, args ...any) {
	if times, due := s.causes.due(cause{what, who}, time.Now()); due {
		s.cfg.Log.Log(context.Background(), level, what, append(args, "times", times)...)
	}
}
