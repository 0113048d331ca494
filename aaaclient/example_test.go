package aaaclient_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"tollbridge/aaaclient"
	"tollbridge/asm/aaaserver"
	"tollbridge/asm/acct"
)

// three is an Outbox with three records of one session.
type three struct {
	settled int
	done    context.CancelFunc
}

func (*three) Wake() <-chan struct{}                    { return nil }
func (*three) MarkSent(context.Context, []uint64) error { return nil }

func (*three) Pending(_ context.Context, after uint64, max int) (out []acct.Delivery, _ error) {
	for id := after + 1; id <= 3 && len(out) < max; id++ {
		out = append(out, acct.Delivery{ID: id, EndToEnd: uint32(id), Record: acct.Record{
			SessionID: "bridge.visited.example;1;1", Number: uint32(id - 1), Type: acct.RecordType(id + 1), User: "ann",
		}})
	}
	return out, nil
}

func (o *three) Settle(_ context.Context, settlements []acct.Settlement) error {
	if o.settled += len(settlements); o.settled == 3 {
		o.done()
	}
	return nil
}

// printer is a Store that prints.
type printer struct{}

func (printer) Store(_ context.Context, cdrs []acct.CDR) ([]acct.Outcome, error) {
	for _, c := range cdrs {
		fmt.Println(c.Type, c.SessionID, c.Number, c.User)
	}
	return make([]acct.Outcome, len(cdrs)), nil
}

// A client delivers an outbox to an AAA server.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server, err := aaaserver.New(aaaserver.Config{OriginHost: "acct.home.example", OriginRealm: "home.example", Store: printer{}})
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()

	client, err := aaaclient.New(aaaclient.Config{
		OriginHost: "bridge.visited.example", OriginRealm: "visited.example", DestinationRealm: "home.example",
		Peers:  []aaaclient.Peer{{Host: "acct.home.example", Address: ln.Addr().String()}},
		Outbox: &three{done: cancel},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Run(ctx); err != nil {
		log.Fatal(err)
	}
	if err := <-served; err != nil {
		log.Fatal(err)
	}
	fmt.Println("settled", client.Stats().Settled)
	// Output:
	// START bridge.visited.example;1;1 0 ann
	// INTERIM bridge.visited.example;1;1 1 ann
	// STOP bridge.visited.example;1;1 2 ann
	// settled 3
}
