package sim

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"tollbridge/aaaclient"
	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

// A process is one life of the bridge: all that a crash takes away. It is
// wired as the daemon is.
type process struct {
	w *world

	// The journal's end.
	next    uint64       // position
	held    []acct.Entry // appended, not durable
	octets  int          // of them
	syncing bool         // a sync is to come
	durable uint64
	latest  int64 // time of an entry
	acks    []ack // to be given when their entries are durable

	// The Collecting Process.
	datagrams map[netip.AddrPort]*udpSession

	// The pipeline.
	module   *asm.Module
	busy     bool   // a step of the pipeline is to come
	dirty    bool   // entries were applied since the checkpoint
	due      bool   // a checkpoint is to come
	ticked   int64  // the deadline of the last tick
	ticking  uint64 // counts the timers that were set
	scratch  []byte
	position uint64 // of the last entry applied

	// Delivery.
	stepper *aaaclient.Stepper
	timer   uint64 // counts the timers that were set
	working bool
}

// An ack is an acknowledgement that waits for a position to be durable.
type ack struct {
	position uint64
	give     func()
}

// A udpSession is a Transport Session over UDP, as the Collecting Process has
// it.
type udpSession struct {
	number uint64
	used   int64
}

func newProcess(w *world) *process {
	return &process{w: w, datagrams: map[netip.AddrPort]*udpSession{}}
}

// later lets the process do something in a while, if it still lives then.
func (p *process) later(d time.Duration, do func()) {
	p.w.after(d, func() {
		if p.w.proc == p {
			do()
		}
	})
}

// begin starts up.
func (p *process) begin() {
	w := p.w
	p.durable = w.disk.last()
	p.next = p.durable + 1
	w.truth.follow() // what survived unknown
	w.log("life %d begins: the journal ends at %d", w.lives, p.durable)
	p.append(acct.EntryClose, 0, nil)
	p.configure()
	p.bindings()
	p.load()
	p.connect()
	for _, e := range w.exporters {
		e.reachable()
	}
}

// configure puts the settings into the journal.
func (p *process) configure() {
	data, err := p.w.mood.settings.AppendBinary(nil)
	if err == nil {
		err = p.w.mood.settings.Validate()
	}
	if err != nil {
		p.w.fail("settings: %v", err)
	}
	p.append(acct.EntryConfig, 0, data)
}

// bindings puts the users into the journal.
func (p *process) bindings() {
	for _, s := range p.w.users.sources {
		p.append(acct.EntryUsers, 0, p.w.users.encode(p.w, s))
	}
}

// append puts an entry at the end of the journal. It is durable some time
// later.
func (p *process) append(kind acct.EntryKind, session uint64, data []byte) uint64 {
	e := acct.Entry{Position: p.next, Kind: kind, Time: p.w.wall(), Session: session, Data: data}
	p.next++
	p.latest = max(p.latest, e.Time)
	p.held = append(p.held, e)
	p.octets += len(data)
	if !p.syncing {
		p.syncing = true
		p.later(p.w.between(0, p.w.mood.slow), p.sync)
	}
	if p.w.bug == ReadBeforeSync {
		p.work()
	}
	return e.Position
}

// obey puts interim intervals that answers asked for into the journal.
func (p *process) obey(_ context.Context, list []acct.InterimInterval) error {
	if p.w.full {
		return errFull
	}
	p.w.log("answers ask for intervals: %v", list)
	p.append(acct.EntryInterim, 0, acct.AppendInterimIntervals(nil, list))
	return nil
}

// clockTolerance is how far the pipeline's clock may be ahead of the host's.
const clockTolerance = 5 * time.Second

// watchClock sets the pipeline's clock back if the host's has gone back.
func (p *process) watchClock() {
	if p.module != nil {
		p.latest = max(p.latest, p.module.Stats().Clock)
	}
	if p.latest <= p.w.wall()+int64(clockTolerance) {
		return
	}
	p.w.log("the pipeline's clock is ahead by %v", time.Duration(p.latest-p.w.wall()))
	c := asm.Command{What: asm.SetClock, By: "tollbridge", Reason: "the host's clock went back"}
	data, err := c.AppendBinary(nil)
	if err != nil {
		p.w.fail("command: %v", err)
	}
	p.latest = 0
	p.append(acct.EntryCommand, 0, data)
}

