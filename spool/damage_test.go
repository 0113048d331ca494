package spool

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/internal/peertest"
)

// A whole is a spool as it was before it was damaged.
type whole struct {
	dir        string
	records    map[uint64]acct.Record // by outbox ID
	settled    uint64                 // up to this ID
	books      Books
	checkpoint acct.Checkpoint
	entries    []acct.Entry
	identities []byte
	totals     []UserTotal
}

// newWhole fills a spool with some of everything.
func newWhole(t *testing.T) *whole {
	t.Helper()
	w := &whole{dir: t.TempDir(), records: make(map[uint64]acct.Record)}
	ctx := t.Context()
	s := open(t, w.dir, Config{})
	stop := run(t, s.Journal())
	c, err := OpenCDRs(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	users := []string{"alice", "bob", "carol"}
	var cdrs []acct.CDR
	for n := uint64(1); n <= 20; n++ {
		for range 30 {
			data := make([]byte, 100+random.IntN(400))
			for i := range data {
				data[i] = byte(random.Uint32())
			}
			if _, err := s.Journal().Append(acct.EntryMessage, int64(n)*1e9, 1, data); err != nil {
				t.Fatal(err)
			}
			w.entries = append(w.entries, acct.Entry{Position: uint64(len(w.entries) + 1), Kind: acct.EntryMessage, Time: int64(n) * 1e9, Session: 1, Data: data})
		}
		flush(t, s.Journal())
		row := acct.LedgerRow{LedgerKey: acct.LedgerKey{Exporter: fmt.Sprint("edge-", n%3), Domain: 1, Interval: int64(n) * 60}}
		share := func() acct.Share {
			c := acct.Count{Records: 1, Octets: uint64(random.IntN(1e6)), Packets: uint64(random.IntN(1000))}
			row.Received = row.Received.Plus(c)
			return acct.Share{LedgerKey: row.LedgerKey, Count: c}
		}
		b := acct.Batch{Position: n * 30, Needed: 1, Time: int64(n) * 1e9}
		for i := range 100 {
			sh := share()
			row.Accounted = row.Accounted.Plus(sh.Count)
			r := acct.Record{
				SessionID: sessionID(int(n)*1000 + i), Type: acct.Event, User: users[i%3], Event: time.Unix(int64(n), 0).UTC(),
				Usage: acct.Usage{InputOctets: sh.Octets, InputPackets: sh.Packets}, Shares: []acct.Share{sh},
			}
			b.Records = append(b.Records, r)
			w.records[uint64(len(w.records)+1)] = r
			cdrs = append(cdrs, acct.CDR{SessionID: r.SessionID, Type: r.Type, User: r.User, Usage: r.Usage, AVPs: make([]byte, 200), Event: r.Event, At: r.Event})
		}
		for i := range 10 {
			sh := share()
			row.Accounted = row.Accounted.Plus(sh.Count)
			b.Sessions = append(b.Sessions, acct.SessionState{ID: n*100 + uint64(i), SessionID: sessionID(int(n)*100 + i), User: users[i%3], State: make([]byte, 50), Open: []acct.Share{sh}})
			sh = share()
			row.Suspended = row.Suspended.Plus(sh.Count)
			b.Suspended = append(b.Suspended, acct.Suspended{ID: n*100 + uint64(i), Key: row.LedgerKey, Count: sh.Count, Reason: "unmapped", Flow: make([]byte, 40)})
		}
		ids := make([]byte, 16*200+7) // whatever the pipeline encodes
		for i := range ids {
			ids[i] = byte(random.Uint32())
		}
		w.identities = append(w.identities, ids...)
		b.Identities = []acct.Identities{{Bucket: int64(n), Data: ids}}
		b.State = []acct.State{{Kind: acct.StatePipeline, Value: []byte{1, byte(n)}}, {Kind: "transport", Key: fmt.Sprint(n), Value: make([]byte, 3000)}}
		b.Ledger = []acct.LedgerRow{row}
		mustCommit(t, s, b)
	}
	w.settled = 700
	var answers []acct.Settlement
	for id := uint64(1); id <= w.settled; id++ {
		answers = append(answers, acct.Settlement{ID: id, State: acct.Acknowledged, Result: 2001, Peer: "aaa", At: time.Unix(1, 0)})
	}
	if err := s.Outbox().Settle(ctx, answers); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Store(ctx, cdrs); err != nil {
		t.Fatal(err)
	}
	if w.totals, err = c.Totals(ctx); err != nil {
		t.Fatal(err)
	}
	if w.checkpoint, err = s.Load(ctx); err != nil {
		t.Fatal(err)
	}
	if w.books, err = s.Audit(ctx); err != nil || !w.books.Balanced {
		t.Fatal(w.books.Problems, err)
	}
	stop()
	if err := errors.Join(c.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	return w
}

var damageSeeds = flag.Uint64("damage-seeds", 8, "how often each database is damaged")

// Wherever octets of a database flip, no total is wrong unseen: what the spool
// gives out is what was stored, and what it does not give out it names. It
// opens again, unless it says that it can't go on.
func TestNoDamageIsSilent(t *testing.T) {
	t.Parallel()
	w := newWhole(t)
	var refused, told, unharmed int
	for _, file := range []string{"state.db", journalFile(t, w.dir), "cdr.db"} {
		for seed := range *damageSeeds {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(w.dir)); err != nil {
				t.Fatal(err)
			}
			random := rand.New(rand.NewPCG(seed, 1))
			flip(t, filepath.Join(dir, file), random)
			switch said := w.compare(t, fmt.Sprintf("%s, seed %d", file, seed), dir); {
			case said == "":
				unharmed++
			case strings.HasPrefix(said, refusal):
				refused++
			default:
				told++
			}
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d refused to open, %d told of damage, %d unharmed", refused, told, unharmed)
	if told == 0 || refused > told {
		t.Errorf("%d told, %d refused: the damage is not what was meant", told, refused)
	}
}

// journalFile returns the file, below dir, that holds most of its journal.
func journalFile(t *testing.T, dir string) (name string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "journal", "*.segment"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	file := slices.MaxFunc(files, func(a, b string) int { return cmp.Compare(onDisk(a), onDisk(b)) })
	if name, err = filepath.Rel(dir, file); err != nil {
		t.Fatal(err)
	}
	return name
}

// flip changes one to eight octets of one page of a database. The first
// octets of a file say what it is; they are left.
func flip(t *testing.T, file string, random *rand.Rand) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page := random.IntN(len(b) / 4096)
	for range 1 + random.IntN(8) {
		at := max(page*4096+random.IntN(4096), 100)
		b[at] ^= byte(1 + random.IntN(255))
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

const refusal = "refused: "

// compare looks at all that a damaged spool gives out and returns what was
// said of the damage.
func (w *whole) compare(t *testing.T, name, dir string) string {
	t.Helper()
	ctx := context.Background()
	var said bytes.Buffer
	cfg := Config{Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	s, err := Open(dir, cfg)
	if err != nil {
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotDatabase) {
			t.Errorf("%s: Open: %v", name, err)
		}
		return refusal + err.Error()
	}
	defer s.Close()
	differs := func(format string, args ...any) {
		if said.Len() == 0 {
			t.Errorf("%s: %s, and nothing was said", name, fmt.Sprintf(format, args...))
		}
	}

	if _, err := s.Verify(ctx); err != nil {
		t.Errorf("%s: verify: %v", name, err)
	}
	cp, err := s.Load(ctx)
	if err != nil {
		fmt.Fprintln(&said, err)
	}
	for _, x := range cp.Sessions {
		if !containsEqual(w.checkpoint.Sessions, x) {
			t.Errorf("%s: session %+v was never stored", name, x)
		}
	}
	for _, x := range cp.State {
		if !containsEqual(w.checkpoint.State, x) {
			t.Errorf("%s: state %s %s was never stored so", name, x.Kind, x.Key)
		}
	}
	if err == nil && (len(cp.Sessions) != len(w.checkpoint.Sessions) || len(cp.State) != len(w.checkpoint.State)) {
		differs("%d sessions and %d states", len(cp.Sessions), len(cp.State))
	}
	seen := 0
	if err := s.EachIdentity(ctx, func(i acct.Identities) error {
		seen += len(i.Data)
		if !bytes.Contains(w.identities, i.Data) {
			t.Errorf("%s: identities of bucket %d were never stored", name, i.Bucket)
		}
		return nil
	}); err != nil {
		fmt.Fprintln(&said, err)
	} else if seen != len(w.identities) {
		differs("%d octets of identities", seen)
	}
	// A last entry that is whole ends the reading.
	end, err := s.Journal().Append(acct.EntryTick, 0, 0, nil)
	if err == nil {
		stop := run(t, s.Journal())
		err = s.Journal().Wait(ctx, end)
		stop()
	}
	if err != nil {
		t.Errorf("%s: append: %v", name, err)
		return said.String()
	}
	reader := s.Journal().Reader(0)
	for at := uint64(0); at < end; {
		es, err := reader.Next(ctx)
		if err != nil {
			fmt.Fprintln(&said, err)
			break
		}
		for _, e := range es {
			if e.Position != at+1 {
				differs("entry %d follows %d", e.Position, at)
			}
			if at = e.Position; at == end {
				continue
			}
			if at > uint64(len(w.entries)) || !reflect.DeepEqual(e, w.entries[at-1]) {
				t.Errorf("%s: entry %d was never stored", name, at)
			}
		}
	}

	books, err := s.Audit(ctx)
	if err != nil {
		fmt.Fprintln(&said, err)
	} else if !books.Balanced {
		fmt.Fprintln(&said, books.Problems)
	} else if !reflect.DeepEqual(books.Total, w.books.Total) {
		differs("the books come to %+v, not %+v", books.Total, w.books.Total)
	}
	delivered := 0
	for {
		list, err := s.Outbox().Pending(ctx, 0, 100)
		if err != nil {
			fmt.Fprintln(&said, err)
			break
		}
		if len(list) == 0 {
			break
		}
		var answers []acct.Settlement
		for _, d := range list {
			delivered++
			want := w.records[d.ID]
			want.Shares = nil
			if !reflect.DeepEqual(d.Record, want) {
				t.Errorf("%s: record %d is %+v, not %+v", name, d.ID, d.Record, want)
			}
			answers = append(answers, acct.Settlement{ID: d.ID, State: acct.Acknowledged, Result: 2001, At: time.Unix(2, 0)})
		}
		if err := s.Outbox().Settle(ctx, answers); err != nil {
			fmt.Fprintln(&said, err)
			break
		}
	}
	if pending := len(w.records) - int(w.settled); delivered != pending {
		differs("%d records are delivered, not %d", delivered, pending)
	}
	if _, err := s.List(ctx, Filter{}); err != nil {
		fmt.Fprintln(&said, err)
	}
	if books, err = s.Audit(ctx); err == nil && books.Balanced && books.Total.Acknowledged != w.books.Total.Acknowledged.Plus(w.books.Total.Pending) {
		differs("in the end %+v is acknowledged", books.Total.Acknowledged)
	}

	if c, err := OpenCDRs(dir); err != nil {
		fmt.Fprintln(&said, err)
	} else {
		if c.Salvaged() != nil {
			fmt.Fprintln(&said, c.Salvaged().Found)
		}
		if totals, err := c.Totals(ctx); err != nil {
			fmt.Fprintln(&said, err)
		} else if !reflect.DeepEqual(totals, w.totals) {
			differs("the CDRs come to %+v", totals)
		}
		c.Close()
	}

	if err := s.Close(); err != nil {
		fmt.Fprintln(&said, err)
	}
	again, err := Open(dir, cfg)
	if err != nil {
		t.Errorf("%s: it does not open again: %v", name, err)
		return said.String()
	}
	again.Close()
	return said.String()
}

func containsEqual[T any](list []T, x T) bool {
	for _, y := range list {
		if reflect.DeepEqual(x, y) {
			return true
		}
	}
	return false
}

// What became of records can't be relied on once it is damaged: they are sent
// again as those that may have been sent, and what the ledger had of them is
// taken back, so that each is in the books once, before and after the answer.
func TestDamagedSettlement(t *testing.T) {
	for _, row := range []struct {
		name   string
		damage func(t *testing.T, file string)
		said   string
		again  []uint64 // what is sent again
	}{
		{"one row", func(t *testing.T, file string) {
			execute(t, file, "UPDATE settled SET first = 1, peer = 'aaa-9' WHERE last = 4")
		}, "what became of records 1 to 4, as it stands acknowledged by", []uint64{3, 4}},
		{"the whole table", func(t *testing.T, file string) { overwrite(t, file, "settled") },
			"database is salvaged and goes on", []uint64{1, 2, 3, 4}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Config{})
			b := acct.Batch{Position: 1, Needed: 1, State: []acct.State{{Kind: acct.StatePipeline, Value: []byte{1}}}}
			for n := range 6 {
				row := acct.LedgerRow{LedgerKey: key(int64(n % 2)), Received: count(uint64(n)), Accounted: count(uint64(n))}
				b.Records = append(b.Records, acct.Record{SessionID: sessionID(n), Type: acct.Event, Shares: []acct.Share{{LedgerKey: row.LedgerKey, Count: row.Accounted}}})
				b.Ledger = append(b.Ledger, row)
			}
			mustCommit(t, s, b)
			settle := func(peer string, max int) (ids []uint64) {
				t.Helper()
				var answers []acct.Settlement
				for _, d := range pending(t, s.Outbox(), 0, max) {
					ids = append(ids, d.ID)
					answers = append(answers, acct.Settlement{ID: d.ID, State: acct.Acknowledged, Result: 2001, Peer: peer, At: time.Unix(1, 0)})
				}
				if err := s.Outbox().Settle(t.Context(), answers); err != nil {
					t.Fatal(err)
				}
				return ids
			}
			settle("aaa-1", 2)
			settle("aaa-2", 2)
			before := balanced(t, s).Total
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			row.damage(t, filepath.Join(dir, "state.db"))

			var said bytes.Buffer
			s = open(t, dir, Config{Log: testLog(&said)})
			for _, want := range []string{row.said, "amounts are taken back from what is acknowledged"} {
				if !strings.Contains(said.String(), want) {
					t.Errorf("the log says %q, want %q", &said, want)
				}
			}
			for _, d := range pending(t, s.Outbox(), 0, 10) {
				if !d.MaySent {
					t.Errorf("record %d is sent as if for the first time", d.ID)
				}
			}
			after := balanced(t, s).Total
			if after.Pending.Plus(after.Acknowledged) != before.Accounted || after.Accounted != before.Accounted {
				t.Errorf("the books are %+v, were %+v", after, before)
			}
			if got, want := settle("aaa-3", 10), append(row.again, 5, 6); !reflect.DeepEqual(got, want) {
				t.Errorf("records %v are sent, want %v", got, want)
			}
			if total := balanced(t, s).Total; total.Acknowledged != before.Accounted {
				t.Errorf("%+v is acknowledged in the end, want %+v", total.Acknowledged, before.Accounted)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			said.Reset()
			s = open(t, dir, Config{Log: testLog(&said)})
			if balanced(t, s); strings.Contains(said.String(), "damage") || strings.Contains(said.String(), "taken back") {
				t.Errorf("the next start says %q", &said)
			}
		})
	}
}

// Where other amounts are damaged too, it is not known how much of a row is
// acknowledged too much: nothing is taken back, and the books name the damage.
func TestDamagedSettlementBesideDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Config{})
	share := func(n uint64) []acct.Share { return []acct.Share{{LedgerKey: key(0), Count: count(n)}} }
	mustCommit(t, s, acct.Batch{
		Position: 1, Needed: 1,
		Records:  []acct.Record{{SessionID: sessionID(1), Type: acct.Event, Shares: share(1)}},
		Sessions: []acct.SessionState{{ID: 1, SessionID: sessionID(2), Open: share(2)}},
		Ledger:   []acct.LedgerRow{{LedgerKey: key(0), Received: count(1).Plus(count(2)), Accounted: count(1).Plus(count(2))}},
	})
	if err := s.Outbox().Settle(t.Context(), []acct.Settlement{{ID: 1, State: acct.Acknowledged, Result: 2001, At: time.Unix(1, 0)}}); err != nil {
		t.Fatal(err)
	}
	before := balanced(t, s).Total
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state.db")
	execute(t, state, "UPDATE settled SET peer = 'aaa-9'")
	execute(t, state, "UPDATE session SET data = zeroblob(20)")
	s = open(t, dir, Config{})
	books, err := s.Audit(t.Context())
	if err != nil || books.Balanced || !strings.Contains(strings.Join(books.Problems, "\n"), "its open usage is not known") {
		t.Errorf("problems %v (%v)", books.Problems, err)
	}
	if books.Total.Acknowledged != before.Acknowledged {
		t.Errorf("%+v is acknowledged, was %+v", books.Total.Acknowledged, before.Acknowledged)
	}
}

// overwrite fills the root page of a table with nonsense.
func overwrite(t *testing.T, file, table string) {
	t.Helper()
	db := sqlOpen(file)
	var root, size int64
	err := db.QueryRow("SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema WHERE name = ?", table).Scan(&root, &size)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, int(size)), (root-1)*size)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Only damage is salvaged: what one look takes for damage and the next does not,
