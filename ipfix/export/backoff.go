package export

import (
	"math/rand/v2"
	"time"
)

// A backoff says how long to wait from one attempt to connect to the next.
type backoff struct{ least, most time.Duration }

// after returns the wait between an attempt and the next, where so many have
// failed in a row before it: between least and most.
func (b backoff) after(failures int) time.Duration {
	wait := b.least
	for range failures {
		if wait >= b.most/2 {
			wait = b.most
			break
		}
		wait *= 2
	}
	return min(wait+rand.N(wait/4+1), b.most)
}
