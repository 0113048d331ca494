package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tollbridge/asm/users"
)

// A journal keeps events in memory.
type journal struct {
	events  []string
	failure error
}

func (j *journal) Append(e users.Event) (uint64, error) {
	if _, err := users.ParseEvent(e.AppendBinary(nil)); err != nil {
		return 0, err
	}
	s := fmt.Sprintf("%v %s at %s", e.Kind, e.ID, e.At.Format("15:04:05"))
	if e.Kind == users.Update {
		s += fmt.Sprintf(" for %v to %s", e.Timeout, e.User)
	}
	j.events = append(j.events, s)
	return uint64(len(j.events)), j.failure
}

func (j *journal) Wait(context.Context, uint64) error { return nil }

// A follower looks at a file whenever it is told to.
type follower struct {
	*testing.T
	*Source
	journal *journal
	file    string
	clock   time.Time
}

func follow(t *testing.T, name string, user ...Identity) *follower {
	f := &follower{T: t, journal: new(journal), file: filepath.Join(t.TempDir(), name), clock: at("04:30:00")}
	f.restart(user...)
	return f
}

func (f *follower) restart(user ...Identity) {
	f.Helper()
	var err error
	f.Source, err = New(Config{Journal: f.journal, File: f.file, User: user, Now: func() time.Time { return f.clock }})
	if err != nil {
		f.Fatal(err)
	}
}

// write appends to a file, which is then as old as the clock says.
func (f *follower) write(name, content string) {
	f.Helper()
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(content); err != nil {
		f.Fatal(err)
	}
	if err := os.Chtimes(name, f.clock, f.clock); err != nil {
		f.Fatal(err)
	}
}

// expect looks at the file, which says just these events.
func (f *follower) expect(want ...string) {
	f.Helper()
	f.journal.events = nil
	if err := f.look(f.Context()); err != nil {
		f.Fatal(err)
	}
	if !slices.Equal(f.journal.events, want) {
		f.Errorf("events\n%q\nwant\n%q", f.journal.events, want)
	}
}

const header = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n"

// row is a line of Kea's for one of two clients.
func row(address, client string, start time.Time, valid int) string {
	return fmt.Sprintf("%s,02:00:00:00:00:0%s,,%d,%d,1,0,0,,0,\n", address, client, valid, start.Unix()+int64(valid))
}

func TestKea(t *testing.T) {
	f := follow(t, "kea-leases4.csv")
	f.expect() // there is no file yet
	if !f.Stats().Failing {
		t.Error("a file that is not there is no failure")
	}
	f.write(f.file, header[:20])
	f.expect() // not even the header is whole
	f.write(f.file, header[20:]+row("192.0.2.1", "a", at("04:00:00"), 3600)+"192.0.2.2,02:00")
	f.expect("update 192.0.2.1/32 02:00:00:00:00:0a at 04:00:00 for 1h0m0s to 02:00:00:00:00:0a")
	f.write(f.file, ":00:00:00:0b,,600,1795321800,1,0,0,,0,\n") // the rest of the line: 04:20 to 04:30
	f.expect("update 192.0.2.2/32 02:00:00:00:00:0b at 04:20:00 for 10m0s to 02:00:00:00:00:0b")
	f.expect()

	f.clock = at("04:40:00")
	f.write(f.file, row("192.0.2.1", "a", at("04:40:00"), 3600)) // renewed
	f.expect("update 192.0.2.1/32 02:00:00:00:00:0a at 04:40:00 for 1h0m0s to 02:00:00:00:00:0a")
	f.clock = at("04:50:00")
	f.write(f.file, row("192.0.2.1", "a", at("04:40:00"), 0)) // released, some time before now
	f.expect("end 192.0.2.1/32 02:00:00:00:00:0a at 04:50:00")
	f.write(f.file, row("192.0.2.2", "a", at("04:50:00"), 600)) // reassigned after it had expired
	f.expect("end 192.0.2.2/32 02:00:00:00:00:0b at 04:30:00",
		"update 192.0.2.2/32 02:00:00:00:00:0a at 04:50:00 for 10m0s to 02:00:00:00:00:0a")
	if s := f.Stats(); s.Leases != 1 || s.Events != 6 || s.Malformed != 0 || s.Failing {
		t.Errorf("%+v", s)
	}

	// The lease file cleanup: the file becomes .1, a new one begins, .1 is
	// compacted into .completed, which becomes .2. Nothing is lost or told twice.
	rename := func(from, to string) {
		t.Helper()
		if err := os.Rename(f.file+from, f.file+to); err != nil {
			t.Fatal(err)
		}
	}
	f.write(f.file, row("192.0.2.3", "b", at("04:50:00"), 600)) // not seen before the rotation
	rename("", ".1")
	f.expect("update 192.0.2.3/32 02:00:00:00:00:0b at 04:50:00 for 10m0s to 02:00:00:00:00:0b") // between the two steps
	f.write(f.file, header+row("192.0.2.4", "b", at("04:50:00"), 600))
	f.expect("update 192.0.2.4/32 02:00:00:00:00:0b at 04:50:00 for 10m0s to 02:00:00:00:00:0b")
	if err := os.Remove(f.file + ".1"); err != nil {
		t.Fatal(err)
	}
	f.write(f.file+".completed", header+row("192.0.2.2", "a", at("04:50:00"), 600)+row("192.0.2.3", "b", at("04:50:00"), 600))
	f.expect()
	rename(".completed", ".2")
	f.expect()

	// A daemon that starts anew says all again that may still matter.
	f.restart()
	f.expect("update 192.0.2.2/32 02:00:00:00:00:0a at 04:50:00 for 10m0s to 02:00:00:00:00:0a",
		"update 192.0.2.3/32 02:00:00:00:00:0b at 04:50:00 for 10m0s to 02:00:00:00:00:0b",
		"update 192.0.2.4/32 02:00:00:00:00:0b at 04:50:00 for 10m0s to 02:00:00:00:00:0b")
	f.clock = f.clock.Add(2 * late)
	f.restart()
	f.expect()
}

