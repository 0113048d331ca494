package aaaclient

import (
	"time"

	"tollbridge/asm/acct"
)

// A stage is where the head of a session's queue is on its way.
type stage uint8

const (
	resting  stage = iota // there is no head
	ready                 // may be sent once it is marked
	marking               // MarkSent is under way
	sendable              // marked: may be sent
	inFlight              // sent, and the connection is up
	waiting               // for its time to be tried again
	reading               // to be read from the outbox
	stages
)

// A session is the queue of one Session-Id: the records that are in memory,
// of which only the first, the head, is ever on its way.
type session struct {
	id       string
	route    *route
	queue    []acct.Delivery
	last     uint64 // the highest ID that was queued; those at or below are in the queue or settled
	skipped  uint64 // from this ID on, records were left in the outbox; 0 for none
	settling int    // settlements that are not durable yet
	hash     uint64 // of id; 0 until it is wanted

	stage   stage
	queued  [stages]bool // in route.ready or link.parked, in route.sendable, in route.reading
	to      *link        // a marking or sendable head is meant for it; nil for none
	at      int          // in delivery.waits; -1 outside
	due     time.Time    // of a waiting or inFlight head
	attempt              // of the head
}

// An attempt is what has happened to a record since it became the head.
type attempt struct {
	id        uint64
	read      bool   // answered with an error: to be read from the outbox again
	marked    bool   // MarkSent is durable
	sendings  int    // that were not answered, since the record was read
	timeouts  int    // in a row
	drops     int    // disconnects in a row while it was in flight
	alone     bool   // to be sent with nothing else in flight on its link
	innocent  uint64 // delivery.answers before the first of these
	cuts      int    // how often it was in flight at a cut since
	avoid     uint64 // set of links that failed it lately
	refused   uint64 // set of links that have no route for it
	reroutes  int    // answers that said so
	copies    uint64 // set of links on which a copy may be answered yet
	link      *link  // where it is in flight
	hopByHop  uint32
	abandoned bool // in delivery.late
}

// maxQueue bounds the records of one session in memory, so that a session
// that is stuck leaves room for the others.
const maxQueue = 32

// head returns the record that is on its way.
func (s *session) head() *acct.Delivery { return &s.queue[0] }

// begin makes the first of the queue the head, keeping what is known of it if
// it was the head before.
func (s *session) begin() {
	if id := s.queue[0].ID; s.attempt.id != id {
		s.attempt = attempt{id: id}
	}
	s.read, s.marked, s.sendings, s.copies = false, s.queue[0].MaySent, 0, 0
}

// pop takes the head off the queue.
func (s *session) pop() {
	s.queue[0] = acct.Delivery{}
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil
	}
}

// assign says that the head is meant for l, which keeps room for it.
func (s *session) assign(l *link) {
	s.to = l
	l.assigned++
}

func (s *session) unassign() {
	if s.to != nil {
		s.to.assigned--
		s.to = nil
	}
}

// idle reports whether nothing of the session is left to remember.
func (s *session) idle() bool {
	return s.stage == resting && s.settling == 0 && s.skipped == 0 && len(s.queue) == 0
}

// waits is a heap of waiting sessions by time (container/heap).
type waits []*session

func (w waits) Len() int           { return len(w) }
func (w waits) Less(i, j int) bool { return w[i].due.Before(w[j].due) }
func (w waits) Swap(i, j int)      { w[i], w[j] = w[j], w[i]; w[i].at, w[j].at = i, j }
func (w *waits) Push(x any)        { s := x.(*session); s.at = len(*w); *w = append(*w, s) }
func (w *waits) Pop() any {
	n := len(*w) - 1
	s := (*w)[n]
	(*w)[n] = nil
	*w = (*w)[:n]
	s.at = -1
	return s
}
