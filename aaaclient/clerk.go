package aaaclient

import (
	"context"
	"time"

	"tollbridge/asm/acct"
)

// A job is one round of work for the outbox: settle, then mark, then read, so
// that what is read has been settled. Where settling fails the job ends there:
// a session's next record would go out while the answer to the one before,
// a refusal perhaps, can be lost in a crash, and that one be sent behind it.
type job struct {
	obey    []acct.InterimInterval
	settle  []acct.Settlement
	settled []*session // beside settle
	mark    []uint64
	marked  []*session // beside mark
	fetch   fetch
}

// A fetch asks for records of the outbox.
type fetch struct {
	route  *route
	max    int // 0 for nothing
	after  uint64
	refill *session // whose records were left before; nil for records never seen
	wakes  uint64   // delivery.wakes when it was asked for
}

// A done is what came of a job. What has failed is to be tried again.
type done struct {
	job
	obeyErr, settleErr, markErr, fetchErr error

	records []acct.Delivery
	through uint64 // the route's records up to this ID were seen
	more    bool   // and there may be more of them
}

// clerkTimeout bounds the work for one job, and obeyTimeout what Config.Obey
// may take of that: what it waits for can fail while the outbox works.
const (
	clerkTimeout = 30 * time.Second
	obeyTimeout  = 2 * time.Second
)

// clerk works for the outbox, one job at a time, so that the writes of many
// answers become one and delivery never waits for a disk. A job that has begun
// is finished even when ctx is done: what is answered is to be settled.
func (c *Client) clerk(ctx context.Context, jobs <-chan job, results chan<- done) {
	for j := range jobs {
		results <- c.work(ctx, j)
	}
}

func (c *Client) work(ctx context.Context, j job) done {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clerkTimeout)
	defer cancel()
	d := done{job: j}
	if len(j.obey) > 0 {
		soon, cancel := context.WithTimeout(ctx, obeyTimeout)
		d.obeyErr = c.cfg.Obey(soon, j.obey)
		cancel()
	}
	if len(j.settle) > 0 {
		if d.settleErr = c.cfg.Outbox.Settle(ctx, j.settle); d.settleErr != nil {
			return d
		}
	}
	if len(j.mark) > 0 {
		d.markErr = c.cfg.Outbox.MarkSent(ctx, j.mark)
	}
	if j.fetch.max > 0 {
		d.records, d.through, d.more, d.fetchErr = c.read(ctx, j.fetch)
	}
	return d
}

// read asks the Outbox for what f wants.
func (c *Client) read(ctx context.Context, f fetch) (records []acct.Delivery, through uint64, more bool, err error) {
	if serves := f.route.serves; serves != nil {
		return c.cfg.Outbox.(RealmOutbox).PendingOf(ctx, f.after, f.max, serves)
	}
	if records, err = c.cfg.Outbox.Pending(ctx, f.after, f.max); len(records) > 0 {
		through = records[len(records)-1].ID
	}
	return records, through, len(records) == f.max, err
}
