package sim

import (
	"flag"
	"fmt"
	"testing"

	"tollbridge/asm/acct"
)

var apartOf = flag.String("apart", "", "with -seed: the user of whom pipeline and truth are compared after each entry")

// TestApart tells where in the journal of a seed the pipeline and the truth
// come apart about what a user is charged, and says there what the truth made of
// the entry. Usage that waits for its record's interval comes a little later in
// the pipeline; where they stay apart, one of them is wrong:
//
//	go test ./internal/sim -run TestApart -seed 4711 -apart fay -v
func TestApart(t *testing.T) {
	if *apartOf == "" || *oneSeed == 0 {
		t.Skip("for -seed and -apart")
	}
	w := newWorld(config(t, *oneSeed))
	defer w.close()
	func() {
		defer func() {
			if failure := recover(); failure != nil {
				t.Log(failure)
			}
		}()
		w.run()
	}()
	journal, infos := w.truth.journal, w.truth.infos
	w.truth = newTruth(w)
	w.truth.infos = infos
	var lines []string
	w.cfg.Trace = func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	store, module := w.straight(journal)
	last := "0 in, 0 out"
	for _, e := range journal {
		lines = nil
		if err := module.Apply(w.ctx, e); err != nil {
			t.Fatal(err)
		}
		if err := module.Checkpoint(w.ctx); err != nil {
			t.Fatal(err)
		}
		w.truth.entry(e)
		var want acct.Usage
		for key, u := range w.truth.billed {
			if key.user == *apartOf && !key.credit {
				want = want.Plus(u)
			}
		}
		got := store.charged(t, *apartOf)
		apart := fmt.Sprintf("%d in, %d out", int64(got.InputOctets-want.InputOctets), int64(got.OutputOctets-want.OutputOctets))
		if apart == last {
			continue
		}
		last = apart
		t.Logf("entry %d, %v at %.3f: the pipeline charges more by %s", e.Position, e.Kind, float64(e.Time-epoch)/1e9, apart)
		for _, l := range lines {
			t.Log("    ", l)
		}
	}
}

// charged returns what a user is charged in records and open usage, without
// corrections.
func (m *memory) charged(t *testing.T, user string) (sum acct.Usage) {
	sessions := map[string]acct.Usage{}
	for _, p := range m.rows {
		var r acct.Record
		if err := r.UnmarshalBinary(p.content); err != nil {
			t.Fatal(err)
		}
		if r.User == user && r.Corrects == nil {
			sessions[r.SessionID] = r.Usage // they come in order
		}
	}
	for id, s := range m.sessions {
		if s.User == user {
			key := s.SessionID
			if key == "" {
				key = fmt.Sprint(id)
			}
			sessions[key] = s.Usage
		}
	}
	for _, u := range sessions {
		sum = sum.Plus(u)
	}
	return sum
}
