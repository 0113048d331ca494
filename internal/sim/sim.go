// Package sim runs the whole bridge in one process under a seeded scheduler:
// exporters, network, Collecting Process, journal, pipeline, checkpoints,
// outbox, delivery, AAA peers and the clock. What is simulated is a function of
// the seed, so a run that fails can be repeated exactly.
//
//	exporters ──► network ──► collector ──► journal ──► asm.Module ──► checkpoint
//	    ▲                         │            │                          │
//	    └── acknowledgements ◄────┘            ▼                          ▼
//	                                         truth     AAA peers ◄── aaaclient.Stepper ◄── outbox
//	                                           │           │
//	                                           └── compare ┘
//
// The pipeline, its users, identities and Templates, the dictionary and the
// delivery are the real ones. The Collecting Process is a model of
// ipfix/collect that keeps to its words with the journal; connections to AAA
// peers are models of peer.Conn. The disk is a model too, in memory, with torn
// writes; or, where Config.Dir is set, the real spool, whose files are copied
// as a kill leaves them.
//
// Nothing of it runs in a goroutine, but for the committer of the real spool,
// which is waited for.
//
// Where to look:
//
//	the world     sim, schedule, mood (how much goes wrong), trouble (what), bug (planted)
//	around it     exporter, message, form, flow, spooling, nat, relay, client, nas, directory, operator, server
//	the bridge    process, life, link, journal; disk: memory or realspool
//	what is true  truth (an entry after the other), transport, window, totals, holders, claim, waiting, bills, correct, amounts
//	the verdict   check, straight, cdrs
//
// What the truth has of a NAT, a relay or an operator's orders stands beside
// what they do.
//
// # A seed that fails
//
// make sim SEED=n repeats it with its trace; the seed gives the same run on every
// machine, for as long as the code is the same. Read the trace from its end: the
// last line says what differs, for whom, and by how much. The first lines are the
// mood, which has what was drawn and the settings. "truth:" lines say what the
// model makes of each flow, when its entry of the journal is durable; "accounted"
// lines what the AAA servers were told. Times are seconds of the world's clock,
// which the bridge's may differ from. Of who is charged what the model says
// otherwise,
//
//	go test ./internal/sim -run TestApart -seed n -apart user -v
//
// tells from which entry on. Either may be wrong: what the bridge should do is said
// in docs, not here. A fault of the bridge gets a test of its own package, as what
// a seed draws changes with the next thing that is drawn.
package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"tollbridge/ipfix"
)

// A Config says what to simulate.
type Config struct {
	Seed  uint64
	Bug   Bug                              // planted; None in earnest
	Lose  string                           // kind of acct.State that checkpoints lack, another bug; "" for none
	Focus Situation                        // drawn in any case; others as the seed has them
	Dir   string                           // of the real spool; "" means the disk in memory
	Trace func(format string, args ...any) // called for what happens; nil for nothing
}

// A Report says what happened in a run.
type Report struct {
	Steps      int           // of the scheduler
	Simulated  time.Duration // time that passed in the run
	Crashes    int
	Reloads    int // of the pipeline, after a failed commit
	Entries    uint64
	Flows      int // that were measured
	Duplicates uint64
	Suspended  uint64
	Records    int // accounting records
	Moved      int // usage that a binding which came late gave to another
	Requests   int // Accounting-Requests that left
	Resent     int // of those, with the T flag
}

// A Failure is what a run has found wrong.
type Failure struct {
	Seed uint64
	At   time.Duration // since the run began
	What string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("sim: seed %d: at %v: %s", f.Seed, f.At, f.What)
}

// Run simulates one seed. Its error is a *Failure.
func Run(cfg Config) (report Report, err error) {
	w := newWorld(cfg)
	defer w.close()
	defer func() {
		p := recover()
		report = w.report
		report.Simulated = time.Duration(w.now - epoch)
		switch p := p.(type) {
		case nil:
		case *Failure:
			w.log("FAILURE: %s", p.What)
			err = p
		default:
			panic(p)
		}
	}()
	w.run()
	return report, nil
}

// epoch is when a run begins, Unix nanoseconds.
var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).UnixNano()

// A world is a run.
type world struct {
	scheduler
	cfg    Config
	mood   mood
	report Report
	ctx    context.Context

	disk  *device
	bug   Bug
	proc  *process // the bridge; nil while it is down
	lives int      // processes so far
	skew  int64    // of the bridge's clock, nanoseconds
	full  bool     // the disk
	quiet bool     // nothing goes wrong any more

	intervals *rand.Rand // of what AAA peers ask for; nil where they ask for none, in half of the runs

	users     directory
	nases     nases
	operator  operator
	client    client
	nat       *nat // nil for none
	exporters []*exporter
	known     map[string]*message // what was sent, by its octets
	nextFlow  uint64
	templates map[[2]int]*ipfix.Template // by form and ID
	peers     []*server
	app       *application
	wire      *wire
	truth     *truth
}