// or what can't be read, is the disk's failure, and the start is refused.
func TestOnlyDamageIsSalvaged(t *testing.T) {
	damaged := func(text string) error { return &fileError{file: "x.db", is: ErrDamaged, err: errors.New(text)} }
	unread := &fileError{file: "x.db", is: ErrIO, err: errors.New("unable to get the page")}
	a, b := damaged("page 1"), damaged("page 2")
	full := errors.New("no space left")
	for _, row := range []struct {
		name       string
		seen       []error // by one look after the other; the last goes on
		read       []error // of reading all between them, likewise
		damage, is error
	}{
		{"whole", []error{nil}, nil, nil, nil},
		{"the same damage twice", []error{a}, []error{nil}, a, nil},
		{"damage once, then whole", []error{a, nil}, []error{nil}, nil, nil},
		{"damage that can't be read whole", []error{a}, []error{unread}, nil, ErrIO},
		{"damage that can be read whole again", []error{a}, []error{unread, nil}, a, nil},
		{"other damage each time", []error{a, b, a, b}, []error{nil}, nil, ErrIO},
		{"a page that can't be got", []error{unread}, []error{nil}, nil, ErrIO},
		{"a page that can be got again", []error{unread, nil}, []error{nil}, nil, nil},
		{"damage between failures", []error{unread, a, unread, a}, []error{nil}, nil, ErrIO},
		{"another error", []error{full}, nil, nil, full},
	} {
		t.Run(row.name, func(t *testing.T) {
			next := func(list *[]error) error {
				err := (*list)[0]
				if len(*list) > 1 {
					*list = (*list)[1:]
				}
				return err
			}
			damage, err := proveDamage("x.db", slog.New(slog.DiscardHandler),
				func() error { return next(&row.seen) }, func() error { return next(&row.read) })
			if damage != row.damage || !errors.Is(err, row.is) || errors.Is(err, ErrDamaged) {
				t.Errorf("damage %v, error %v, want %v, %v", damage, err, row.damage, row.is)
			}
		})
	}
}

