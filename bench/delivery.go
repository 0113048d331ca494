package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"tollbridge/aaaclient"
	"tollbridge/asm/aaaserver"
	"tollbridge/asm/acct"
	"tollbridge/spool"
)

const (
	deliveries       = 300_000 // accounting records in a filled spool
	deliverySessions = 50_000
	deliveryWindow   = 1024 // unanswered requests, for us and for go-diameter
)

const (
	bridgeHost  = "bridge.tollbridge.example"
	bridgeRealm = "tollbridge.example"
	serverHost  = "aaa.isp.example"
	serverRealm = "isp.example"
)

func delivering(l *lab) comparison {
	filled := sync.OnceValues(func() (string, error) { return l.fillSpool(l.size(deliveries)) })
	return comparison{
		name: "delivery", what: "Deliver accounting requests, from the outbox to durably settled", unit: "ACRs", aim: 6,
		ours: contender{"spool and aaaclient", func(ctx context.Context) (sample, error) {
			from, err := filled()
			if err != nil {
				return sample{}, err
			}
			dir, remove, err := l.scratch()
			if err != nil {
				return sample{}, err
			}
			defer remove()
			if err := os.CopyFS(filepath.Join(dir, "data"), os.DirFS(from)); err != nil {
				return sample{}, err
			}
			return l.deliver(ctx, l.size(deliveries), "deliver", filepath.Join(dir, "data"))
		}},
		peers: []contender{{"go-diameter's API, nothing durable", func(ctx context.Context) (sample, error) {
			return l.deliver(ctx, l.size(deliveries), "godiameter", strconv.Itoa(l.size(deliveries)))
		}}},
	}
}

// deliver runs a child that delivers n ACRs to a server in this process.
func (l *lab) deliver(ctx context.Context, n int, child, argument string) (sample, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return sample{}, err
	}
	server, err := aaaserver.New(aaaserver.Config{OriginHost: serverHost, OriginRealm: serverRealm, Store: discard{}})
	if err != nil {
		return sample{}, errors.Join(err, ln.Close())
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- server.Serve(serving, ln) }()
	cpu, err := func() (time.Duration, error) {
		p, err := startProcess(ctx, l.self, child, ln.Addr().String(), argument)
		if err != nil {
			return 0, err
		}
		defer p.kill()
		return p.wait()
	}()
	stop()
	if err := errors.Join(err, <-done); err != nil {
		return sample{}, err
	}
	if stored := server.Stats().Stored; stored != uint64(n) {
		return sample{}, fmt.Errorf("%d accounting requests came of %d", stored, n)
	}
	return sample{cpu: cpu, n: uint64(n)}, nil
}

// discard is an accounting application that keeps nothing.
type discard struct{}

func (discard) Store(_ context.Context, cdrs []acct.CDR) ([]acct.Outcome, error) {
	return make([]acct.Outcome, len(cdrs)), nil // all Stored
}

// deliverChild delivers what the spool holds and ends when all is settled.
func deliverChild(ctx context.Context, args []string) error {
	collectAsServe()
	address, dir := args[0], args[1]
	s, err := spool.Open(dir, spool.Config{})
	if err != nil {
		return err
	}
	defer s.Close()
	client, err := aaaclient.New(aaaclient.Config{
		OriginHost: bridgeHost, OriginRealm: bridgeRealm, DestinationRealm: serverRealm,
		Peers:  []aaaclient.Peer{{Host: serverHost, Address: address}},
		Outbox: s.Outbox(), Window: deliveryWindow,
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		for s.Outbox().Stats().Pending > 0 && running.Err() == nil {
			time.Sleep(5 * time.Millisecond)
		}
	}()
	if err := client.Run(running); err != nil {
		return err
	}
	if left := s.Outbox().Stats().Pending; left > 0 {
		return fmt.Errorf("%d records are not settled", left)
	}
	return nil
}

// fillSpool makes a spool with n records pending, of sessions that are all
// open at once, and returns its directory.
func (l *lab) fillSpool(n int) (string, error) {
	dir := filepath.Join(l.dir, "outbox")
	s, err := spool.Open(dir, spool.Config{})
	if err != nil {
		return "", err
	}
	const batch = 10_000
	for first := 0; first < n; first += batch {
		b := acct.Batch{Position: uint64(first/batch + 1), Needed: 1, State: []acct.State{{Kind: acct.StatePipeline, Value: []byte{1}}}}
		for i := first; i < min(first+batch, n); i++ {
			b.Records = append(b.Records, accountingRecord(i))
		}
		if err := s.Commit(context.Background(), b); err != nil {
			return "", errors.Join(err, s.Close())
		}
	}
	return dir, s.Close()
}

// accountingRecord returns the ith record: the START of every session, then
// INTERIMs in turn.
func accountingRecord(i int) acct.Record {
	user, number := i%deliverySessions, uint64(i/deliverySessions)
	start := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	end := start.Add(time.Duration(number) * 5 * time.Minute)
	r := acct.Record{
		SessionID: fmt.Sprintf("%s;1782907200;%d", bridgeHost, user),
		Number:    uint32(number), Type: acct.Interim,
		User:   fmt.Sprintf("user-%06d@isp.example", user),
		Framed: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(user >> 16), byte(user >> 8), byte(user)}), 32),
		Start:  start, End: end, Event: end, SessionTime: end.Sub(start),
		Usage: acct.Usage{InputOctets: 1 << 20 * number, OutputOctets: 1 << 24 * number, InputPackets: 9000 * number, OutputPackets: 12000 * number},
	}
	if number == 0 {
		r.Type = acct.Start
		r.Shares = []acct.Share{{LedgerKey: acct.LedgerKey{Exporter: "edge-1", Domain: 1, Interval: start.Unix()}}}
	}
	return r
}
