package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"tollbridge/spool"
)

// pipelineRate is how fast records are sent over UDP, per second.
const pipelineRate = 400_000

const pipelineRecords = 15_000_000

func pipelineUDP(l *lab) comparison {
	return l.pipeline("udp", 0.70, func(ctx context.Context, start starter) (sample, error) {
		return l.receive(ctx, l.size(pipelineRecords), pipelineRate, start)
	})
}

func pipelineTCP(l *lab) comparison {
	return l.pipeline("tcp", 0.60, func(ctx context.Context, start starter) (sample, error) {
		return l.at(func(dir string, port int) (sample, error) { return l.pipelineOverTCP(ctx, dir, port, start) })
	})
}

// pipeline compares the daemon with nothing, or with another build of it.
func (l *lab) pipeline(transport string, aim float64, run func(context.Context, starter) (sample, error)) comparison {
	serve := func(name, tollbridge string) contender {
		return contender{name, func(ctx context.Context) (sample, error) {
			return run(ctx, func(ctx context.Context, dir string, port int) (*process, func(context.Context) (uint64, error), error) {
				return startServe(ctx, tollbridge, dir, port)
			})
		}}
	}
	c := comparison{
		name: "pipeline-" + transport, unit: "records", aim: aim,
		what: "Whole pipeline over " + strings.ToUpper(transport) + ", to accounting records in the outbox",
		ours: serve("tollbridge serve", l.tollbridge),
	}
	if l.another != "" {
		c.peers = append(c.peers, serve("the other build", l.another))
	}
	return c
}

func (l *lab) pipelineOverTCP(ctx context.Context, dir string, port int, start starter) (sample, error) {
	p, count, err := start(ctx, dir, port)
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

// startServe starts a build of the daemon, with 100,000 users and a peer that
// is not there, so that accounting records stay in the outbox.
func startServe(ctx context.Context, tollbridge, dir string, port int) (*process, func(context.Context) (uint64, error), error) {
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
	p, err := startProcess(ctx, tollbridge, "serve", "-c", config)
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
