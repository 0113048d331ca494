package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
	"tollbridge/ipfix/export/backlog"
)

// Acknowledged is how a Process exports with acknowledgements (package ack,
// docs/acknowledged-export.md): each Message is kept in a Backlog until a
// Collecting Process says that it is durable there.
//
// Records need absolute times, as Messages may be sent long after they were
// written: a Template with times told from the Export Time is refused, one
// without any is warned of, and in lists (RFC 6313) nothing is looked for.
type Acknowledged struct {
	// Backlog is required. It stays open when the Process ends.
	Backlog *backlog.Backlog

	// Enterprise is the Private Enterprise Number of the elements. 0 means
	// ack.Enterprise.
	Enterprise uint32

	// Window is how many Messages may be under way without acknowledgement. 0
	// means 4096, which is the most.
	Window int

	// Silence is how long nothing may be acknowledged before a backup is tried.
	// 0 means 30 seconds.
	Silence time.Duration

	// Pull exports what the flow cache has of addresses, and returns up to
	// when packets are in it. Nil refuses.
	Pull func(ctx context.Context, of netip.Prefix) (time.Time, error)
}

// maxWindow is the most Messages under way that the protocol allows: a
// Collecting Process must know that many again.
const maxWindow = 4096

// A keeping is what a Process with acknowledgements has besides. Process.mu
// guards it.
type keeping struct {
	Acknowledged
	domain     uint32
	identity   *ipfix.Template
	givenUp    *ipfix.Template
	pullAnswer *ipfix.Template
	backlog    *backlog.Backlog

	record  []byte // scratch
	unkept  []byte // a Message that the disk had no room for yet
	records uint32 // its Data Records
	failed  error  // of the disk, for good
	warned  bool   // of a disk without room
}

