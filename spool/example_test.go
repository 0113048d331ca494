package spool_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// A message goes through the journal into a record, and the record through the
// outbox to its settlement.
func Example() {
	dir, err := os.MkdirTemp("", "spool")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s, err := spool.Open(dir, spool.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Journal().Run(ctx) }()

	position, err := s.Journal().Append(acct.EntryMessage, 0, 0, []byte("message"))
	if err != nil {
		log.Fatal(err)
	}
	entries, err := s.Journal().Reader(0).Next(ctx) // waits until it is durable
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("entry %d: %s\n", entries[0].Position, entries[0].Data)

	amount := acct.Count{Records: 1, Octets: 120868, Packets: 83}
	row := acct.LedgerKey{Exporter: "edge-1"}
	if err := s.Commit(ctx, acct.Batch{
		Position: position,
		Needed:   position + 1,
		Records:  []acct.Record{{SessionID: "bridge.example.net;1;1", Type: acct.Event, Shares: []acct.Share{{LedgerKey: row, Count: amount}}}},
		Ledger:   []acct.LedgerRow{{LedgerKey: row, Received: amount, Accounted: amount}},
	}); err != nil {
		log.Fatal(err)
	}
	pending, err := s.Outbox().Pending(ctx, 0, 10)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("record %d: %s\n", pending[0].ID, pending[0].Record.SessionID)
	if err := s.Outbox().Settle(ctx, []acct.Settlement{{ID: pending[0].ID, State: acct.Acknowledged, Result: 2001}}); err != nil {
		log.Fatal(err)
	}
	books, err := s.Audit(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("balanced: %v, %d octets acknowledged\n", books.Balanced, books.Total.Acknowledged.Octets)

	stop()
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
	// Output:
	// entry 1: message
	// record 1: bridge.example.net;1;1
	// balanced: true, 120868 octets acknowledged
}
