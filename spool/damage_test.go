package spool

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
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
		if err := s.Journal().flush(ctx); err != nil {
			t.Fatal(err)
		}
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
	for _, file := range []string{"state.db", "journal.db", "cdr.db"} {
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
	if err = errors.Join(err, s.Journal().flush(ctx)); err != nil {
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
// again as those that may have been sent, the others are not, and the books
// name what does not balance.
func TestDamagedSettlement(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Config{})
	row := acct.LedgerRow{LedgerKey: key(0)}
	b := acct.Batch{Position: 1, Needed: 1}
	for n := range 6 {
		row.Received, row.Accounted = row.Received.Plus(count(1)), row.Accounted.Plus(count(1))
		b.Records = append(b.Records, acct.Record{SessionID: sessionID(n), Type: acct.Event, Shares: []acct.Share{{LedgerKey: key(0), Count: count(1)}}})
	}
	b.Ledger = []acct.LedgerRow{row}
	mustCommit(t, s, b)
	for _, peer := range []string{"aaa-1", "aaa-2"} {
		list := pending(t, s.Outbox(), 0, 2)
		var answers []acct.Settlement
		for _, d := range list {
			answers = append(answers, acct.Settlement{ID: d.ID, State: acct.Acknowledged, Result: 2001, Peer: peer, At: time.Unix(1, 0)})
		}
		if err := s.Outbox().Settle(t.Context(), answers); err != nil {
			t.Fatal(err)
		}
	}
	balanced(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	execute(t, filepath.Join(dir, "state.db"), "UPDATE settled SET first = 1, peer = 'aaa-9' WHERE last = 4")

	var said bytes.Buffer
	s = open(t, dir, Config{Log: testLog(&said)})
	if want := "what became of records 1 to 4, as it stands acknowledged by"; !strings.Contains(said.String(), want) {
		t.Errorf("the log says %q, want %q", &said, want)
	}
	var ids []uint64
	for _, d := range pending(t, s.Outbox(), 0, 10) {
		ids = append(ids, d.ID)
		if !d.MaySent {
			t.Errorf("record %d is sent as if for the first time", d.ID)
		}
	}
	if want := []uint64{3, 4, 5, 6}; !reflect.DeepEqual(ids, want) {
		t.Errorf("records %v are sent, want %v", ids, want)
	}
	books, err := s.Audit(t.Context())
	if err != nil || books.Balanced || !strings.Contains(strings.Join(books.Problems, "\n"), "records: accounted are 6, open + pending + acknowledged + quarantined are 8") {
		t.Errorf("problems %v (%v)", books.Problems, err)
	}
}
