package sql

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/users"
	"tollbridge/internal/certtest"
	"tollbridge/internal/pgtest"
)

// patience bounds every wait for what takes moments.
const patience = 30 * time.Second

const query1 = `SELECT address AS prefix, login AS "user", since AS "from", until, realm, tariff AS class, multi_session FROM subscriber`

const schema = `
CREATE TABLE subscriber (
	address inet NOT NULL, login text NOT NULL, since timestamptz, until timestamptz,
	realm text, tariff text, multi_session text
);
INSERT INTO subscriber VALUES
	('192.0.2.1', 'alice', '2026-01-01 01:00:00.25+01', 'infinity', 'home.example', 'gold', 'm1'),
	('2001:db8:1::/56', 'bob', NULL, '2027-01-01 00:00:00+00', NULL, NULL, NULL);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NOTIFY "Subscribers"; RETURN NULL; END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON subscriber EXECUTE FUNCTION tell();
CREATE ROLE reader LOGIN PASSWORD 'hidden';
GRANT SELECT ON subscriber TO reader;
`

// TestSource asks a real server: at once, when it is notified, and while it is
// away.
func TestSource(t *testing.T) {
	db := pgtest.Start(t)
	db.Exec(t, schema)
	db.RequirePassword(t, "reader")

	t.Run("errors", func(t *testing.T) { testErrors(t, db) })

	var log bytes.Buffer
	s, err := New(Config{
		Name: "crm", Connect: db.Connect("reader"), Password: []byte("hidden"), Query: query1,
		Channel: "Subscribers", Interval: time.Hour, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, s)
	alice := users.Binding{
		Prefix: netip.MustParsePrefix("192.0.2.1/32"), User: "alice", From: time.Date(2026, 1, 1, 0, 0, 0, 250e6, time.UTC),
		Options: users.Options{Realm: "home.example", Class: "gold", MultiSession: "m1"},
	}
	bob := users.Binding{Prefix: netip.MustParsePrefix("2001:db8:1::/56"), User: "bob", Until: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}
	r.expect(alice, bob)

	// A notification without a change is asked for, and changes nothing.
	asked := s.Stats().Queries
	db.Exec(t, "UPDATE subscriber SET login = 'bob' WHERE login = 'bob'")
	r.until("it asks again", func(stats Stats) bool { return stats.Queries > asked })
	db.Exec(t, "DELETE FROM subscriber WHERE login = 'bob'; INSERT INTO subscriber VALUES ('192.0.2.2', 'carol')")
	carol := users.Binding{Prefix: netip.MustParsePrefix("192.0.2.2/32"), User: "carol"}
	r.expect(alice, carol)

	t.Run("TLS", func(t *testing.T) { testTLS(t, db) }) // which starts the server anew
	r.until("it asks again", func(stats Stats) bool { return !stats.Failing && stats.Bindings == 2 })

	db.Stop(t)
	r.until("it fails", func(stats Stats) bool { return stats.Failing })
	db.Run(t)
	r.until("it asks again", func(stats Stats) bool { return !stats.Failing && stats.Bindings == 2 })
	db.Exec(t, "DELETE FROM subscriber") // an empty answer is an answer
	r.expect()

	r.end()
	for _, want := range []string{"can't be asked", "answers again"} {
		if strings.Count(log.String(), want) == 0 {
			t.Errorf("the log does not say %q:\n%s", want, &log)
		}
	}
	for _, never := range []string{"hidden", "alice"} {
		if strings.Contains(log.String(), never) {
			t.Errorf("the log has %q:\n%s", never, &log)
		}
	}
}

// TestPolling asks every so often, and ends with the error of whoever it tells.
func testPolling(t *testing.T, db *pgtest.Server) {
	s, err := New(Config{Name: "crm", Connect: db.Connect("tollbridge"), Query: query1, Interval: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	failure := errors.New("the journal is gone")
	calls := 0
	err = s.Run(t.Context(), func(users.File) error {
		calls++
		if calls == 1 {
			db.Exec(t, "INSERT INTO subscriber VALUES ('192.0.2.9', 'dave')")
			return nil
		}
		return failure
	})
	if !errors.Is(err, failure) || calls != 2 {
		t.Errorf("it ended with %v after %d changes", err, calls)
	}
	db.Exec(t, "DELETE FROM subscriber WHERE login = 'dave'")
}

// testTLS asks the server over TCP: it is believed if its certificate is of the
// host that was asked for, by the authority that was named, and not otherwise.
func testTLS(t *testing.T, db *pgtest.Server) {
	ours, theirs := certtest.NewAuthority(t), certtest.NewAuthority(t)
	// Loopback addresses that no other process of tests has.
	pid := os.Getpid()
	known := netip.AddrFrom4([4]byte{127, byte(64 + pid>>8&63), byte(pid), 1})
	other := known.Next()
	files := ours.Write(ours.IssueLike(func(c *x509.Certificate) { c.IPAddresses = []net.IP{known.AsSlice()} }))
	foreign := theirs.Write(theirs.Issue())
	db.ServeTLS(t, files.Certificate, files.Key, known.String(), other.String())
	for _, c := range []struct {
		name    string
		host    netip.Addr
		options string
		want    string // in the log; "" for an answer
	}{
		{"certificate of the host", known, "sslmode=verify-full sslrootcert=" + files.CA, ""},
		{"certificate of another host", other, "sslmode=verify-full sslrootcert=" + files.CA, "certificate is valid for " + known.String() + ", not " + other.String()},
		{"certificate of a stranger", known, "sslmode=verify-full sslrootcert=" + foreign.CA, "certificate signed by unknown authority"},
		{"authorities of the system", known, "sslmode=verify-full", "certificate signed by unknown authority"},
		{"no TLS", known, "sslmode=disable", "no encryption"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			s, err := New(Config{
				Name: "crm", Connect: fmt.Sprintf("host=%s user=reader dbname=postgres %s", c.host, c.options), Query: query1,
				Log: slog.New(slog.NewTextHandler(&log, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			r := run(t, s)
			r.until("it answers or fails", func(stats Stats) bool { return stats.Failing || stats.Bindings == 2 })
			failing := s.Stats().Failing
			r.end()
			if failing != (c.want != "") || !strings.Contains(log.String(), c.want) {
				t.Errorf("failing: %v, log\n%s\nwant %q", failing, &log, c.want)
			}
		})
	}
}

func testErrors(t *testing.T, db *pgtest.Server) {
	for _, c := range []struct{ name, query, want string }{
		{"unknown column", `SELECT '192.0.2.1' AS prefix, 'a' AS "user", 1 AS tariff`, `database crm: column "tariff" is unknown: a column may be prefix, user`},
		{"column twice", `SELECT '192.0.2.1' AS prefix, 'a' AS "user", 'x' AS multisession, 'y' AS "multiSession"`, `column "multiSession" is there twice`},
		{"no user", `SELECT '192.0.2.1' AS prefix`, `column "user" is missing`},
		{"row and column of a value", `SELECT v AS prefix, 'a' AS "user" FROM (VALUES ('192.0.2.1'), ('192.0.2.300')) AS t(v)`, `database crm:2: prefix "192.0.2.300" is no address`},
		{"host bits", `SELECT '192.0.2.1/24'::inet AS prefix, 'a' AS "user"`, `database crm:1: prefix "192.0.2.1/24" has host bits set`},
		{"NULL where a value must be", `SELECT '192.0.2.1' AS prefix, NULL AS "user"`, `database crm:1: user is missing`},
		{"no time zone", `SELECT '192.0.2.1' AS prefix, 'a' AS "user", TIMESTAMP '2026-01-01 00:00:00' AS "from"`, `column "from" has no time zone: make it a timestamptz`},
		{"a beginning in the infinite future", `SELECT '192.0.2.1' AS prefix, 'a' AS "user", 'infinity'::timestamptz AS "from"`, `from "infinity" is no RFC 3339 time`},
		{"no SQL", `SELEKT`, `syntax error`},
		{"an error on the way", `SELECT '192.0.2.1' AS prefix, (1 / (2 - n))::text AS "user" FROM generate_series(1, 3) AS n`, `division by zero`},
		{"writing", `WITH gone AS (DELETE FROM subscriber RETURNING *) SELECT address AS prefix, login AS "user" FROM gone`, `read-only transaction`},
		{"no rows to be had", `SET work_mem = '4MB'`, `column "prefix" is missing`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			s, err := New(Config{Name: "crm", Connect: db.Connect("tollbridge"), Query: c.query, Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			r := run(t, s)
			r.until("it fails", func(stats Stats) bool { return stats.Failing })
			r.end()
			if got := strings.ReplaceAll(log.String(), `\"`, `"`); !strings.Contains(got, c.want) {
				t.Errorf("log\n%s\nwant\n%s", got, c.want)
			}
			select {
			case f := <-r.changes:
				t.Errorf("it told of %d bindings", len(f.Bindings))
			default:
			}
		})
	}
	t.Run("polling", func(t *testing.T) { testPolling(t, db) })
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []Config{{}, {Name: "a"}, {Name: "a", Query: "SELECT 1", Connect: "host=a password=b"}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
}

// A running source tells what it told.
type running struct {
	*testing.T
	*Source
	changes chan users.File
	stop    context.CancelFunc
	ended   chan error
}

func run(t *testing.T, s *Source) *running {
	ctx, stop := context.WithCancel(t.Context())
	r := &running{T: t, Source: s, changes: make(chan users.File, 10), stop: stop, ended: make(chan error, 1)}
	go func() {
		r.ended <- s.Run(ctx, func(f users.File) error { r.changes <- f; return nil })
	}()
	return r
}

func (r *running) expect(want ...users.Binding) {
	r.Helper()
	select {
	case f := <-r.changes:
		if !slices.Equal(f.Bindings, want) {
			r.Fatalf("bindings\n%+v\nwant\n%+v", f.Bindings, want)
		}
	case <-time.After(patience):
		r.Fatalf("no change: %+v", r.Stats())
	}
}

func (r *running) until(what string, is func(Stats) bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !is(r.Stats()) {
		select {
		case <-ctx.Done():
			r.Fatalf("never: %s: %+v", what, r.Stats())
		case <-look.C:
		}
	}
}

func (r *running) end() {
	r.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		r.Error(err)
	}
}
