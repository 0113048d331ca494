package peer

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Watchdog intervals (RFC 3539, Section 3.4.1).
const (
	DefaultWatchdog = 30 * time.Second // Tw where nothing else is configured
	MinWatchdog     = 6 * time.Second  // the smallest Tw allowed
	watchdogJitter  = 2 * time.Second  // Tw varies by up to this, either way
)

// A State is where a peer stands (RFC 3539, Section 3.4.1).
type State uint8

const (
	Initial State = iota // never connected
	Okay                 // connected and in use
	Suspect              // did not answer a watchdog in time: fail over
	Down                 // no connection
	Reopen               // connected again; three watchdog answers make it Okay
)

func (s State) String() string {
	switch s {
	case Initial:
		return "INITIAL"
	case Okay:
		return "OKAY"
	case Suspect:
		return "SUSPECT"
	case Down:
		return "DOWN"
	case Reopen:
		return "REOPEN"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// An Action is what a Watchdog wants done.
type Action uint8

const (
	Nothing         Action = iota
	SendWatchdog           // send a Device-Watchdog-Request
	CloseConnection        // the connection is dead
)

// A Watchdog is the algorithm of RFC 3539, Section 3.4.1 for one peer, over
// all of its connections one after the other. Failover and failback are the
// owner's: it reads State. AttemptOpen is the business of whoever connects, at
// the pace of the timer Tc (RFC 6733, Section 2.1).
//
// Time is an argument; a Watchdog starts no timer. One goroutine at a time.
type Watchdog struct {
	interval time.Duration
	jitter   func() time.Duration
	state    State
	pending  bool // a DWR is unanswered
	answers  int  // NumDWA
	deadline time.Time
}

// NewWatchdog returns the Watchdog of a peer in state Initial. Tw is interval,
// 0 for DefaultWatchdog, varied by up to 2 s at each setting so that nodes do
// not fall into step. An interval below MinWatchdog is an error.
func NewWatchdog(interval time.Duration) (*Watchdog, error) {
	if interval == 0 {
		interval = DefaultWatchdog
	}
	if interval < MinWatchdog {
		return nil, fmt.Errorf("peer: watchdog interval %v is below %v (RFC 3539, Section 3.4.1)", interval, MinWatchdog)
	}
	return &Watchdog{interval: interval, jitter: func() time.Duration {
		return rand.N(2*watchdogJitter+1) - watchdogJitter
	}}, nil
}

// State returns where the peer stands.
func (w *Watchdog) State() State { return w.state }

// Deadline returns when Expire is due; the zero time without a connection.
func (w *Watchdog) Deadline() time.Time { return w.deadline }

func (w *Watchdog) set(now time.Time) { w.deadline = now.Add(w.interval + w.jitter()) }

// Open says that a connection has exchanged capabilities. The first one may be
// tried with a DWR at once; later ones are in any case.
func (w *Watchdog) Open(now time.Time, try bool) Action {
	w.set(now)
	w.answers = 0
	if w.state == Initial {
		w.state = Okay
	} else {
		w.state, try = Reopen, true
	}
	if w.pending = try; try {
		return SendWatchdog
	}
	return Nothing
}

// Receive says that a message came, a Device-Watchdog-Answer or another.
func (w *Watchdog) Receive(now time.Time, answer bool) {
	if answer {
		w.pending = false
	}
	switch w.state {
	case Okay, Suspect:
		w.state = Okay
		w.set(now)
	case Reopen:
		if !answer {
			return
		}
		if w.answers++; w.answers == 3 {
			w.state = Okay
			w.set(now)
		}
	}
}

// Expire says that the deadline has passed.
func (w *Watchdog) Expire(now time.Time) Action {
	switch w.state {
	case Okay:
		w.set(now)
		if !w.pending {
			w.pending = true
			return SendWatchdog
		}
		w.state = Suspect
	case Suspect:
		return CloseConnection
	case Reopen:
		w.set(now)
		switch {
		case !w.pending:
			w.pending = true
			return SendWatchdog
		case w.answers < 0:
			return CloseConnection
		}
		w.answers = -1
	}
	return Nothing
}

// Close says that the connection is gone.
func (w *Watchdog) Close() {
	w.deadline = time.Time{}
	w.pending = false
	if w.state != Initial {
		w.state = Down
	}
}
