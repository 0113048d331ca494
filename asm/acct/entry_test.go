package acct_test

import (
	"math"
	"testing"

	"tollbridge/asm/acct"
)

func TestStream(t *testing.T) {
	for _, stream := range []uint16{0, 1, math.MaxUint16} {
		for _, session := range []uint64{0, 1, 1<<48 - 1} {
			e := acct.Entry{Session: acct.OfStream(session, stream)}
			if gotSession, gotStream := e.Stream(); gotSession != session || gotStream != stream {
				t.Errorf("session %d, stream %d are %d, %d", session, stream, gotSession, gotStream)
			}
		}
	}
	if got := acct.OfStream(7, 0); got != 7 {
		t.Errorf("stream 0 of session 7 is %d", got)
	}
}
