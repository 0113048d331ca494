package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"tollbridge/internal/crashpoint"
)

// TestKill kills the daemon with kill -9 at a dozen moments of one run. The
// exporter has no acknowledgement over plain TCP, so after each restart it sends
// everything again, and what is new; duplicates are recognized. In the end every
// user is billed what tshark counted and the books balance to the octet, as
// they did after each kill.
func TestKill(t *testing.T) {
	t.Run("own AAA server", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		aaa := &ownServer{t: t, setup: setup{data: filepath.Join(dir, "aaa"), origin: "unused.aaa.example", server: "127.0.0.1:0"}}
		aaa.daemon = start(t, aaa.setup)
		aaa.setup.server = aaa.daemon.server() // for its restarts
		r := newKillRun(t, dir, setup{peers: []string{peerAt(aaa.setup.server, "server.aaa.example")}})
		r.crashes()
		r.unanswered(aaa)
		r.withServer(aaa)
		r.atRandom(4)
		r.finish()
		if got, want := len(charges(t, aaa.setup.data)), acknowledged(t, r.setup.data); got != want {
			t.Errorf("the AAA server has %d records, but %d are acknowledged", got, want)
		}
		checkBill(t, bill(charges(t, aaa.setup.data)))
		aaa.daemon.stop()
	})
	t.Run("Erlang", func(t *testing.T) {
		t.Parallel()
		e := startErlang(t)
		r := newKillRun(t, t.TempDir(), setup{peers: []string{peerAt(e.address(), "acct.home.example")}, realm: "home.example"})
		r.crashes()
		r.atRandom(4)
		r.finish()
		checkBill(t, bill(e.charges(t, acknowledged(t, r.setup.data))))
	})
}

// An ownServer is a daemon that is only an AAA server.
type ownServer struct {
	t      *testing.T
	setup  setup
	daemon *daemon
}

// A killRun is a bridge that is killed again and again, and its exporter.
type killRun struct {
	t      *testing.T
	setup  setup
	stream *stream
	sent   int // Messages of the stream that have been sent at least once
	step   int // Messages that are new in each round
	kills  int
	random *rand.Rand
}

func newKillRun(t *testing.T, dir string, s setup) *killRun {
	_, users := files(t, dir)
	s.data, s.users, s.tcp = filepath.Join(dir, "bridge"), users, "127.0.0.1:0"
	s.spool, s.counting = ", keepJournal: 0s", ", compareJournal: 0" // so that it trims
	r := &killRun{t: t, setup: s, stream: captureStream(t), random: rand.New(rand.NewPCG(1, 2))}
	r.step = len(r.stream.messages) / 14
	return r
}

// start starts the bridge, a build with crash points.
func (r *killRun) start(env ...string) *daemon {
	r.t.Helper()
	d := launch(r.t, crashProgram, r.setup, env...)
	d.waitLog("msg=started")
	return d
}

// export sends all Messages of before again and some new ones, a few
// milliseconds apart, on one new Transport Session after the other until the
// daemon dies. On the first session it calls sent after each Message.
func (r *killRun) export(d *daemon, sent func(n int)) (wait func()) {
	r.sent = min(r.sent+r.step, len(r.stream.messages))
	address, messages := d.tcp(), r.stream.messages[:r.sent]
	done := make(chan struct{})
	go func() {
		defer close(done)
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		for ; ; sent = func(int) {} {
			nc, err := net.Dial("tcp", address)
			if err != nil {
				return // it has been killed
			}
			for i, m := range messages {
				if _, err := nc.Write(m); err != nil {
					break
				}
				sent(i + 1)
				<-pace.C
			}
			nc.Close()
		}
	}()
	return func() { <-done }
}

// dead checks what a killed daemon has left on the disk.
func (r *killRun) dead(d *daemon) {
	r.t.Helper()
	r.kills++
	if status := d.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		r.t.Fatalf("it ended with %v:\n%s", d.err, d.lines.tail(30))
	}
	audit(r.t, r.setup.data)
}