// What is written between a look and the cleanup of the file is told, though
// the cleanup has no line for a lease that was released.
func TestReleasedBeforeCleanup(t *testing.T) {
	for _, c := range []struct {
		name string
		gone bool // the file is away at one look
	}{{name: "a new file follows at once"}, {"a new file follows later", true}} {
		t.Run(c.name, func(t *testing.T) {
			f := follow(t, "kea-leases4.csv")
			f.write(f.file, header+row("192.0.2.1", "a", at("04:30:00"), 3600)+row("192.0.2.2", "b", at("04:30:00"), 3600))
			f.expect("update 192.0.2.1/32 02:00:00:00:00:0a at 04:30:00 for 1h0m0s to 02:00:00:00:00:0a",
				"update 192.0.2.2/32 02:00:00:00:00:0b at 04:30:00 for 1h0m0s to 02:00:00:00:00:0b")
			f.clock = at("04:40:00")
			f.write(f.file, row("192.0.2.1", "a", at("04:30:00"), 0))
			const end = "end 192.0.2.1/32 02:00:00:00:00:0a at 04:40:00"
			if err := os.Remove(f.file); err != nil {
				t.Fatal(err)
			}
			f.write(f.file+".2", header+row("192.0.2.2", "b", at("04:30:00"), 3600))
			if c.gone {
				f.expect(end)
			}
			f.write(f.file, header)
			if c.gone {
				f.expect()
			} else {
				f.expect(end)
			}
		})
	}
}

// A cleanup that ends while its files are read hides nothing: what it works on
// is gone when its former result has been read.
func TestCleanupEndsMeanwhile(t *testing.T) {
	f := follow(t, "kea-leases4.csv")
	f.write(f.file, header)
	f.write(f.file+".1", header+row("192.0.2.1", "a", at("04:30:00"), 3600))
	f.write(f.file+".2", header+row("192.0.2.2", "b", at("04:30:00"), 3600)+"not a lease\n")
	cleanup := func() {
		f.write(f.file+".completed", header+row("192.0.2.1", "a", at("04:30:00"), 3600)+row("192.0.2.2", "b", at("04:30:00"), 3600))
		for _, step := range []error{os.Remove(f.file + ".2"), os.Remove(f.file + ".1"), os.Rename(f.file+".completed", f.file+".2")} {
			if step != nil {
				t.Error(step)
			}
		}
	}
	f.cfg.Log = slog.New(logged(cleanup)) // of the line in .2, while that is read
	f.expect("update 192.0.2.1/32 02:00:00:00:00:0a at 04:30:00 for 1h0m0s to 02:00:00:00:00:0a",
		"update 192.0.2.2/32 02:00:00:00:00:0b at 04:30:00 for 1h0m0s to 02:00:00:00:00:0b")
}