// sync makes what was appended durable: groups of any size, then one fsync.
func (p *process) sync() {
	w := p.w
	w.mayCrash("journal filled")
	if w.full && w.chance(0.8) {
		w.log("sync of the journal fails: %v", errFull)
		p.later(time.Second, p.sync)
		return
	}
	for rest := p.held; len(rest) > 0; {
		n := 1 + w.rng.IntN(len(rest))
		w.disk.write(rest[:n])
		w.mayCrash("group written")
		rest = rest[n:]
	}
	if err := w.disk.disk.sync(); err != nil {
		w.fail("sync: %v", err)
	}
	w.mayCrash("journal synced")
	p.durable = p.next - 1
	p.held, p.octets, p.syncing = nil, 0, false
	w.truth.follow()
	w.log("journal durable up to %d", p.durable)
	n := 0
	for _, a := range p.acks {
		if a.position <= p.durable {
			a.give()
			continue
		}
		p.acks[n] = a
		n++
	}
	p.acks = p.acks[:n]
	p.work()
}

// blocked reports whether the journal takes no more for now.
func (p *process) blocked() bool { return p.octets > 1500 }

// tcp takes a Message of a stream.
func (p *process) tcp(s *stream, m *message) {
	if s.session == 0 {
		s.session = p.openSession(ipfix.TCP, s.exporter.name, s.remote)
	}
	p.check(m)
	at := p.append(acct.EntryMessage, s.session, m.octets)
	p.w.log("message of %s at %d over tcp session %d: %v", s.exporter.name, at, s.session, m)
	if !s.exporter.wantsAcks {
		return
	}
	give := func() { s.exporter.told(s, m, p.w.between(0, 300*time.Millisecond)) }
	if p.w.bug == AckBeforeSync {
		give()
		return
	}
	p.acks = append(p.acks, ack{at, give})
}

// closed notes that a stream has ended.
func (p *process) closed(s *stream) {
	if s.session != 0 {
		p.append(acct.EntryClose, s.session, nil)
	}
}

// udp takes a datagram.
func (p *process) udp(e *exporter, remote netip.AddrPort, m *message) {
	if p.blocked() {
		p.w.log("datagram of %s is dropped", e.name)
		return
	}
	s := p.datagrams[remote]
	if s == nil {
		s = &udpSession{number: p.openSession(ipfix.UDP, e.name, remote)}
		p.datagrams[remote] = s
	}
	s.used = p.w.now
	p.check(m)
	at := p.append(acct.EntryMessage, s.number, m.octets)
	p.w.log("message of %s at %d over udp session %d: %v", e.name, at, s.number, m)
	if p.w.chance(0.01) { // idle for long, or pushed out by others
		p.later(p.w.between(time.Second, time.Minute), func() {
			if p.datagrams[remote] == s {
				delete(p.datagrams, remote)
				p.append(acct.EntryClose, s.number, nil)
			}
		})
	}
}

func (p *process) check(m *message) {
	if err := ipfix.Validate(m.octets); err != nil {
		p.w.fail("a message that was sent well is malformed: %v", err)
	}
}

func (p *process) openSession(t ipfix.Transport, exporter string, remote netip.AddrPort) uint64 {
	info := asm.SessionInfo{Transport: t, Exporter: exporter, Remote: remote, Local: collectorAddress}
	data, err := info.AppendBinary(nil)
	if err != nil {
		p.w.fail("session info: %v", err)
	}
	p.w.truth.infos[string(data)] = info
	return p.append(acct.EntryOpen, 0, data)
}

var collectorAddress = netip.MustParseAddrPort("198.51.100.250:4739")

