package main

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// "spool show -o json" speaks as the other listings do: names in lower case,
// words for states and types.
func TestDetailSpeaksAsTheListingsDo(t *testing.T) {
	l := spool.Listed{
		ID: 17, State: acct.Quarantined, EndToEnd: 5, MaySent: true, Result: 5012, Peer: "aaa.example",
		Record: acct.Record{
			SessionID: "b.example;1;2", Number: 3, Type: acct.Interim, User: "alice", Framed: netip.MustParsePrefix("192.0.2.1/32"),
			SessionTime: 1500 * time.Millisecond, Classes: []acct.ClassUsage{{Class: "voice"}},
			Shares: []acct.Share{{LedgerKey: acct.LedgerKey{Exporter: "edge", Domain: 1, Interval: 60}, Count: acct.Count{Records: 1, Octets: 2, Packets: 3}}},
		},
	}
	b, err := json.Marshal(detailOf(l))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"id":17`, `"state":"quarantined"`, `"type":"INTERIM"`, `"session_id":"b.example;1;2"`, `"framed":"192.0.2.1/32"`,
		`"session_time":1.5`, `"classes":[{"class":"voice",`, `"may_have_been_sent":true`,
		`"shares":[{"exporter":"edge","domain":1,"interval":"1970-01-01T00:01:00Z","records":1,"octets":2,"packets":3}]`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %s", b, want)
		}
	}
}
