package replay

import (
	"reflect"
	"testing"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// What was taken away from a user again does not count as more usage.
func TestAmountsKeepCreditsApart(t *testing.T) {
	s, err := spool.Open(t.TempDir(), spool.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	share := func(octets uint64) []acct.Share {
		return []acct.Share{{LedgerKey: acct.LedgerKey{Exporter: "edge"}, Count: acct.Count{Records: 1, Octets: octets, Packets: 1}}}
	}
	batch := acct.Batch{Position: 1, Needed: 1, Records: []acct.Record{
		{SessionID: "a;1;1", Number: 1, Type: acct.Interim, User: "alice", Shares: share(100)},
		{SessionID: "a;1;2", Type: acct.Event, User: "alice", Shares: share(40), Corrects: &acct.Correction{SessionID: "a;1;1", Number: 1, Credit: true}},
		{SessionID: "a;1;3", Type: acct.Event, User: "bob", Shares: share(40), Corrects: &acct.Correction{SessionID: "a;1;1", Number: 1}},
	}}
	if err := s.Commit(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	got, err := Amounts(t.Context(), s)
	want := []Amount{
		{User: "alice", Cut: share(100)[0].Count, Credited: share(40)[0].Count},
		{User: "bob", Cut: share(40)[0].Count},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v (%v)", got, want, err)
	}
}