// What quick_check says of a page that it could not get is no damage, and what
// it says of damage is.
func TestVerdicts(t *testing.T) {
	for verdict, want := range map[string]bool{
		"*** in database main ***\nTree 4 page 12: unable to get the page. error code=266": true, // SQLITE_IOERR_READ
		"*** in database main ***\nTree 4 page 12 cell 3: failed to get page 19":           true,
		"*** in database main ***\nTree 4 page 12: unable to get the page. error code=11":  false, // SQLITE_CORRUPT
		"*** in database main ***\nTree 4 page 12: btreeInitPage() returns error code 11":  false,
		"row 1 missing from index sqlite_autoindex_meta_1":                                 false,
	} {
		if got := isUnread(verdict); got != want {
			t.Errorf("%q: %v", verdict, got)
		}
	}
}

// What power lost at the wrong moment leaves of a database that was just being
// made, a journal to be rolled back beside it, holds up no start.
func TestOpensBesideAnUnfinishedDatabase(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, dir, Config{}).Close(); err != nil {
		t.Fatal(err)
	}
	db := sqlOpen(filepath.Join(t.TempDir(), "cdr.db"))
	defer db.Close()
	db.SetMaxOpenConns(1)
	var file string
	if err := db.QueryRow("SELECT file FROM pragma_database_list").Scan(&file); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"CREATE TABLE t (x)", "INSERT INTO t VALUES (zeroblob(1000000))", "PRAGMA cache_size = 1",
		"BEGIN IMMEDIATE", "UPDATE t SET x = randomblob(1000000)", "INSERT INTO t VALUES (randomblob(1000000))",
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	for _, suffix := range []string{"", "-journal"} {
		content, err := os.ReadFile(file + suffix)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "cdr.db"+suffix), content, 0o600)
		}
		if err != nil || len(content) == 0 {
			t.Fatal(len(content), err)
		}
	}
	reader := sql.OpenDB(connector{file: filepath.Join(dir, "cdr.db"), query: "mode=ro"})
	if err := reader.QueryRow("SELECT count(*) FROM t").Scan(new(int)); err == nil {
		t.Fatal("nothing is to be rolled back")
	}
	reader.Close()
	open(t, dir, Config{})
}

