package backlog_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tollbridge/internal/powerloss"
	"tollbridge/ipfix/export/backlog"
)

// TestMain lets the test binary be the process whose writes are traced.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BACKLOG_VICTIM"); dir != "" {
		fmt.Fprintln(os.Stderr, "victim:", victim(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// victim appends Messages, each of which holds its own position, syncs now and
// then, acknowledges, and kills itself. It says on standard output who it is
// and up to which position is safe.
func victim(dir string) error {
	b, err := backlog.Open(dir, backlog.Config{Segment: 4 << 10})
	if err != nil {
		return err
	}
	fmt.Printf("instance %x\n", b.Instance())
	r := b.Reader(func(losses []backlog.Loss) error { return fmt.Errorf("damaged: %+v", losses) })
	defer r.Close()
	send := func(sent func(position uint64)) error { // all that is there
		for {
			e, ok, err := r.Next()
			if !ok || err != nil {
				return err
			}
			sent(e.Position)
		}
	}
	// What an earlier life has left is safe now.
	if err := send(func(position uint64) { fmt.Printf("found %d\n", position) }); err != nil {
		return err
	}
	for n := 1; n <= 300; n++ {
		position := b.Next()
		if err := b.Append(backlog.Entry{Kind: backlog.Message, Records: 1, Octets: content(position)}); err != nil {
			return err
		}
		if n%7 == 0 {
			if err := b.Sync(); err != nil {
				return err
			}
			fmt.Printf("safe %d\n", position)
		}
		if n%40 == 0 {
			if err := send(func(uint64) {}); err != nil {
				return err
			}
			fmt.Printf("acknowledged %d\n", position-20) // from now on it may go
			if _, err := b.Acknowledge(position - 20); err != nil {
				return err
			}
		}
	}
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// content is that of the Message of a position, of many lengths.
func content(position uint64) []byte {
	return []byte(strings.Repeat(fmt.Sprintf("message %d ", position), 1+int(position%31)))
}

// TestPowerLoss builds the directory as a power cut may leave it, at random
// moments of two lives: the exporter is who it was, and has each Message that
// was safe and is not acknowledged, whole.
func TestPowerLoss(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	life := fmt.Sprintf("BACKLOG_VICTIM=%s %s\n", dir, os.Args[0])
	events := powerloss.Trace(t, dir, life+life+"true", func(name string) bool { return name == "lock" })
	var instance string
	var safe, acknowledged uint64
	known := make(map[uint64]bool) // positions that are safe
	powerloss.EachImage(t, events, powerloss.Images(t, 150), rand.New(rand.NewPCG(1, 0)), func(text string) {
		var position uint64
		what, value, _ := strings.Cut(text, " ")
		if what == "instance" {
			instance = value
		} else if _, err := fmt.Sscan(value, &position); err != nil {
			t.Fatalf("%q is no promise", text)
		}
		switch what {
		case "found":
			known[position] = true
		case "safe":
			for p := max(safe+1, position-6); p <= position; p++ {
				known[p] = true
			}
			safe = position
		case "acknowledged":
			acknowledged = position
		}
	}, func(image, at string) bool {
		check(t, image, instance, known, acknowledged)
		if t.Failed() {
			t.Fatalf("power lost after %s", at)
		}
		return true
	})
	if len(known) == 0 || acknowledged == 0 {
		t.Errorf("%d Messages were ever safe, %d acknowledged", len(known), acknowledged)
	}
}

func check(t *testing.T, image, instance string, known map[uint64]bool, acknowledged uint64) {
	t.Helper()
	b := open(t, image, backlog.Config{Segment: 4 << 10})
	defer b.Close()
	if got := fmt.Sprintf("%x", b.Instance()); instance != "" && got != instance {
		t.Errorf("the exporter is %s, was %s", got, instance)
	}
	r := b.Reader(func(losses []backlog.Loss) error {
		for _, l := range losses { // what was not safe may be gone, though what was written after it is not
			if known[l.Position] && l.Position > acknowledged {
				t.Errorf("Message %d was safe, and is damaged", l.Position)
			}
		}
		return nil
	})
	defer r.Close()
	found := make(map[uint64]bool)
	for {
		e, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if string(e.Octets) != string(content(e.Position)) {
			t.Errorf("Message %d holds %q", e.Position, e.Octets)
		}
		found[e.Position] = true
	}
	for p := range known {
		if p > acknowledged && !found[p] {
			t.Errorf("Message %d was safe, and is lost", p)
		}
	}
	if next := b.Next(); known[next] {
		t.Errorf("position %d is given out again", next)
	}
}