// crashes has the daemon kill itself at its crash points. Its last words prove
// where it was.
func (r *killRun) crashes() {
	for _, c := range []struct {
		point string
		pass  int
	}{
		{crashpoint.JournalCommitted, 2},
		{crashpoint.CheckpointWritten, 3},
		{crashpoint.CheckpointCommitted, 3},
		{crashpoint.RequestSent, 2},
		{crashpoint.SettleWritten, 2},
		{crashpoint.Trimming, 2},
		{crashpoint.CheckpointWritten, 5},
		{crashpoint.RequestSent, 1},
	} {
		d := r.start(fmt.Sprintf("TOLLBRIDGE_CRASH=%s:%d", c.point, c.pass))
		wait := r.export(d, func(int) {})
		d.wait()
		wait()
		d.waitLog(regexp.QuoteMeta(fmt.Sprintf("crash point %q pass %d", c.point, c.pass)))
		r.dead(d)
	}
}

// unanswered kills the daemon while the AAA server is held up: requests have
// been sent, and no answer has come. Afterwards the server takes them, and takes
// the same again from the restarted daemon, with the T flag.
func (r *killRun) unanswered(aaa *ownServer) {
	const sent, answered = `msg="acr sent"`, `msg="aca received"`
	d := r.start()
	wait := r.export(d, func(int) {})
	d.waitMetric(fmt.Sprintf("delivery_peer_ready{peer=%q}", aaa.setup.server), atLeast(1))
	aaa.daemon.cmd.Process.Signal(syscall.SIGSTOP)
	until(r.t, func() bool { return d.lines.count(sent) > d.lines.count(answered) })
	d.kill()
	wait()
	aaa.daemon.cmd.Process.Signal(syscall.SIGCONT)
	if s, a := d.lines.count(sent), d.lines.count(answered); s <= a {
		r.t.Fatalf("%d requests were sent and %d answers received", s, a)
	}
	r.dead(d)

	d = r.start()
	d.waitLog(sent + `.* retransmitted=true`)
	d.kill()
	r.dead(d)
}

// withServer kills the AAA server in the middle of the stream, and after its
// restart the daemon.
func (r *killRun) withServer(aaa *ownServer) {
	d := r.start()
	half := make(chan struct{})
	wait := r.export(d, func(n int) {
		if n == r.sent/2 {
			close(half)
		}
	})
	<-half
	aaa.daemon.kill()
	aaa.daemon = start(r.t, aaa.setup)
	d.waitLog(`msg="acr sent"`)
	d.kill()
	wait()
	r.dead(d)
}

// atRandom kills the daemon while data flows, at any moment: after a number of
// Messages and a few milliseconds.
func (r *killRun) atRandom(times int) {
	for range times {
		d := r.start()
		at, reached := 1+r.random.IntN(r.sent), make(chan struct{})
		wait := r.export(d, func(n int) {
			if n == at {
				close(reached)
			}
		})
		<-reached
		<-time.After(time.Duration(r.random.IntN(300)) * time.Millisecond)
		d.kill()
		wait()
		r.dead(d)
	}
}

// finish lets the daemon do its work to the end, and checks the books.
func (r *killRun) finish() {
	t := r.t
	d := r.start()
	r.stream.send(t, d.tcp(), len(r.stream.messages))
	octets, nobodys := captureOctets(t)
	waitBooks(t, r.setup.data, func(s sums) bool { return s.Received.Octets-s.Duplicate.Octets >= octets })
	s := waitEnd(t, r.setup.data)
	if s.Received.Octets-s.Duplicate.Octets != octets || s.Received.Records-s.Duplicate.Records != uint64(r.stream.records) ||
		s.Suspended.Octets != nobodys || s.Acknowledged != s.Accounted {
		t.Errorf("the books are %+v, want %d octets in %d records, and %d suspended", s, octets, r.stream.records, nobodys)
	}
	t.Logf("after %d kills %d records were received, %d of them duplicates", r.kills, s.Received.Records, s.Duplicate.Records)
	d.stop()
}
