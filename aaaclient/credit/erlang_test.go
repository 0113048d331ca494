package credit

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"tollbridge/asm/acct"
	"tollbridge/internal/peertest"
)

// TestErlang has Erlang/OTP's diameter, with its dictionary of RFC 4006, control
// the credit of two users. Its book comes to what was accounted.
func TestErlang(t *testing.T) {
	env := peertest.Dictionaries(t, peertest.NASREQ, peertest.CreditControl)
	cmd := exec.CommandContext(t.Context(), "escript", "testdata/credit.escript", "5000", "1000")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var port int
	for port == 0 && lines.Scan() {
		_, _ = fmt.Sscanf(lines.Text(), "port %d", &port)
	}
	said := make(chan string, 1000)
	go func() {
		defer close(said)
		for lines.Scan() {
			said <- lines.Text()
		}
	}()

	m := &memory{sessions: map[string]Session{}}
	exhausted := make(chan Exhausted, 10)
	cfg := testConfig(m, Peer{Address: fmt.Sprintf("127.0.0.1:%d", port), Host: "ocs.home.example"})
	cfg.Timeout = 0
	cfg.Exhausted = func(e Exhausted) bool { exhausted <- e; return true }
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- p.Run(ctx) }()

	cut := func(session, user string, n uint32, typ acct.RecordType, voice, rest uint64) {
		m.cut(acct.Record{SessionID: session, Number: n, Type: typ, User: user, Usage: usage(0, voice+rest),
			Classes: []acct.ClassUsage{{Class: "voice", Usage: usage(0, voice)}, {Class: "", Usage: usage(0, rest)}, {Class: "free"}}})
		await(t, "the record is dealt with", m.quiet)
	}
	cut("b;1", "alice", 0, acct.Start, 0, 0)
	cut("b;2", "bob", 0, acct.Start, 0, 0)
	for n := range uint32(5) {
		cut("b;1", "alice", n+1, acct.Interim, uint64(n)*400, uint64(n)*900)
		cut("b;2", "bob", n+1, acct.Interim, 0, uint64(n)*10)
	}
	if e := <-exhausted; e.User != "alice" || e.SessionID != "b;1" {
		t.Errorf("exhausted: %+v", e)
	}
	cut("b;1", "alice", 6, acct.Stop, 1700, 3700)
	cut("b;2", "bob", 6, acct.Stop, 0, 77)
	cut("b;3", "bob", 0, acct.Event, 0, 23)
	m.cut(acct.Record{SessionID: "b;4", Type: acct.Event, User: "bob", Usage: usage(0, 40), Corrects: &acct.Correction{SessionID: "b;2", Credit: true}})
	await(t, "all is over", m.done)
	cancel()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	debited := map[string]int{}
	for line := range said {
		var session, user string
		var typ, number, used, result int
		if n, err := fmt.Sscan(strings.TrimSpace(line), &session, &typ, &number, &user, &used, &result); n != 6 || result != 2001 {
			t.Errorf("the server says %q (%v)", line, err)
		}
		debited[user] += used
	}
	_ = cmd.Wait() // killed
	if want := (map[string]int{"alice": 5400, "bob": 60}); fmt.Sprint(debited) != fmt.Sprint(want) {
		t.Errorf("debited %v, accounted %v", debited, want)
	}
	if s := p.Stats(); s.Refused != 0 || s.Malformed != 0 || s.Retransmitted != 0 {
		t.Errorf("%+v", s)
	}
}
