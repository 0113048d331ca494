package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// The daemon requeues what an operator asks it to, and delivers it; verify finds
// nothing wrong and tail shows each record once.
func TestRequeueBesideADaemon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := setup{data: filepath.Join(dir, "data"), tcp: "127.0.0.1:0", server: "127.0.0.1:0"}
	s, err := spool.Open(cfg.data, spool.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	record := acct.Record{SessionID: "bridge.isp.example;1;1", Type: acct.Event, User: "alice", Realm: "aaa.example", Start: time.UnixMilli(0), End: time.UnixMilli(1000), Event: time.UnixMilli(1000).UTC()}
	if err := s.Commit(ctx, acct.Batch{Needed: 1, Time: 1, Records: []acct.Record{record}}); err != nil {
		t.Fatal(err)
	}
	refused := acct.Settlement{ID: 1, State: acct.Quarantined, Result: 5004, Peer: "aaa.isp.example", Reason: "why", At: time.UnixMilli(2000)}
	if err := s.Outbox().Settle(ctx, []acct.Settlement{refused}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d := start(t, cfg)
	out, stderr, status := cli(t, "spool", "requeue", "--data", cfg.data, "1")
	if status != 0 || out != "1 is pending again as 2\n" {
		t.Fatalf("requeue ends with %d: %s%s", status, out, stderr)
	}
	if _, stderr, status := cli(t, "spool", "requeue", "--data", cfg.data, "1"); status != 1 || !strings.Contains(stderr, "it is not quarantined") {
		t.Errorf("again: %d, %s", status, stderr)
	}
	d.waitMetric(`outbox_settled_total{state="acknowledged"}`, atLeast(1))
	if out, stderr, status := cli(t, "spool", "verify", "--data", cfg.data); status != 0 {
		t.Errorf("verify: %s%s", out, stderr)
	}
	if got := charges(t, cfg.data); len(got) != 1 || got[0].SessionID != record.SessionID {
		t.Errorf("delivered %+v", got)
	}
	followed, stop := context.WithCancel(ctx)
	var lines bytes.Buffer
	tail := newRoot()
	tail.SetArgs([]string{"spool", "tail", "--data", cfg.data})
	tail.SetOut(writerFunc(func(b []byte) (int, error) { stop(); return lines.Write(b) }))
	if err := tail.ExecuteContext(followed); err != nil || bytes.Count(lines.Bytes(), []byte("\n")) != 1 || !strings.Contains(lines.String(), `"id":2`) {
		t.Errorf("tail showed %q (%v)", lines.String(), err)
	}
	d.stop()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
