package sim

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/spool"
)

// A cdrStore is the real store of the accounting application, beside the plain
// one, on the seeds that run on the real spool.
type cdrStore struct {
	w     *world
	dir   string
	store *spool.CDRs
}

func newCDRStore(w *world, dir string) *cdrStore {
	c := &cdrStore{w: w, dir: filepath.Join(dir, "cdrs")}
	must(os.MkdirAll(c.dir, 0o700))
	c.open()
	return c
}

func (c *cdrStore) open() {
	var err error
	c.store, err = spool.OpenCDRs(c.dir)
	must(err)
}

func (c *cdrStore) close() { must(c.store.Close()) }

// put stores a record and checks what the store says of it. At times the
// application is started anew before.
func (c *cdrStore) put(r *acct.Record, digest [32]byte, avps []byte, want acct.Outcome) {
	if c.w.chance(0.02) {
		c.close()
		c.open()
	}
	out, err := c.store.Store(context.Background(), []acct.CDR{{
		OriginHost: c.w.mood.settings.OriginHost, OriginRealm: "visited.example",
		SessionID: r.SessionID, Number: r.Number, Type: r.Type, MultiSessionID: r.MultiSessionID, User: r.User,
		Event: r.Event, SessionTime: r.SessionTime, Usage: r.Usage, Corrects: r.Corrects, AVPs: avps, Content: digest, At: time.Unix(0, c.w.now),
	}})
	must(err)
	if out[0] != want {
		c.w.fail("%s/%d is stored with outcome %d, should be %d", r.SessionID, r.Number, out[0], want)
	}
}

// check compares the users' totals with the truth.
func (c *cdrStore) check() {
	type total struct{ usage, credited acct.Usage }
	want := map[string]total{}
	for key, u := range c.w.truth.billed {
		sum := want[key.user]
		if key.credit {
			sum.credited = sum.credited.Plus(u)
		} else {
			sum.usage = sum.usage.Plus(u)
		}
		want[key.user] = sum
	}
	totals, err := c.store.Totals(context.Background())
	must(err)
	for _, t := range totals {
		if got := (total{t.Usage, t.Credited}); t.User != "" && got != want[t.User] {
			c.w.fail("the CDRs of %q come to %+v, in truth %+v", t.User, got, want[t.User])
		}
		delete(want, t.User)
	}
	for user, u := range want {
		if u != (total{}) {
			c.w.fail("there are no CDRs of %q, in truth %+v", user, u)
		}
	}
}
