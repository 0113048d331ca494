package spool

import (
	"context"
	"fmt"
	"testing"

	"tollbridge/asm/acct"
)

// Records keep the profiles that they came under, over restarts.
func TestProfiles(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Config{})
	ctx := context.Background()
	position := uint64(0)
	add := func(n int) {
		t.Helper()
		position++
		b := acct.Batch{Position: position, Needed: 1}
		for i := range n {
			b.Records = append(b.Records, acct.Record{SessionID: fmt.Sprintf("a;%d;%d", position, i), Type: acct.Event})
		}
		if err := s.Commit(ctx, resumed(b)); err != nil {
			t.Fatal(err)
		}
	}
	set := func(definition string) {
		t.Helper()
		if err := s.Outbox().SetProfiles(ctx, []byte(definition)); err != nil {
			t.Fatal(err)
		}
	}
	is := func(want string) {
		t.Helper()
		all, err := s.Outbox().Profiles(ctx)
		got := ""
		for _, p := range all {
			got += fmt.Sprintf("%d:%s ", p.First, p.Definition)
		}
		if err != nil || got != want {
			t.Fatalf("profiles %s(%v), want %s", got, err, want)
		}
	}
	set("a")
	set("a")
	is("1:a ")
	add(3)
	set("b")
	set("c") // no record came between
	is("1:a 4:c ")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Config{})
	is("1:a 4:c ")
	add(2)
	set("a")
	is("1:a 4:c 6:a ")
	var all []acct.Settlement
	for id := range uint64(4) {
		all = append(all, acct.Settlement{ID: id + 1, State: acct.Acknowledged})
	}
	if err := s.Outbox().Settle(ctx, all); err != nil {
		t.Fatal(err)
	}
	add(1)
	set("d") // no record of a is left to be sent
	is("4:c 6:a 7:d ")
}

// PendingOf finds the records of some realms behind however many others.
func TestPendingOf(t *testing.T) {
	s := open(t, t.TempDir(), Config{})
	ctx := context.Background()
	const n = 70_000
	b := acct.Batch{Position: 1, Needed: 1}
	for i := range n {
		r := acct.Record{SessionID: fmt.Sprintf("a;1;%d", i), Type: acct.Event, Realm: "dead.example"}
		if i%20_000 == 10_000 || i == n-1 {
			r.Realm = "alive.example"
		}
		b.Records = append(b.Records, r)
	}
	if err := s.Commit(ctx, b); err != nil {
		t.Fatal(err)
	}
	var got []uint64
	after, calls := uint64(0), 0
	for more := true; more; calls++ {
		list, through, m, err := s.Outbox().PendingOf(ctx, after, 2, func(realm []byte) bool { return string(realm) == "alive.example" })
		if err != nil || len(list) > 2 || m && through <= after {
			t.Fatalf("%d records, through %d (%v)", len(list), through, err)
		}
		for _, d := range list {
			got = append(got, d.ID)
		}
		after, more = through, m
	}
	if n, err := s.Outbox().CountOf(ctx, func(realm []byte) bool { return string(realm) == "dead.example" }); err != nil || n != 70_000-4 {
		t.Errorf("%d records of a realm are pending (%v), want %d", n, err, 70_000-4)
	}
	if fmt.Sprint(got) != "[10001 30001 50001 70000]" || after != n || calls < 2 {
		t.Errorf("found %v, through %d in %d calls", got, after, calls)
	}
}