// A checkpoint of which the pipeline's state is gone is not resumed from nothing.
func TestLostPipeline(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Config{})
	mustCommit(t, s, acct.Batch{Position: 1, Needed: 1})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	execute(t, filepath.Join(dir, "state.db"), "DELETE FROM state WHERE kind = 'pipeline'")
	if _, err := Open(dir, Config{}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "where the pipeline stands") {
		t.Error(err)
	}
}

// Whatever else a salvage has lost, it stays missed in the books: settlements
// that were lost with it, or are damaged later, don't balance them.
func TestLostAmountsAreMissed(t *testing.T) {
	for _, row := range []struct {
		name   string
		damage []string // tables, by one salvage after the other
	}{
		{"sessions with settlements", []string{"settled session"}},
		{"sessions before settlements", []string{"session", "settled"}},
		{"the ledger with settlements", []string{"settled ledger"}},
		{"suspended flows with settlements", []string{"settled suspended"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Config{})
			share := func(n uint64) []acct.Share { return []acct.Share{{LedgerKey: key(0), Count: count(n)}} }
			mustCommit(t, s, acct.Batch{
				Position: 1, Needed: 1,
				Records:   []acct.Record{{SessionID: sessionID(1), Type: acct.Event, Shares: share(5)}},
				Sessions:  []acct.SessionState{{ID: 1, SessionID: sessionID(2), Open: share(2)}},
				Suspended: []acct.Suspended{{ID: 1, Key: key(0), Count: count(1), Reason: "unmapped"}},
				Ledger: []acct.LedgerRow{{LedgerKey: key(0), Received: count(5).Plus(count(2)).Plus(count(1)),
					Accounted: count(5).Plus(count(2)), Suspended: count(1)}},
			})
			if err := s.Outbox().Settle(t.Context(), []acct.Settlement{{ID: 1, State: acct.Acknowledged, Result: 2001, At: time.Unix(1, 0)}}); err != nil {
				t.Fatal(err)
			}
			balanced(t, s)
			for _, tables := range row.damage {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				for _, table := range strings.Fields(tables) {
					overwrite(t, filepath.Join(dir, "state.db"), table)
				}
				s = open(t, dir, Config{})
			}
			if got := pending(t, s.Outbox(), 0, 10); len(got) != 1 || !got[0].MaySent {
				t.Errorf("pending are %+v, want the one record, as maybe sent", got)
			}
			if books, err := s.Audit(t.Context()); err != nil || books.Balanced {
				t.Errorf("the books balance: %+v (%v)", books.Total, err)
			}
		})
	}
}

