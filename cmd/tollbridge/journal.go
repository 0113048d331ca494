package main

import (
	"context"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/ipfix/ack"
	"tollbridge/ipfix/collect"
	"tollbridge/spool"
)

// A journal gives the Collecting Process and the daemon their words for
// entries of the spool's journal.
type journal struct{ *spool.Journal }

var (
	_ collect.Journal       = journal{}
	_ collect.StreamJournal = journal{}
	_ collect.Durability    = journal{}
	_ users.Sink            = journal{}

	_ collect.DurableJournal = journal{}
)

// Open implements collect.Journal.
func (j journal) Open(at time.Time, s collect.Session) (uint64, error) {
	info := asm.SessionInfo(s)
	data, err := info.AppendBinary(nil)
	if err != nil {
		return 0, err
	}
	return j.Append(acct.EntryOpen, at.UnixNano(), 0, data)
}

// HeldUp implements collect.Durability.
func (j journal) HeldUp() ack.Reason {
	switch s := j.Stats(); {
	case s.Full:
		return ack.DiskFull
	case s.Waits != nil:
		return ack.Failing
	}
	if _, marked := j.Held(); marked { // the operator gave it no more room
		return ack.DiskFull
	}
	return ack.Overload
}

// Message implements collect.Journal.
func (j journal) Message(at time.Time, session uint64, data []byte) (uint64, error) {
	return j.Append(acct.EntryMessage, at.UnixNano(), session, data)
}

// StreamMessage implements collect.StreamJournal.
func (j journal) StreamMessage(at time.Time, session uint64, stream uint16, data []byte) (uint64, error) {
	return j.Append(acct.EntryMessage, at.UnixNano(), acct.OfStream(session, stream), data)
}

// Sync implements collect.DurableJournal.
func (j journal) Sync(ctx context.Context) error { return j.Wait(ctx, j.Appended()) }

// Close implements collect.Journal.
func (j journal) Close(at time.Time, session uint64) error {
	_, err := j.Append(acct.EntryClose, at.UnixNano(), session, nil)
	return err
}

// begin notes that the daemon began: no Transport Session of before goes on
// but those over UDP, and these are the settings.
func (j journal) begin(at time.Time, s asm.Settings) error {
	if err := j.Close(at, 0); err != nil {
		return err
	}
	data, err := s.AppendBinary(nil)
	if err != nil {
		return err
	}
	_, err = j.Append(acct.EntryConfig, at.UnixNano(), 0, data)
	return err
}

// users notes all bindings of a source, in place of those it gave before.
func (j journal) users(at time.Time, source string, list []users.Binding) error {
	_, err := j.Append(acct.EntryUsers, at.UnixNano(), 0, users.AppendList(nil, source, list))
	return err
}

// Put implements users.Sink.
func (j journal) Put(ctx context.Context, e users.Event) error {
	e, err := e.Normalize()
	if err != nil {
		return err
	}
	position, err := j.Append(acct.EntryBinding, time.Now().UnixNano(), 0, e.AppendBinary(nil))
	if err != nil {
		return err
	}
	return j.Wait(ctx, position)
}

func (j journal) tick(at time.Time) error {
	_, err := j.Append(acct.EntryTick, at.UnixNano(), 0, nil)
	return err
}
