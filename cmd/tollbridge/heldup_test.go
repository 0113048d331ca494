package main

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"tollbridge/ipfix"
	"tollbridge/ipfix/export"
	"tollbridge/ipfix/export/backlog"
)

// At a high-water mark an exporter with acknowledged export is told that it is
// held up, and keeps what it has; datagrams that the kernel drops meanwhile are
// counted, and are those that the books miss. All goes on by itself.
func TestHoldUpsAreToldAndDropsCounted(t *testing.T) {
	t.Parallel()
	small := smallDisk(t, "32")
	users := filepath.Join(t.TempDir(), "users.csv")
	if err := os.WriteFile(users, []byte("prefix,user,from,until\n192.0.2.1,ann,,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := setup{data: filepath.Join(small, "data"), users: users, tcp: "127.0.0.1:0", udp: "127.0.0.1:0", server: "127.0.0.1:0", spool: ", minFree: 4MiB"}
	d := start(t, cfg)

	kept, err := backlog.Open(t.TempDir(), backlog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	var said lines
	pr, pw := io.Pipe()
	go said.read(pr)
	defer pw.Close()
	p, err := export.New(export.Config{
		Transport: ipfix.TCP, Address: d.tcp(), Domain: 1, Log: slog.New(slog.NewTextHandler(pw, nil)),
		Acknowledged: &export.Acknowledged{Backlog: kept},
	})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = p.Run(running) }()
	defer func() { stop(); <-ended }()

	flow := datedFlows(t)
	datagrams := ipfix.NewEncoder(2, 0)
	if err := datagrams.AddTemplate(flow); err != nil {
		t.Fatal(err)
	}
	udp, err := net.Dial("udp", d.udp())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	now, sent := time.Now(), uint32(0)
	user := [4]byte{192, 0, 2, 1}
	record := func() []byte { // no two are alike
		sent++
		r := binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()))
		return binary.BigEndian.AppendUint32(append(r, user[:]...), sent)
	}
	var overUDP uint64
	datagram := func() {
		t.Helper()
		if err := datagrams.AppendRecord(flow, record()); err != nil {
			t.Fatal(err)
		}
		if _, err := udp.Write(datagrams.Flush(uint32(now.Unix()))); err != nil {
			t.Fatal(err)
		}
		overUDP++
	}
	acknowledged := func() {
		t.Helper()
		if err := p.Export(t.Context(), flow, record()); err != nil {
			t.Fatal(err)
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	type books struct {
		Balanced bool
		Rows     []struct {
			Domain         int
			Received, Lost struct{ Records uint64 }
		}
	}
	// received returns how many records came of each domain, and how many of UDP are missing.
	received := func() (tcp, udp, lost uint64) {
		t.Helper()
		var b books
		show(t, &b, "audit", "--data", cfg.data)
		if !b.Balanced {
			t.Fatal("the books do not balance")
		}
		for _, r := range b.Rows {
			if r.Domain == 1 {
				tcp += r.Received.Records
			} else {
				udp, lost = udp+r.Received.Records, lost+r.Lost.Records
			}
		}
		return tcp, udp, lost
	}

	acknowledged()
	datagram()
	if !until(t, func() bool {
		tcp, udp, _ := received()
		return tcp == 1 && udp == 1 && p.Stats().Acked == p.Stats().Position
	}) {
		t.Fatal("nothing arrives")
	}
	release := fill(t, small, 1<<20)
	d.waitMetric("journal_messages_held", atLeast(1))
	acknowledged()
	if said.wait(t.Context(), regexp.MustCompile(`held up`)) == nil {
		t.Fatalf("the exporter is not told:\n%s", said.tail(5))
	}
	if s := p.Stats(); s.Acked == s.Position {
		t.Errorf("acknowledged, though held up: %+v", s)
	}
	for range 30_000 { // far more than a socket holds
		datagram()
	}
	release()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.waitMetric("journal_messages_held", func(v float64) bool { return v == 0 })
	var tcp, over, lost uint64
	looks := 0
	if !until(t, func() bool {
		if looks%4 == 0 { // the numbers show a loss only once something came behind it
			datagram()
		}
		looks++
		tcp, over, lost = received()
		return lost > 0 && over+lost == overUDP
	}) {
		t.Fatalf("%d datagrams of %d came, %d are missing", over, overUDP, lost)
	}
	if tcp != 2 {
		t.Errorf("%d records came with acknowledgements, want 2", tcp)
	}
	if dropped := uint64(d.metric("collector_kernel_dropped_total")); dropped != lost {
		t.Errorf("the kernel dropped %d datagrams, the books miss %d", dropped, lost)
	}
	d.stop()
	audit(t, cfg.data)
}