// Rows of the ledger that began after amounts were lost are whole: what is
// damaged of theirs is set right again.
func TestRowsAfterALossAreSetRight(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Config{})
	account := func(position uint64, k acct.LedgerKey) {
		t.Helper()
		mustCommit(t, s, acct.Batch{
			Position: position, Needed: 1,
			Records:  []acct.Record{{SessionID: sessionID(int(position)), Type: acct.Event, Shares: []acct.Share{{LedgerKey: k, Count: count(5)}}}},
			Sessions: []acct.SessionState{{ID: position, SessionID: sessionID(100 + int(position)), Open: []acct.Share{{LedgerKey: k, Count: count(2)}}}},
			Ledger:   []acct.LedgerRow{{LedgerKey: k, Received: count(7), Accounted: count(7)}},
		})
		if err := s.Outbox().Settle(t.Context(), []acct.Settlement{{ID: position, State: acct.Acknowledged, Result: 2001, At: time.Unix(1, 0)}}); err != nil {
			t.Fatal(err)
		}
	}
	damaged := func(damage func(state string)) Books {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		damage(filepath.Join(dir, "state.db"))
		s = open(t, dir, Config{})
		books, err := s.Audit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return books
	}
	account(1, key(0))
	books := damaged(func(state string) { overwrite(t, state, "session") })
	if len(books.Problems) == 0 {
		t.Fatal("nothing was lost")
	}
	missed := books.Problems
	account(2, key(time.Now().Add(time.Hour).Unix()))
	books = damaged(func(state string) { execute(t, state, "UPDATE settled SET peer = 'aaa-9'") })
	var pendingNow []uint64
	for _, d := range pending(t, s.Outbox(), 0, 10) {
		pendingNow = append(pendingNow, d.ID)
	}
	if !reflect.DeepEqual(pendingNow, []uint64{1, 2}) {
		t.Errorf("records %v are pending", pendingNow)
	}
	if later := books.Rows[len(books.Rows)-1]; later.Acknowledged != (acct.Count{}) || later.Pending != count(5) {
		t.Errorf("the later row has %+v", later.Sums)
	}
	for _, p := range books.Problems {
		if !strings.Contains(p, "1970-01-01T00:00:00Z") {
			t.Errorf("besides %q it says %s", missed, p)
		}
	}
	if first := books.Rows[0]; first.Acknowledged != count(5) {
		t.Errorf("the row of which amounts were lost has %+v", first.Sums)
	}
}

