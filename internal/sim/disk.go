package sim

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"tollbridge/aaaclient"
	"tollbridge/asm"
	"tollbridge/asm/acct"
)

// A disk is what survives a crash. All but write is durable when it returns.
type disk interface {
	asm.Store
	aaaclient.Outbox

	// write puts a group of entries at the end of the journal; sync makes
	// all that was written durable.
	write(group []acct.Entry)
	sync() error
	// entries returns durable entries after a position.
	entries(after uint64, max int) ([]acct.Entry, error)
	Read(ctx context.Context, position uint64) (acct.Entry, error)
	Trim(ctx context.Context, below uint64) error
	last() uint64 // the last position that is durable, or was given to a checkpoint

	quarantined() []uint64
	requeue(ctx context.Context, ids []uint64) error
	// books checks what is accounted against what became of it, and returns
	// the sums.
	books() (sums, error)

	// contents returns the accounting records, encoded.
	contents() map[cdrKey][]byte

	crash(rng randomness) // what was written and not made durable may be lost or torn
	close()
}

type randomness interface {
	IntN(int) int
	Uint32() uint32
}

// sums are the books, summed over intervals.
type sums struct {
	received, mirrored, accounted, duplicate, suspended, rejected acct.Count
	open, pending, acknowledged, quarantined                      acct.Count
	rows                                                          map[acct.LedgerKey]amounts
	records, covered                                              int // accounting records, and those that later ones cover
}

var errFull = errors.New("disk is full")

// A device is the bridge's way to its disk, where things go wrong.
type device struct {
	disk
	w *world

	ends    map[uint64]uint32 // End-to-End Identifier of a pending record, by its ID, as it was told last
	of      map[uint64]string // Session-Id, by ID
	marked  map[uint32]int    // by End-to-End Identifier, the life in which it was marked at first
	settled map[uint64]bool   // for good

	volatile map[uint64]bool // marks of LostMark, until a crash
}

func newDevice(w *world) *device {
	d := &device{
		w: w, ends: map[uint64]uint32{}, of: map[uint64]string{}, marked: map[uint32]int{}, settled: map[uint64]bool{},
		volatile: map[uint64]bool{},
	}
	if w.cfg.Dir != "" {
		d.disk = newRealSpool(w, w.cfg.Dir)
	} else {
		d.disk = newMemory()
	}
	return d
}

// before is called before something is made durable.
func (d *device) before(what string) error {
	d.w.mayCrash("before " + what)
	if d.w.full && d.w.chance(0.8) {
		d.w.log("%s fails: %v", what, errFull)
		return errFull
	}
	return nil
}

func (d *device) Commit(ctx context.Context, b acct.Batch) error {
	if err := d.before("checkpoint"); err != nil {
		return err
	}
	switch d.w.bug {
	case NoIdentities:
		b.Identities = nil
	case NoPosition:
		b.State = slices.DeleteFunc(b.State, func(s acct.State) bool { return s.Kind == "pipeline" && b.Position > 10 })
	case NoDoubts:
		b.State = slices.DeleteFunc(b.State, func(s acct.State) bool { return s.Kind == "charge" && s.Key == "doubts" })
	case StaleSessions:
		if len(b.Sessions) > 1 {
			b.Sessions = b.Sessions[1:]
		}
	}
	if lose := d.w.cfg.Lose; lose != "" {
		b.State = slices.DeleteFunc(b.State, func(s acct.State) bool { return s.Kind == lose })
	}
	if err := d.disk.Commit(ctx, b); err != nil {
		return err
	}
	d.w.log("checkpoint at %d: %d records, needs %d", b.Position, len(b.Records), b.Needed)
	d.w.report.Records += len(b.Records)
	d.w.mayCrash("checkpoint committed")
	return nil
}

func (d *device) Trim(ctx context.Context, below uint64) error {
	if err := d.before("trim"); err != nil {
		return err
	}
	if err := d.disk.Trim(ctx, below); err != nil {
		return err
	}
	d.w.mayCrash("trimmed")
	return nil
}

func (d *device) Pending(ctx context.Context, after uint64, max int) ([]acct.Delivery, error) {
	list, err := d.disk.Pending(ctx, after, max)
	if err != nil {
		return nil, err
	}
	for i := range list {
		x := &list[i]
		before := d.ends[x.ID]
		d.ends[x.ID], d.of[x.ID] = x.EndToEnd, x.Record.SessionID
		x.MaySent = x.MaySent || d.volatile[x.ID]
		if x.MaySent && d.marked[x.EndToEnd] == 0 { // with the settlement of an error answer, or requeued
			d.marked[x.EndToEnd] = cmp.Or(d.marked[before], -1)
		}
	}
	return list, nil
}

func (d *device) MarkSent(ctx context.Context, ids []uint64) error {
	if err := d.before("mark"); err != nil {
		return err
	}
	if d.w.bug == LostMark {
		for _, id := range ids {
			d.volatile[id] = true
		}
	} else if err := d.disk.MarkSent(ctx, ids); err != nil {
		return err
	}
	for _, id := range ids {
		if end := d.ends[id]; d.marked[end] == 0 {
			d.marked[end] = d.w.lives
		}
	}
	d.w.log("marked %v", ids)
	d.w.mayCrash("marked")
	return nil
}

func (d *device) Settle(ctx context.Context, list []acct.Settlement) error {
	if err := d.before("settle"); err != nil {
		return err
	}
	if err := d.disk.Settle(ctx, list); err != nil {
		return err
	}
	for _, s := range list {
		delete(d.volatile, s.ID)
		if s.State != acct.Pending {
			if d.settled[s.ID] {
				d.w.fail("record %d is settled twice", s.ID)
			}
			d.settled[s.ID] = true
		}
		if s.State == acct.Quarantined {
			d.w.app.refused[d.of[s.ID]] = true
			if s.Result != 0 {
				d.w.wire.refused(d.ends[s.ID])
			}
		}
		d.w.log("settled %d: %v %d %s", s.ID, s.State, s.Result, s.Reason)
	}
	d.w.mayCrash("settled")
	return nil
}

// crash takes away what was not durable.
func (d *device) crash() {
	d.disk.crash(d.w.rng)
	clear(d.volatile)
}
