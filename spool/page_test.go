package spool

import (
	"testing"

	"tollbridge/asm/acct"
)

// FuzzPage and FuzzSession decode anything without a panic.
func FuzzPage(f *testing.F) {
	pages, err := pack(5, []acct.Record{record(sessionID(1), 0, acct.Start, count(0)), record(sessionID(1), 1, acct.Interim, count(2))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint64(5), uint64(6), pages[0].data)
	f.Add(uint64(5), uint64(6), []byte{pageVersion, 0, 0, 0})
	f.Fuzz(func(t *testing.T, first, last uint64, b []byte) {
		p := parsePage(first, last, b)
		var again []packed
		for _, it := range p.items {
			if it.id < first || it.id > last {
				t.Fatalf("record %d in a page of %d to %d", it.id, first, last)
			}
			again = appendItem(again, it.id, it.content, it.shares)
		}
	})
}

func FuzzSession(f *testing.F) {
	f.Add(appendSession(nil, &acct.SessionState{SessionID: sessionID(1), User: "u", State: []byte("s"), Open: []acct.Share{{LedgerKey: key(0), Count: count(1)}}}))
	f.Add([]byte{sessionVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSession(1, b)
		if err != nil {
			return
		}
		if _, err := parseSession(1, appendSession(nil, &s)); err != nil {
			t.Fatal(err)
		}
	})
}