// A file system without hard links, as strace plays one, keeps a copy of the
// damaged database.
func TestSalvageWithoutHardLinks(t *testing.T) {
	t.Parallel()
	w := newWhole(t)
	state := filepath.Join(w.dir, "state.db")
	overwrite(t, state, "settled")
	peertest.Need(t, "strace")
	cmd := exec.CommandContext(t.Context(), "strace", "-f", "-e", "trace=linkat", "-e", "inject=linkat:error=EPERM", os.Args[0])
	cmd.Env = append(os.Environ(), "SPOOL_SALVAGED="+w.dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("INJECTED")) {
		t.Fatalf("%v: %s", err, out)
	}
	w.salvaged(t, w.dir)
	kept, err := filepath.Glob(state + ".damaged-*Z")
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	if copied, err := os.ReadFile(kept[0]); err != nil || !bytes.Contains(copied, bytes.Repeat([]byte{0xa5}, statePage)) {
		t.Errorf("the copy of %d octets has no damage (%v)", len(copied), err)
	}
}

// A new database that a salvage has left unfinished counts for nothing.
func TestUnfinishedSalvage(t *testing.T) {
	w := newWhole(t)
	file := filepath.Join(w.dir, "state.db")
	overwrite(t, file, "settled")
	half, err := openWriter(file+".salvage", statePage, stateSchema, nil)
	if err == nil {
		err = errors.Join(half.close(), os.WriteFile(file+".salvage-wal", []byte("half"), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	w.salvaged(t, w.dir)
}

// salvaged checks that a spool of which the settlements are lost goes on with
// all else, and that one salvage was finished.
func (w *whole) salvaged(t *testing.T, dir string) {
	t.Helper()
	s := open(t, dir, Config{})
	cp := load(t, s)
	if cp.Position != w.checkpoint.Position || len(cp.Sessions) != len(w.checkpoint.Sessions) || len(cp.State) != len(w.checkpoint.State) || cp.HashKey != w.checkpoint.HashKey {
		t.Errorf("it goes on at %d with %d sessions and %d states", cp.Position, len(cp.Sessions), len(cp.State))
	}
	if cp.Epoch <= w.checkpoint.Epoch {
		t.Errorf("the epoch of Session-Ids is %d, was %d", cp.Epoch, w.checkpoint.Epoch)
	}
	if total, was := balanced(t, s).Total, w.books.Total; total.Accounted != was.Accounted || !total.Acknowledged.IsZero() {
		t.Errorf("the books come to %+v, were %+v", total, was)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]bool{"*.salvage*": false, "state.db.damaged-*Z": true, "state.db.damaged-*Z.json": true} {
		if found, err := filepath.Glob(filepath.Join(dir, pattern)); err != nil || len(found) > 0 != want {
			t.Errorf("%s: %v (%v)", pattern, found, err)
		}
	}
}

// Earlier versions moved the damaged database away first. What one that was
// killed has left is refused: a part of the database, or none.
func TestSalvageCutShortByAnEarlierVersion(t *testing.T) {
	for _, row := range []struct {
		name, moved string
		left        bool
	}{
		{"the database is missing", "", false},
		{"a part of it is there", "", true},
		{"its write-ahead log was moved alone", "-wal", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := open(t, dir, Config{}).Close(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "state.db")
			content, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file+".damaged-20260102T030405Z"+row.moved, content, 0o600)
			}
			if err == nil && !row.left {
				err = os.Remove(file)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir, Config{}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "killed") {
				t.Fatal(err)
			}
			if _, err := os.Stat(file); err == nil != row.left {
				t.Errorf("%s: %v", file, err)
			}
		})
	}
}

