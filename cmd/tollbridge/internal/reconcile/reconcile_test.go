package reconcile

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"tollbridge/asm/acct"
)

func sorted(t testing.TB, memory int, records []Record) (iter.Seq2[Record, error], *Sorter) {
	t.Helper()
	s := &Sorter{Memory: memory}
	for _, r := range records {
		if err := s.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { s.Close() })
	return s.Sorted(), s
}

func interim(session string, number uint32, octets uint64) Record {
	return Record{SessionID: session, Number: number, Type: acct.Interim, User: "ann", Usage: acct.Usage{InputOctets: octets}}
}

// known has a partner know ann as 5f3c.
func known(ours, theirs string) bool { return ours == "ann" && theirs == "5f3c" }

// Each kind of difference is found, with the octets that the session comes to
// on both sides. A user whom the other side knows by another name is the same.
func TestKinds(t *testing.T) {
	event := interim("e", 0, 7)
	event.Type = acct.Event
	credit, wrong := interim("credit", 0, 4), interim("wrong", 0, 3) // one side charges what it should take away
	credit.Type, credit.Credit, wrong.Type, wrong.Credit = acct.Event, true, acct.Event, true
	charged := wrong
	charged.Credit = false
	pseudonym, another := interim("same", 1, 1), interim("user", 1, 1)
	pseudonym.User, another.User = "5f3c", "5f3d"
	ours := []Record{credit, wrong, interim("a", 1, 10), interim("a", 2, 30), interim("b", 1, 5), interim("c", 1, 5), event, interim("same", 1, 1), interim("user", 1, 1)}
	theirs := []Record{charged, credit, interim("a", 1, 10), interim("b", 1, 6), interim("c", 1, 5), interim("c", 1, 5), interim("d", 3, 9), event, pseudonym, another}
	a, _ := sorted(t, 0, ours)
	b, _ := sorted(t, 0, theirs)
	var got []string
	sum, err := Compare(a, b, known, func(s Session) error {
		for _, f := range s.Findings {
			got = append(got, fmt.Sprintf("%s %s/%d %d %d", f.Kind, s.SessionID, f.Record().Number, s.Ours.InputOctets, s.Theirs.InputOctets))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"missing a/2 30 10", "different b/1 5 6", "double c/1 5 5", "extra d/3 0 9", "different user/1 1 1", "different wrong/0 0 3"}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	wantSum := Summary{
		Ours:   Side{Sessions: 8, Records: 9, Usage: acct.Usage{InputOctets: 49}, Credits: acct.Usage{InputOctets: 7}},
		Theirs: Side{Sessions: 9, Records: 10, Usage: acct.Usage{InputOctets: 42}, Credits: acct.Usage{InputOctets: 4}},
		Equal:  3, Differing: 6, Missing: 1, Extra: 1, Different: 3, Double: 1,
	}
	if sum != wantSum || sum.Agree() {
		t.Errorf("summary %+v, want %+v", sum, wantSum)
	}
}

// Two sides against the plainest model, however little memory there is.
func TestCompareAgainstMaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Record {
			return Record{
				SessionID: rapid.SampledFrom([]string{"a", "b", "c;1", "c;10", ""}).Draw(t, "session"), Number: rapid.Uint32Range(0, 3).Draw(t, "number"),
				Type: acct.RecordType(rapid.IntRange(1, 4).Draw(t, "type")), User: rapid.SampledFrom([]string{"", "ann", "5f3c"}).Draw(t, "user"),
				Usage: acct.Usage{OutputOctets: rapid.Uint64Range(0, 2).Draw(t, "octets")}, State: "x",
			}
		}), 0, 12)
		ours, theirs := draw.Draw(t, "ours"), draw.Draw(t, "theirs")
		type key struct {
			session string
			number  uint32
		}
		index := func(records []Record) map[key][]Record {
			m := map[key][]Record{}
			for _, r := range records {
				m[key{r.SessionID, r.Number}] = append(m[key{r.SessionID, r.Number}], r)
			}
			return m
		}
		a, b := index(ours), index(theirs)
		want := map[string]int{}
		all := maps.Clone(a)
		maps.Copy(all, b)
		for k := range all {
			x, y := a[k], b[k]
			switch {
			case len(y) == 0:
				want["missing"]++
			case len(x) == 0:
				want["extra"]++
			case !x[0].same(&y[0], known):
				want["different"]++
			}
			for _, side := range [][]Record{x, y} {
				if len(side) > 1 {
					want["double"]++
				}
			}
		}
		sortedSide := func(records []Record) (*Sorter, iter.Seq2[Record, error]) {
			s := &Sorter{Memory: rapid.SampledFrom([]int{1, 300, 1 << 20}).Draw(t, "memory")}
			for _, r := range records {
				if err := s.Add(r); err != nil {
					t.Fatal(err)
				}
			}
			return s, s.Sorted()
		}
		one, x := sortedSide(ours)
		defer one.Close()
		two, y := sortedSide(theirs)
		defer two.Close()
		got := map[string]int{}
		sum, err := Compare(x, y, known, func(s Session) error {
			for _, f := range s.Findings {
				got[string(f.Kind)]++
			}
			return nil
		})
		if err != nil || !maps.Equal(got, want) || sum.Ours.Records != uint64(len(ours)) || sum.Theirs.Records != uint64(len(theirs)) {
			t.Fatalf("found %v (%v), want %v; %+v", got, err, want, sum)
		}
	})
}

