package spool

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"tollbridge/asm/acct"
)

// The journal can be read again from the latest opening that is not behind a
// time, as long as what follows it is kept.
func TestOpenings(t *testing.T) {
	s, err := Open(t.TempDir(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	defer run(t, s.Journal())()
	ctx := t.Context()
	share := acct.Share{LedgerKey: acct.LedgerKey{Exporter: "a", Domain: 1, Interval: 60}, Count: acct.Count{Records: 1, Octets: 2, Packets: 3}}
	for n := uint64(1); n <= 3; n++ {
		if _, err := s.Journal().Append(acct.EntryTick, int64(n), 0, nil); err != nil {
			t.Fatal(err)
		}
		flush(t, s.Journal())
		err := s.Commit(ctx, acct.Batch{
			Position: n, Needed: n + 1, Time: time.Unix(int64(n)*100, 0).UnixNano(),
			Sessions:  []acct.SessionState{{ID: n, SessionID: "s", User: "alice", State: []byte{1}, Number: 7, Open: []acct.Share{share}}},
			State:     []acct.State{{Kind: "kind", Key: "key", Value: []byte{byte(n)}}},
			Suspended: []acct.Suspended{{ID: n, Key: share.LedgerKey, Count: share.Count, Reason: "why", Flow: []byte{9}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if at, err := s.KeepOpening(ctx); err != nil || at != n {
			t.Fatal(err)
		}
	}
	want, err := s.Opening(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(want.Sessions) != 3 || len(want.Suspended) != 3 || len(want.State) != 1 || want.HashKey != [16]byte{} {
		t.Fatalf("opening %+v", want)
	}
	var written bytes.Buffer
	if err := want.Write(&written); err != nil {
		t.Fatal(err)
	}
	for n := range written.Len() { // a part of it is no Opening, or one of fewer lines
		if got, err := ReadOpening(bytes.NewReader(written.Bytes()[:n])); err == nil && reflect.DeepEqual(got, want) && n < written.Len()-1 {
			t.Fatalf("%d of %d octets are the whole", n, written.Len())
		}
	}
	at := func(sec int64) (Opening, error) {
		o, err := s.OpeningAt(ctx, time.Unix(sec, 0))
		o.HashKey = [16]byte{}
		return o, err
	}
	if got, err := at(1000); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the latest is\n%+v (%v), want\n%+v", got, err, want)
	}
	if got, err := at(250); err != nil || got.Position != 2 {
		t.Errorf("at 250: position %d (%v)", got.Position, err)
	}
	if got, err := at(50); err != nil || got.Position != 0 {
		t.Errorf("at 50: position %d (%v), want the journal's beginning", got.Position, err)
	}
	if err := s.Journal().Trim(ctx, 3); err != nil {
		t.Fatal(err)
	}
	if got, err := at(250); err != nil || got.Position != 2 {
		t.Errorf("after a trim up to it: position %d (%v)", got.Position, err)
	}
	if got, err := at(150); !errors.Is(err, ErrNotFound) || got.Position != 2 {
		t.Errorf("after a trim beyond it: position %d (%v), want the oldest left", got.Position, err)
	}
}

// What is accounted stays for auditors while it is young, unless the journal is
// too large.
func TestTrimKeepsWhatIsYoung(t *testing.T) {
	s, err := Open(t.TempDir(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, j := t.Context(), s.Journal()
	defer run(t, j)()
	for n := range int64(10) {
		if _, err := j.Append(acct.EntryMessage, time.Unix(n, 0).UnixNano(), 0, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		flush(t, j)
	}
	for _, row := range []struct {
		name  string
		below uint64
		keep  Keep
		first uint64
	}{
		{"needed", 1, Keep{}, 1},
		{"younger than 8 s at 10 s", 11, Keep{Age: 8 * time.Second, Octets: 1 << 20}, 4},
		{"more octets than are kept", 11, Keep{Age: time.Hour, Octets: 5 * 3 * 512}, 6},
		{"nothing kept", 11, Keep{}, 11},
	} {
		if err := j.TrimBut(ctx, row.below, time.Unix(10, 0), row.keep); err != nil {
			t.Fatal(err)
		}
		if got := j.Stats().First; got != row.first {
			t.Errorf("%s: the first position is %d, want %d", row.name, got, row.first)
		}
	}
}