func newKeeping(cfg Acknowledged, domain uint32) (*keeping, error) {
	if cfg.Backlog == nil {
		return nil, errors.New("a Backlog is required")
	}
	if cfg.Window < 0 || cfg.Window > maxWindow {
		return nil, fmt.Errorf("a Window of %d is not within 1 and %d", cfg.Window, maxWindow)
	}
	orDefault(&cfg.Window, maxWindow)
	orDefault(&cfg.Silence, 30*time.Second)
	if cfg.Enterprise == 0 {
		cfg.Enterprise = ack.Enterprise
	}
	k := &keeping{
		Acknowledged: cfg,
		domain:       domain,
		identity:     ack.IdentityTemplate(cfg.Enterprise),
		givenUp:      ack.GivenUpTemplate(cfg.Enterprise),
		pullAnswer:   ack.PullAnswerTemplate(cfg.Enterprise),
		backlog:      cfg.Backlog,
	}
	for _, t := range []*ipfix.Template{k.identity, k.givenUp, k.pullAnswer} {
		if err := k.define(t); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func (k *keeping) define(t *ipfix.Template) error {
	return k.backlog.Define(t.ID, t.Scope > 0, t.Append(nil))
}

// done reports whether nothing is left to be sent.
func (k *keeping) done() bool { return k.unkept == nil && k.backlog.Stats().Messages == 0 }

// begin starts the Message of a position with its Identity.
func (k *keeping) begin(e *ipfix.Encoder, position uint64) error {
	wants := ack.Acknowledgements
	if k.Pull != nil {
		wants |= ack.Pulls
	}
	id := ack.Identity{Instance: k.backlog.Instance(), Position: position, Version: ack.Version, Wants: wants}
	k.record = id.Append(k.record[:0])
	return e.AppendRecord(k.identity, k.record)
}

// keepLocked is Export with acknowledgements.
func (p *Process) keepLocked(ctx context.Context, t *ipfix.Template, record []byte) error {
	if t != p.last {
		if err := p.useLocked(t); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	return p.addLocked(ctx, t, record)
}

// addLocked adds a record of a known Template.
func (p *Process) addLocked(ctx context.Context, t *ipfix.Template, record []byte) error {
	k := p.keeping
	for {
		switch {
		case p.closing:
			return fmt.Errorf("export: %w", ErrClosed)
		case k.failed != nil:
			return k.failed
		case k.unkept != nil || p.encoder.Len() == 0 && !p.cfg.DropWhenFull && k.backlog.Full():
			if err := p.waitKeptLocked(ctx); err != nil {
				return fmt.Errorf("export: the spool is full: %w", err)
			}
			continue
		}
		if p.encoder.Len() == 0 {
			if err := k.begin(p.encoder, k.backlog.Next()); err != nil {
				return fmt.Errorf("export: %w", err)
			}
		}
		err := p.encoder.AppendRecord(t, record)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ipfix.ErrFull) {
			return fmt.Errorf("export: %w", err)
		}
		if p.encoder.Records() <= 1 { // no Message has more room
			return fmt.Errorf("export: %d octets as a record beside an Identity, in a message of at most %d: %w", len(record), p.longest, ipfix.ErrLength)
		}
		p.storeLocked()
	}
}

// retryKept is how long a Process waits before it tries a disk again that was
// full.
const retryKept = time.Second

// waitKeptLocked waits for room in the Backlog, or on its disk.
func (p *Process) waitKeptLocked(ctx context.Context) error {
	retry, cancel := context.WithTimeout(ctx, retryKept)
	defer cancel()
	err := p.waitLocked(retry)
	if err != nil && retry.Err() != nil && ctx.Err() == nil {
		err = nil
	}
	p.storeLocked()
	return err
}

// storeLocked ends the Message that is being filled and puts it into the
// Backlog, or tries again to put there the one before.
func (p *Process) storeLocked() {
	k := p.keeping
	if k.unkept == nil {
		if p.encoder.Records() <= 1 { // nothing but its Identity, which stays true
			return
		}
		k.records = uint32(p.encoder.Records())
		k.unkept = p.encoder.Flush(0)
	}
	if k.failed != nil {
		return
	}
	err := k.backlog.Append(backlog.Entry{Kind: backlog.Message, Records: k.records, Octets: k.unkept})
	if err == nil {
		k.unkept = nil // whatever comes now: tried again it would be there twice
		p.wake()
		err = p.makeRoomLocked()
	}
	switch {
	case err == nil:
		k.warned = false
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		k.unkept = bytes.Clone(k.unkept)
		if !k.warned {
			k.warned = true
			p.cfg.Log.Error("the spool's disk is full: what is exported waits", "error", err)
		}
	default:
		k.failed = fmt.Errorf("export: %w", err)
		p.cfg.Log.Error("the spool fails: nothing more is exported", "error", err)
	}
}

// makeRoomLocked gives the oldest Messages up where the Backlog is full and may
// drop. Where the disk has no room to tell of them they stay, and the next
// Message tries again.
func (p *Process) makeRoomLocked() error {
	b := p.keeping.backlog
	for p.cfg.DropWhenFull && b.Full() {
		before := b.Stats().Segments
		if err := b.GiveUp(p.reportLocked); err != nil {
			return err
		}
		if b.Stats().Segments >= before {
			break
		}
	}
	return nil
}

// tellDamaged puts into the Backlog what tells of Messages that it can't read
// any more.
func (p *Process) tellDamaged(losses []backlog.Loss) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.storeLocked() // what is being filled has the position that the report would get
	switch k := p.keeping; {
	case k.failed != nil:
		return k.failed
	case k.unkept != nil:
		return errors.New("export: the spool's disk has no room to tell of damaged messages")
	}
	p.encoder.Flush(0) // there may be an Identity without records
	return p.reportLocked(losses)
}

// reportLocked puts into the Backlog, whole or not at all, what tells of Messages
// given up. Of one that is damaged, and does not say how many records it had, nothing can be told: the
// Collecting Process would count less than may come after all.
func (p *Process) reportLocked(losses []backlog.Loss) error {
	k := p.keeping
	var all []ack.GivenUp
	never := false // the last of all was never sent, so it may grow
	damaged, lost := uint64(0), uint64(0)
	for _, l := range losses {
		if l.Damaged {
			damaged++
		}
		if l.Damaged && l.Records == 0 {
			continue
		}
		g := ack.GivenUp{First: l.Position, Last: l.Position}
		if l.Kind == backlog.Message {
			g.Records = uint64(l.Records) - 1
			lost += g.Records
		} else {
			singles, rest := k.retell(l.Octets)
			if len(singles) > 0 {
				all, never = append(all, singles...), false
			}
			g.Records = rest
		}
		if n := len(all); never && !l.Sent && all[n-1].Last+1 == g.First {
			all[n-1].Last = g.Last
			all[n-1].Records += g.Records
			continue
		}
		all, never = append(all, g), !l.Sent
	}
	reports, err := k.reports(all, ipfix.NewEncoder(p.cfg.Domain, p.cfg.MaxMessage))
	if err == nil {
		err = k.backlog.Append(reports...)
	}
	if err != nil {
		return err
	}
	p.counts.Damaged += damaged
	p.counts.LostRecords += lost
	return nil
}

// reports returns the Messages, as many as it takes, that tell all.
func (k *keeping) reports(all []ack.GivenUp, e *ipfix.Encoder) (reports []backlog.Entry, err error) {
	for len(all) > 0 {
		if err := k.begin(e, k.backlog.Next()+uint64(len(reports))); err != nil {
			return nil, err
		}
		for len(all) > 0 {
			k.record = all[0].Append(k.record[:0])
			err := e.AppendRecord(k.givenUp, k.record)
			if errors.Is(err, ipfix.ErrFull) && e.Records() > 1 {
				break
			}
			if err != nil {
				return nil, err
			}
			all = all[1:]
		}
		records := uint32(e.Records())
		reports = append(reports, backlog.Entry{Kind: backlog.Report, Records: records, Octets: bytes.Clone(e.Flush(0))})
	}
	return reports, nil
}

// retell reads a report that is given up itself. What it told of single
// Messages is told again, as that can be told twice; the rest is returned as
// the Data Records that are lost if the report has not arrived.
func (k *keeping) retell(report []byte) (singles []ack.GivenUp, lost uint64) {
	w := ack.NewWatcher(k.Enterprise)
	w.Know(k.domain, k.givenUp)
	w.Message(report, func(l *ack.Layout, r ipfix.Record, _ bool) {
		g := l.GivenUp(r)
		if g.First == g.Last {
			singles = append(singles, g)
		} else {
			lost += g.Records
		}
	})
	return singles, lost
}

// syncLocked is Flush with acknowledgements.
func (p *Process) syncLocked(ctx context.Context) error {
	k := p.keeping
	for p.storeLocked(); k.unkept != nil; {
		if k.failed != nil {
			return k.failed
		}
		if err := p.waitKeptLocked(ctx); err != nil {
			return fmt.Errorf("export: flush: %w", err)
		}
	}
	if err := k.backlog.Sync(); err != nil {
		return fmt.Errorf("export: flush: %w", err)
	}
	return nil
}

// Keep exports a record as a Message of its own, and returns its position in
// the Backlog: it was written there, and what else is known of it Acknowledged
// and Config.Acknowledged.Backlog say. It needs Config.Acknowledged. Errors
// are those of Export.
func (p *Process) Keep(ctx context.Context, t *ipfix.Template, record []byte) (position uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.keeping
	if k == nil {
		panic("export: internal error: Keep without Config.Acknowledged")
	}
	p.storeLocked()
	if err := p.keepLocked(ctx, t, record); err != nil {
		return 0, err
	}
	position = k.backlog.Next()
	for p.storeLocked(); k.unkept != nil; {
		if k.failed != nil {
			return 0, k.failed
		}
		if err := p.waitKeptLocked(ctx); err != nil {
			return 0, fmt.Errorf("export: the spool is full: %w", err)
		}
	}
	return position, nil
}

// Acknowledged returns when a Collecting Process has acknowledged a position.
func (p *Process) Acknowledged(ctx context.Context, position uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.keeping.backlog.Acknowledged() < position {
		if err := p.waitLocked(ctx); err != nil {
			return fmt.Errorf("export: position %d is not acknowledged: %w", position, err)
		}
	}
	return nil
}