// A record comes back from a temporary file as it was.
func TestSpill(t *testing.T) {
	want := []Record{interim("b", 2, 1<<40), interim("a", 1<<31, 0), {SessionID: "c", Type: acct.Stop, User: "é", State: "pending", Credit: true, Usage: acct.Usage{InputOctets: 1, OutputOctets: 2, InputPackets: 3, OutputPackets: 4}}}
	seq, s := sorted(t, 1, want)
	if len(s.runs) != 3 {
		t.Fatalf("%d runs", len(s.runs))
	}
	var got []Record
	for r, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	want[0], want[1] = want[1], want[0]
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// An error of a side, or of whoever looks on, ends the comparison.
func TestErrors(t *testing.T) {
	fail := errors.New("disk")
	broken := func(yield func(Record, error) bool) { yield(Record{}, fail) }
	none := func(func(Record, error) bool) {}
	if _, err := Compare(broken, none, nil, nil); !errors.Is(err, fail) {
		t.Errorf("error %v", err)
	}
	if _, err := Compare(none, broken, nil, nil); !errors.Is(err, fail) {
		t.Errorf("error %v", err)
	}
	a, _ := sorted(t, 0, []Record{interim("a", 1, 1)})
	if _, err := Compare(a, none, nil, func(Session) error { return fail }); !errors.Is(err, fail) {
		t.Errorf("error %v", err)
	}
}

// Sides of any length take the memory of a Sorter each, and not more.
func TestMemory(t *testing.T) {
	const records, memory, most = 60_000, 1 << 20, 12 << 20 // of 18 MiB that they are
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	peak := uint64(0)
	a, b := millions(t, records, memory), millions(t, records, memory)
	n := 0
	sum, err := Compare(a, b, nil, func(Session) error {
		if n++; n%20 == 1 { // a few times
			peak = max(peak, heap())
		}
		return nil
	})
	if err != nil || sum.Ours.Records != records || sum.Theirs.Records != records || sum.Missing != records/1000 || sum.Extra != sum.Missing {
		t.Fatalf("%+v, %v", sum, err)
	}
	if used := peak - before; used > most {
		t.Errorf("%d records took %d octets of memory, want at most %d", records, used, most)
	} else {
		t.Logf("%d octets of memory", used)
	}
}

// millions returns n records, a session for two, in no order. Each of two sides
// lacks a few that the other has.
func millions(tb testing.TB, n, memory int) iter.Seq2[Record, error] {
	tb.Helper()
	s := &Sorter{Memory: memory}
	tb.Cleanup(func() { s.Close() })
	side := sides.Add(1)
	for i := range n {
		at := uint32(i) * 2654435761 % uint32(n) // all of them, if n is even and no multiple of its prime factors
		r := interim(fmt.Sprintf("bridge.isp.example;1;%d", at/2), at%2, uint64(at))
		if i%1000 == 0 {
			r.SessionID += fmt.Sprint(";", side)
		}
		if err := s.Add(r); err != nil {
			tb.Fatal(err)
		}
	}
	return s.Sorted()
}

var sides atomic.Int64

// BenchmarkCompare compares two sides of a million records each with the
// memory that the command takes.
func BenchmarkCompare(b *testing.B) {
	const records = 1 << 20
	for b.Loop() {
		if _, err := Compare(millions(b, records, 0), millions(b, records, 0), nil, func(Session) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.Sys)/(1<<20), "MiB-of-the-process")
}
