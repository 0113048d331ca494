package aaaclient

import (
	"context"

	"tollbridge/asm/acct"
)

// An Outbox keeps the records that are to be delivered. One goroutine of the
// client calls it; an error means that nothing was done, and the client tries
// again after a while.
type Outbox interface {
	// Pending returns up to max unsettled records with an ID above after, by
	// ascending ID.
	Pending(ctx context.Context, after uint64, max int) ([]acct.Delivery, error)
	// MarkSent makes it durable that a copy of each may have been sent.
	MarkSent(ctx context.Context, ids []uint64) error
	// Settle makes the fate of records durable. One settled as Pending gets a
	// new EndToEnd and is marked as not sent.
	Settle(ctx context.Context, settlements []acct.Settlement) error
	// Wake receives after new records have come.
	Wake() <-chan struct{}
}

// A RealmOutbox is an Outbox that reads the records of some realms alone. A
// Config with several Routes wants one, so that records that can't be delivered
// do not stand before others.
type RealmOutbox interface {
	Outbox
	// PendingOf is Pending for records whose Realm of reports true. All of
	// those up to ID through were looked at, and there may be more of them.
	// It may return none of many.
	PendingOf(ctx context.Context, after uint64, max int, of func(realm []byte) bool) (records []acct.Delivery, through uint64, more bool, err error)
}