func newWorld(cfg Config) *world {
	w := &world{cfg: cfg, bug: cfg.Bug, ctx: context.Background(), known: map[string]*message{}, templates: map[[2]int]*ipfix.Template{}}
	w.scheduler = scheduler{now: epoch, rng: rand.New(rand.NewPCG(cfg.Seed, 0x70b1))}
	w.mood = newMood(w.rng)
	if w.draws(Crashes) {
		w.mood.crashes, w.mood.crash = 60, 0.05
	}
	// What waits for a record of its own interval would be corrected later.
	if rng := rand.New(rand.NewPCG(cfg.Seed, 0x86)); w.draws(LateBindings) || cfg.Seed%2 != 0 && rng.IntN(5) > 0 {
		w.mood = w.mood.corrects(rng)
	} else if cfg.Seed%2 == 0 {
		w.intervals = rand.New(rand.NewPCG(cfg.Seed, 0x85))
	}
	if cfg.Seed%3 == 0 || w.draws(SharedAddresses) {
		w.share()
	}
	w.disk = newDevice(w)
	w.truth = newTruth(w)
	w.app = newApplication(w)
	w.wire = newWire(w)
	for i := range 2 {
		w.peers = append(w.peers, &server{w: w, index: i})
	}
	w.users.begin(w)
	for i := range w.mood.exporters {
		w.exporters = append(w.exporters, newExporter(w, i))
	}
	if cfg.Seed%5 == 0 || w.draws(Relay) {
		w.addRelay()
	}
	return w
}

// draws reports whether something is drawn whatever the seed says.
func (w *world) draws(s Situation) bool { return w.cfg.Focus&s != 0 }

func (w *world) close() {
	w.disk.close()
	if w.app.real != nil {
		w.app.real.close()
	}
}

// log tells the trace.
func (w *world) log(format string, args ...any) {
	if w.cfg.Trace != nil {
		w.cfg.Trace("%9.3f  %s", time.Duration(w.now-epoch).Seconds(), fmt.Sprintf(format, args...))
	}
}

// fail ends the run.
func (w *world) fail(format string, args ...any) {
	panic(&Failure{w.cfg.Seed, time.Duration(w.now - epoch), fmt.Sprintf(format, args...)})
}

// wall returns the time by the bridge's clock, Unix nanoseconds.
func (w *world) wall() int64 { return w.now + w.skew }

// run lets traffic flow and things go wrong, then heals the world and checks
// what has become of it.
func (w *world) run() {
	w.log("mood: %v", w.mood)
	w.after(0, w.start)
	for _, e := range w.exporters {
		e.begin()
	}
	w.troubles()
	w.until(epoch + int64(w.mood.traffic))

	w.heal()
	w.drain("traffic")
	for _, e := range w.exporters {
		if len(e.unacked) > 0 {
			w.fail("exporter %s waits for ever for %d acknowledgements", e.name, len(e.unacked))
		}
	}
	if n := w.client.waiting; n > 0 {
		w.fail("client %s waits for ever for %d answers", w.client.name, n)
	}
	w.users.end(w) // sessions stop
	w.nases.end(w)
	w.drain("users")
	if w.requeue() {
		w.drain("requeue")
	}
	w.proc.checkpoint()
	w.drain("last checkpoint")
	w.check()
}

// drain lets everything happen that is still to happen.
func (w *world) drain(what string) {
	for limit := w.report.Steps + 200_000; w.step(); {
		if w.report.Steps > limit {
			w.fail("the world does not come to rest: %s", what)
		}
	}
}

// until lets happen what happens until a time.
func (w *world) until(at int64) {
	for len(w.queue) > 0 && w.queue[0].at <= at {
		w.step()
	}
	w.now = max(w.now, at)
}

// step does what is due next and reports whether there was anything.
func (w *world) step() bool {
	if len(w.queue) == 0 {
		return false
	}
	defer func() {
		switch p := recover().(type) {
		case nil:
		case crashed:
			w.crash(string(p))
		default:
			panic(p)
		}
	}()
	w.report.Steps++
	if w.chance(1. / 30) {
		w.mayCrash("between two steps")
	}
	w.next()()
	return true
}
