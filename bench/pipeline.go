package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"tollbridge/spool"
)

// pipelineRate is how fast records are sent over UDP, per second.
const pipelineRate = 400_000

const pipelineRecords = 15_000_000

func pipelineUDP(l *lab) comparison {
	return comparison{
		name: "pipeline-udp", what: "Whole pipeline over UDP, to accounting records in the outbox", unit: "records", aim: 0.70,
		ours: contender{"tollbridge serve", func(ctx context.Context) (sample, error) {
			return l.receive(ctx, l.size(pipelineRecords), pipelineRate, l.startServe)
		}},
	}
}

func pipelineTCP(l *lab) comparison {
	return comparison{
		name: "pipeline-tcp", what: "Whole pipeline over TCP, to accounting records in the outbox", unit: "records", aim: 0.60,
		ours: contender{"tollbridge serve", func(ctx context.Context) (sample, error) {
			return l.at(func(dir string, port int) (sample, error) { return l.pipelineOverTCP(ctx, dir, port) })
		}},
	}
}

func (l *lab) pipelineOverTCP(ctx context.Context, dir string, port int) (sample, error) {
	p, count, err := l.startServe(ctx, dir, port)
	if err != nil {
		return sample{}, err
	}
	defer p.kill()
	if err := awaitBound(ctx, port); err != nil {
		return sample{}, err
	}
	messages := l.size(pipelineRecords) / recordsPerMessage
	if err := sendTCP(ctx, port, newLoad(1_000_000), messages); err != nil {
		return sample{}, err
	}
	if err := p.settle(ctx); err != nil {
		return sample{}, err
	}
	cpu, err := p.stop()
	if err != nil {
		return sample{}, err
	}
	n, err := count(ctx)
	if err != nil {
		return sample{}, err
	}
	if n != uint64(messages*recordsPerMessage) {
		return sample{}, fmt.Errorf("%d records accounted of %d", n, messages*recordsPerMessage)
	}
	return sample{cpu: cpu, n: n}, nil
}

// startServe starts the daemon, with 100,000 users and a peer that is not
// there, so that accounting records stay in the outbox.
func (l *lab) startServe(ctx context.Context, dir string, port int) (*process, func(context.Context) (uint64, error), error) {
	nobody, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	usersFile, data, config := filepath.Join(dir, "users.csv"), filepath.Join(dir, "data"), filepath.Join(dir, "tollbridge.yaml")
	if err := writeUsers(usersFile); err != nil {
		return nil, nil, err
	}
	err = os.WriteFile(config, fmt.Appendf(nil, `data: %s
collectingProcess:
  udpCollectors: [%[2]s]
  tcpCollectors: [%[2]s]
users:
  files: [%s]
accounting:
  interimInterval: %s
delivery:
  peers: [{address: %s}]
server:
  listen: []
status:
  listen: ""
log:
  level: warn
`, data, loopback(port), usersFile, interimInterval, loopback(nobody)), 0o600)
	if err != nil {
		return nil, nil, err
	}
	p, err := startProcess(ctx, l.tollbridge, "serve", "-c", config)
	return p, func(ctx context.Context) (uint64, error) { return accounted(ctx, data) }, err
}

// interimInterval is that of the daemon's configuration by default.
const interimInterval = "5m"

// writeUsers writes a users file: one host each.
func writeUsers(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "prefix,user,from,until")
	for i := range uint32(users) {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], userAddress(i))
		fmt.Fprintf(w, "%v,user-%06d@isp.example,,\n", netip.AddrFrom4(a), i)
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// accounted returns how many records were received and accounted by the books
// in dir, and sees to it that each of the users has an accounting record.
func accounted(ctx context.Context, dir string) (uint64, error) {
	s, err := spool.OpenReadOnly(dir)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	books, err := s.Audit(ctx)
	if err != nil {
		return 0, err
	}
	if !books.Balanced {
		return 0, fmt.Errorf("the books do not balance: %v", books.Problems)
	}
	if books.Total.Accounted != books.Total.Received {
		return 0, fmt.Errorf("%d records accounted of %d received", books.Total.Accounted.Records, books.Total.Received.Records)
	}
	stats, err := s.Stats(ctx)
	if err != nil {
		return 0, err
	}
	if want := min(users, int(books.Total.Received.Records)); stats.Records["pending"] < want {
		return 0, fmt.Errorf("%d accounting records in the outbox for %d users", stats.Records["pending"], want)
	}
	return books.Total.Received.Records, nil
}
