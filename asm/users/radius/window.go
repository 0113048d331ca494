package radius

import (
	"net/netip"
	"time"
)

// windowLength is for how long a request is remembered: longer than any NAS
// repeats one without changing its Acct-Delay-Time, and so all of it.
const windowLength = 30 * time.Second

// maxSeen is the most requests of a client that are remembered. One that is
// forgotten too early is journaled twice, which changes nothing.
const maxSeen = 4096

// A requestKey tells a request from others of its client: a repetition comes
// from the same port with the same Identifier (RFC 5080, Section 2.2.2), and
// with the same Authenticator, which is made from all of its content.
type requestKey struct {
	from          netip.AddrPort
	identifier    uint8
	authenticator [16]byte
}

// An answer is what a request is answered with, as soon as it may be.
type answer struct {
	packet []byte
	due    bool // what the request tells is durable
}

// A window remembers the requests that came lately. The zero window is empty.
type window struct {
	answers map[requestKey]*answer
	order   []seenAt // from the oldest on
}

type seenAt struct {
	requestKey
	at time.Time
}

// find returns the answer to a request that came before; nil if none did.
func (w *window) find(k requestKey) *answer { return w.answers[k] }

// add remembers a request, and forgets those that came long before.
func (w *window) add(k requestKey, a *answer, now time.Time) {
	if w.answers == nil {
		w.answers = map[requestKey]*answer{}
	}
	for len(w.order) > 0 && (len(w.order) >= maxSeen || now.Sub(w.order[0].at) > windowLength) {
		delete(w.answers, w.order[0].requestKey)
		w.order = w.order[1:]
	}
	w.answers[k] = a
	w.order = append(w.order, seenAt{k, now})
}