// logged is called for each line of a log.
type logged func()

func (logged) Enabled(context.Context, slog.Level) bool { return true }

func (l logged) Handle(context.Context, slog.Record) error { l(); return nil }

func (l logged) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l logged) WithGroup(string) slog.Handler { return l }

func TestISC(t *testing.T) {
	f := follow(t, "dhcpd.leases", CircuitID, HWAddress)
	f.clock = at("05:30:00")
	content := testdata(t, "dhcpd.leases")
	f.write(f.file, content[:len(content)-20])
	f.expect("update 192.0.2.20/32 01:02:00:00:00:00:14:22:5c at 05:00:00 for 1h0m0s to eth 1/2:7",
		"update 192.0.2.21/32 02:00:00:00:00:15 at 05:00:00 for 0s to 02:00:00:00:00:15")
	f.write(f.file, content[len(content)-20:])
	f.expect("end 192.0.2.20/32 01:02:00:00:00:00:14:22:5c at 05:10:00")
	// dhcpd writes its file anew from time to time.
	f.write(f.file+".new", content+"lease 192.0.2.22 { starts 0 2026/11/22 05:20:00; ends 0 2026/11/22 05:40:00; binding state active; }\n")
	if err := os.Rename(f.file+".new", f.file); err != nil {
		t.Fatal(err)
	}
	f.journal.events = nil
	if err := f.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := f.Stats(); s.Nameless != 1 || s.Leases != 2 {
		t.Errorf("%+v after a lease without any identity", s)
	}
}

// TestTable has a table of bindings hear what a source says, twice over as
// after a restart: every moment has the holder that the file says.
func TestTable(t *testing.T) {
	f := follow(t, "kea-leases4.csv")
	f.clock = at("05:30:00")
	f.write(f.file, header+row("192.0.2.1", "a", at("04:00:00"), 3600)+row("192.0.2.1", "a", at("04:30:00"), 3600)+
		row("192.0.2.1", "b", at("05:10:00"), 600))
	var table users.Table
	apply := func(e users.Event) { table.Apply(e) }
	for range 2 {
		f.restart()
		f.cfg.Journal = applying(apply)
		if err := f.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for clock, want := range map[string]string{
		"03:59:59": "", "04:00:00": "02:00:00:00:00:0a", "05:09:59": "02:00:00:00:00:0a",
		"05:10:00": "02:00:00:00:00:0b", "05:19:59": "02:00:00:00:00:0b", "05:20:00": "",
	} {
		got := ""
		if h := table.Lookup(netip.MustParseAddr("192.0.2.1"), at(clock).UnixMilli()); h != nil {
			got = h.User()
		}
		if got != want {
			t.Errorf("at %s it is %q's, want %q's", clock, got, want)
		}
	}
}

type applying func(users.Event)

func (a applying) Append(e users.Event) (uint64, error) { a(e); return 1, nil }

func (a applying) Wait(context.Context, uint64) error { return nil }

func TestEndOfTheJournalEndsRun(t *testing.T) {
	f := follow(t, "kea-leases4.csv")
	f.write(f.file, header+row("192.0.2.1", "a", at("04:00:00"), 3600))
	f.journal.failure = errors.New("the disk is gone")
	if err := f.Source.Run(t.Context()); !errors.Is(err, f.journal.failure) {
		t.Errorf("it ended with %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	f.journal.failure = nil
	f.restart()
	if err := f.Source.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{{File: "a"}, {Journal: new(journal)}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
	for _, s := range []string{"hwAddress", "clientId", "duid", "hostname", "circuitId", "remoteId"} {
		if i, err := ParseIdentity(s); err != nil || string(i) != s {
			t.Errorf("%s is %q (%v)", s, i, err)
		}
	}
	if _, err := ParseIdentity("mac"); err == nil {
		t.Error("mac is an identity")
	}
}