// What a write-ahead log holds that was not copied into the database is saved
// as well.
func TestSalvageMergesTheLog(t *testing.T) {
	dir, killed := t.TempDir(), t.TempDir()
	s := open(t, dir, Config{})
	if _, err := s.w.conn.ExecContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, acct.Batch{Position: 7, Needed: 1})
	for _, name := range []string{"state.db", "state.db-wal"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(killed, name), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := salvage(filepath.Join(killed, "state.db"), statePage, stateSchema, errors.New("for the test"), s.log); err != nil {
		t.Fatal(err)
	}
	if cp := load(t, open(t, killed, Config{})); cp.Position != 7 {
		t.Errorf("position %d, want 7", cp.Position)
	}
}

// A database that another process has open is not salvaged from under it: who
// takes over shuts it out first, then finds the damage and is refused.
func TestDamageBesideAnotherHolder(t *testing.T) {
	for _, name := range []string{"state.db", "cdr.db"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			old := open(t, dir, Config{Lease: time.Hour})
			cdrs, err := old.OpenCDRs()
			if err != nil {
				t.Fatal(err)
			}
			w, table := old.w, "settled"
			if name == "cdr.db" {
				w, table = cdrs.w, "cdr"
			}
			if _, err := w.conn.ExecContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
				t.Fatal(err)
			}
			overwrite(t, filepath.Join(dir, name), table)
			before, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			next, err := Open(dir, Config{Lease: time.Hour})
			if err == nil {
				_, err = next.OpenCDRs()
				err = errors.Join(err, next.Close())
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "another process has the state directory open") {
				t.Error(err)
			}
			after, err := os.Stat(filepath.Join(dir, name))
			if err != nil || !os.SameFile(before, after) {
				t.Errorf("another file is in its place (%v)", err)
			}
			if err := w.transact(func() error { return nil }); !errors.Is(err, ErrFenced) {
				t.Errorf("the old holder still writes: %v", err)
			}
			if err := errors.Join(cdrs.Close(), old.Close()); err != nil {
				t.Log(err)
			}
			if s := open(t, dir, Config{Lease: time.Hour}); s.Epoch() <= old.Epoch() {
				t.Errorf("epoch %d after %d", s.Epoch(), old.Epoch())
			}
		})
	}
}
