package aaaclient

import "time"

// A pace is how many requests a peer gets at once. It begins with the whole
// window and adapts to what the peer answers: additive increase,
// multiplicative decrease. A peer that says that it has too much to do
// (DIAMETER_TOO_BUSY, a transient failure, DIAMETER_RESOURCES_EXCEEDED), is
// silent, or takes longer than a quarter of the timeout gets half as many, at
// most once per round trip; each answer in time widens that again, by one per
// window of them. It never falls below one nor rises above the window.
type pace struct {
	most    int
	now     float64
	smooth  time.Duration // of the latency, as RFC 6298 has SRTT
	until   time.Time     // not halved again before
	reduced uint64        // how often it was halved
}

func newPace(window int) pace { return pace{most: window, now: float64(window)} }

func (p *pace) limit() int { return max(1, int(p.now)) }

// fast says that an answer came in time.
func (p *pace) fast() {
	if p.now < float64(p.most) {
		p.now = min(p.now+1/p.now, float64(p.most))
	}
}

// slow says that the peer has too much to do.
func (p *pace) slow(now time.Time) {
	if now.Before(p.until) {
		return
	}
	p.now = max(1, p.now/2)
	p.reduced++
	p.until = now.Add(max(p.smooth, minRound))
}

// minRound is the least time between two halvings.
const minRound = 10 * time.Millisecond

// measure takes the latency of an answer that says success.
func (p *pace) measure(now time.Time, latency, timeout time.Duration) {
	if p.smooth == 0 {
		p.smooth = latency
	} else {
		p.smooth += (latency - p.smooth) / 8
	}
	if latency > timeout/4 {
		p.slow(now)
	} else {
		p.fast()
	}
}

// A bucket lets so many records a second go, and a second's worth at once.
type bucket struct {
	rate   int // 0 is no limit
	tokens float64
	last   time.Time
}

// take takes a token, if there is one.
func (b *bucket) take(now time.Time) bool {
	if b.rate == 0 {
		return true
	}
	if b.last.IsZero() {
		b.tokens = float64(b.rate)
	} else {
		b.tokens = min(b.tokens+now.Sub(b.last).Seconds()*float64(b.rate), float64(b.rate))
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// due returns when the next token is there.
func (b *bucket) due() time.Time {
	return b.last.Add(time.Duration((1 - b.tokens) / float64(b.rate) * float64(time.Second)))
}
