package sim

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	oneSeed = flag.Uint64("seed", envSeed(), "the one seed to simulate, with its trace; also SIM_SEED")
	first   = flag.Uint64("first", 1, "the first of the seeds to simulate")
	seeds   = flag.Uint64("seeds", 0, "how many seeds to simulate; 0 means a few hundred")
)

var allReal = flag.Bool("real", false, "simulate every seed on the real spool")

func envSeed() uint64 {
	n, _ := strconv.ParseUint(os.Getenv("SIM_SEED"), 10, 64)
	return n
}

// onRealSpool reports whether a seed is run on the real spool: one of a hundred.
func onRealSpool(seed uint64) bool { return *allReal || seed%100 == 0 }

func config(t testing.TB, seed uint64) Config {
	cfg := Config{Seed: seed}
	if onRealSpool(seed) {
		cfg.Dir = t.TempDir()
	}
	return cfg
}

// trace runs a seed and returns what happened in it.
func trace(t testing.TB, cfg Config) (lines []string, err error) {
	cfg.Trace = func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if cfg.Dir != "" {
		cfg.Dir = t.TempDir()
	}
	_, err = Run(cfg)
	return lines, err
}

// tail is how many lines of the trace of a seed that fails are shown without
// -v.
const tail = 60

// show repeats a seed that has failed and prints how it came to that.
func show(t testing.TB, cfg Config, failure error) {
	t.Helper()
	lines, again := trace(t, cfg)
	if again == nil || again.Error() != failure.Error() {
		t.Errorf("the seed repeats otherwise: %v, at first %v", again, failure)
	}
	if from := len(lines) - tail; from > 0 && !testing.Verbose() {
		lines = append([]string{fmt.Sprintf("... %d lines before: run it with -seed %d -v", from, cfg.Seed)}, lines[from:]...)
	}
	for _, l := range lines {
		t.Log(l)
	}
	t.Error(failure)
}

// TestSim runs seeds: at the end of each, what was received and maps to a user
// is billed to that user once, nothing else is, and the books balance. A seed
// that fails is repeated with its trace:
//
//	go test ./internal/sim -run TestSim -seed 4711 -v
func TestSim(t *testing.T) {
	if *oneSeed != 0 {
		cfg := config(t, *oneSeed)
		lines, err := trace(t, cfg)
		for _, l := range lines {
			t.Log(l)
		}
		if err != nil {
			t.Error(err)
		}
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // worlds are small and full of garbage
	n := cmp.Or(*seeds, defaultSeeds)
	last := *first + n - 1
	var next atomic.Uint64
	next.Store(*first - 1)
	var mu sync.Mutex
	var sum Report
	var g sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() {
			for seed := next.Add(1); seed <= last && !t.Failed(); seed = next.Add(1) {
				cfg := config(t, seed)
				r, err := Run(cfg)
				mu.Lock()
				if err != nil {
					show(t, cfg, err)
				}
				sum.add(r)
				mu.Unlock()
			}
		})
	}
	g.Wait()
	t.Logf("%d seeds: %+v", n, sum)
	// Worlds in which nothing goes wrong show nothing; of a few that may be so.
	if !t.Failed() && n >= 20 && (sum.Crashes < int(n) || sum.Duplicates < n || sum.Suspended < n || sum.Resent < int(n) || sum.Moved == 0 || sum.Reloads == 0) {
		t.Errorf("too little has gone wrong: %+v", sum)
	}
}

func (r *Report) add(o Report) {
	r.Steps += o.Steps
	r.Simulated += o.Simulated
	r.Crashes += o.Crashes
	r.Reloads += o.Reloads
	r.Entries += o.Entries
	r.Flows += o.Flows
	r.Duplicates += o.Duplicates
	r.Suspended += o.Suspended
	r.Records += o.Records
	r.Moved += o.Moved
	r.Requests += o.Requests
	r.Resent += o.Resent
}

// find fails t unless one of few seeds, which have a situation, finds what is
// wrong with a run.
func find(t *testing.T, focus Situation, cfg Config) {
	const most = 30
	for seed := uint64(1); seed <= most; seed++ {
		cfg.Seed, cfg.Focus = seed, focus
		if _, err := Run(cfg); err != nil {
			t.Logf("found after %d seeds: %v", seed, err)
			return
		}
	}
	t.Errorf("not found in %d seeds", most)
}

// Each mistake that can be planted is found.
func TestPlantedBugs(t *testing.T) {
	focus := map[Bug]Situation{
		NoDoubts: LateBindings | Crashes, OneSpace: SharedAddresses,
		AckBeforeOwner: Relay, CountedTwice: Relay, ConflictSettled: Requests,
	}
	for _, bug := range Bugs() {
		t.Run(bug.String(), func(t *testing.T) { find(t, focus[bug], Config{Bug: bug}) })
	}
}

// Whatever kind of state a checkpoint lacks, it is missed.
func TestLostState(t *testing.T) {
	for kind, focus := range map[string]Situation{
		"pipeline": 0, "settings": 0, "users": 0, "claim": 0, "transport": 0, "messages": Requests | Crashes, "totals": 0, "sampling": 0,
		"positions": Relay | Crashes, "window": 0, "released": Orders, "charge": LateBindings, "ports": SharedAddresses | Crashes,
		"behind": SharedAddresses,
	} {
		t.Run(kind, func(t *testing.T) { find(t, focus, Config{Lose: kind}) })
	}
}

// A seed repeats exactly, to the last word of its trace: one that passes, and
// one that fails.
func TestRepeats(t *testing.T) {
	for _, cfg := range []Config{{Seed: 1}, {Seed: 2}, {Seed: 3}, {Seed: 4}, {Seed: 1, Bug: EarlyTrim}, {Seed: 1, Bug: NoIdentities}} {
		first, err := trace(t, cfg)
		if fails := cfg.Bug != None; fails != (err != nil) {
			t.Fatalf("seed %d, bug %v: %v", cfg.Seed, cfg.Bug, err)
		}
		again, err2 := trace(t, cfg)
		if fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatalf("seed %d, bug %v: %v, then %v", cfg.Seed, cfg.Bug, err, err2)
		}
		for i := range min(len(first), len(again)) {
			if first[i] != again[i] {
				t.Fatalf("seed %d, bug %v, line %d:\n%s\nthen\n%s", cfg.Seed, cfg.Bug, i, first[i], again[i])
			}
		}
		if len(first) != len(again) {
			t.Fatalf("seed %d, bug %v: %d lines, then %d", cfg.Seed, cfg.Bug, len(first), len(again))
		}
	}
}

// What is simulated runs in one goroutine: whatever happens, there are no more
// than before.
func TestNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	for seed := uint64(1); seed <= 4; seed++ {
		if _, err := Run(Config{Seed: seed, Trace: func(format string, args ...any) {
			if n := runtime.NumGoroutine(); n > before {
				t.Fatalf("seed %d: %d goroutines, %d before, at: %s", seed, n, before, fmt.Sprintf(format, args...))
			}
		}}); err != nil {
			t.Fatal(err)
		}
	}
}

// One of a hundred seeds is run on the real spool, wherever one begins.
func TestSeedsOnRealSpool(t *testing.T) {
	for _, first := range []uint64{1, 57, 20_000} {
		n := 0
		for seed := range uint64(1000) {
			if config(t, first+seed).Dir != "" {
				n++
			}
		}
		if n != 10 && !*allReal {
			t.Errorf("%d of 1000 seeds from %d on", n, first)
		}
	}
}