// load makes the pipeline from the last checkpoint.
func (p *process) load() {
	m, err := asm.New(p.w.ctx, asm.Config{Store: p.w.disk, Journal: p.w.disk, Weaken: p.w.mood.weaken()})
	if err != nil {
		p.w.fail("the pipeline does not load: %v", err)
	}
	p.module, p.dirty = m, false
	p.position = m.Stats().Position
	p.trim()
	p.w.log("pipeline loaded at %d", p.position)
	p.work()
	p.tick()
}

// work lets the pipeline take a step if there is something to do.
func (p *process) work() {
	if !p.busy {
		p.busy = true
		p.later(p.w.between(0, 200*time.Millisecond), p.pipeline)
	}
}

// pipeline applies some entries and, at times, makes a checkpoint.
func (p *process) pipeline() {
	w := p.w
	if p.module == nil {
		return
	}
	p.busy = false
	entries, err := w.disk.entries(p.position, 1+w.rng.IntN(20))
	if err != nil {
		w.fail("the journal does not read behind %d: %v", p.position, err)
	}
	if w.bug == ReadBeforeSync && len(entries) == 0 {
		for _, e := range p.held {
			if e.Position > p.position {
				entries = append(entries, e)
			}
		}
	}
	for _, e := range entries {
		// Data is good until the next call, and the pipeline must know.
		p.scratch = append(p.scratch[:0], e.Data...)
		e.Data = p.scratch
		if err := p.module.Apply(w.ctx, e); err != nil {
			p.failed(err)
			return
		}
		for i := range p.scratch {
			p.scratch[i] = 0xaa
		}
		p.position, p.dirty = e.Position, true
		w.mayCrash("entry applied")
	}
	switch {
	case p.dirty && w.chance(0.3):
		p.checkpoint()
	case p.dirty && !p.due:
		p.due = true
		p.later(w.between(0, 2*time.Second), func() {
			p.due = false
			p.checkpoint()
		})
	}
	if w.proc == p {
		p.tick()
		if len(entries) > 0 {
			p.work()
		}
	}
}

// checkpoint stores what the pipeline has done, then trims the journal.
func (p *process) checkpoint() {
	w := p.w
	if p.module == nil {
		return
	}
	if w.bug == UntimelyTrim {
		w.disk.Trim(w.ctx, p.position+1) //nolint:errcheck // the bug that is planted
	}
	if err := p.module.Checkpoint(w.ctx); err != nil {
		p.failed(err)
		return
	}
	p.dirty = false
	p.trim()
	if w.chance(0.1) {
		if _, err := w.disk.books(); err != nil {
			w.fail("the books do not balance at %d:\n%v", p.position, err)
		}
	}
	p.deliver()
}

// trim drops what the pipeline needs no more of the journal.
func (p *process) trim() {
	needed := p.module.Needed()
	if p.w.bug == EarlyTrim {
		needed = p.position + 1
	}
	if err := p.w.disk.Trim(p.w.ctx, needed); err != nil && !errors.Is(err, errFull) {
		p.w.fail("trim below %d: %v", needed, err)
	}
}

// failed goes on at the last checkpoint, as the daemon does.
func (p *process) failed(err error) {
	if !errors.Is(err, errFull) {
		p.w.fail("the pipeline fails: %v", err)
	}
	p.w.log("the pipeline has failed: %v", err)
	p.w.report.Reloads++
	p.module = nil
	p.busy, p.due = true, true
	p.later(p.w.between(100*time.Millisecond, 2*time.Second), func() {
		p.busy, p.due = false, false
		p.load()
	})
}

// tick puts the time into the journal when the pipeline waits for it.
func (p *process) tick() {
	if p.module == nil {
		return
	}
	d := p.module.Deadline()
	p.ticking++
	timer := p.ticking
	if d.IsZero() {
		return
	}
	due := d.UnixNano()
	wait := time.Duration(due - p.w.wall())
	if due == p.ticked {
		wait = max(wait, 5*time.Second) // the clock has gone back, or the tick is under way
	}
	p.later(wait, func() {
		if p.ticking == timer {
			p.ticked = due
			p.append(acct.EntryTick, 0, nil)
			p.tick()
		}
	})
}
