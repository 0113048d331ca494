package collect

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"tollbridge/internal/sctp"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
)

// A Durability says how far what a Journal took is safe. With one, exporters
// that ask for acknowledged export (package ack, docs/acknowledged-export.md)
// get it. Its methods are called by several goroutines at once.
type Durability interface {
	// Wait returns nil when what Journal returned as position is durable. An
	// error but that of ctx is final.
	Wait(ctx context.Context, position uint64) error

	// HeldUp says why Wait, or the Journal, takes long.
	HeldUp() ack.Reason
}

const (
	patience     = time.Second      // after which an exporter is told that it is held up
	answerLimit  = 10 * time.Second // for the kernel to take an answer; an exporter that does not read gets none
	maxPullAreas = 64               // prefixes of one Pull
)

// An answerer speaks to the exporter on one connection, once that has asked
// for it. A connection of a plain exporter is never written to.
//
//	serve ── Messages ──► Journal
//	  │ identities               │ durable
//	  └─────────► run ◄──────────┘
//	               └── acknowledgements, hold-ups, pulls ──► exporter
type answerer struct {
	p        *Process
	conn     net.Conn
	exporter string
	remote   netip.AddrPort
	watcher  *ack.Watcher // of the goroutine that reads
	started  bool         // likewise
	blocked  atomic.Int64 // since when the Journal takes a Message, Unix nanoseconds; 0 if it does not

	kick   chan struct{} // there is something to say
	stop   chan struct{} // closed when the connection has ended
	ended  chan struct{} // closed when run has
	silent func()        // closes stop, once

	mu       sync.Mutex
	identity ack.Identity // of the latest Message in the Journal
	position uint64       // its place there
	told     uint64       // of the latest that was acknowledged
	moved    chan struct{}
	requests []ack.Pull // to be sent
	pulls    map[uint64]chan pullDone
	failed   bool // nothing can be said any more
}

type pullDone struct {
	ack.PullAnswer
	position uint64 // of the Message in the Journal
}

// answer returns the answerer of a connection, nil where nobody is answered.
func (p *Process) answer(conn net.Conn, e *exporter, remote netip.AddrPort) *answerer {
	if p.cfg.Acknowledge == nil {
		return nil
	}
	a := &answerer{
		p: p, conn: conn, exporter: e.name, remote: remote, watcher: ack.NewWatcher(p.cfg.Enterprise),
		kick: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
		moved: make(chan struct{}), pulls: make(map[uint64]chan pullDone),
	}
	a.silent = sync.OnceFunc(func() { close(a.stop) })
	p.answerers.Store(conn, a)
	return a
}

// answering returns the answerer of a connection whose exporter asked for
// answers, nil if it did not.
func (p *Process) answering(conn net.Conn) *answerer {
	v, ok := p.answerers.Load(conn)
	if !ok {
		return nil
	}
	return v.(*answerer)
}

// message takes note of a Message that the Journal has at position.
func (a *answerer) message(msg []byte, position uint64) {
	a.watcher.Message(msg, func(l *ack.Layout, r ipfix.Record, front bool) {
		switch {
		case l.Kind == ack.KindIdentity && front:
			id := l.Identity(r)
			if id.Wants&ack.Acknowledgements == 0 {
				return
			}
			a.begin(id)
			a.mu.Lock()
			if id.Instance == a.identity.Instance { // others' Messages, passed on, are not ours to answer
				a.identity, a.position = id, position
			}
			a.mu.Unlock()
			a.wake()
		case l.Kind == ack.KindPullAnswer:
			w := l.PullAnswer(r)
			a.mu.Lock()
			if done := a.pulls[w.Request]; done != nil {
				delete(a.pulls, w.Request)
				done <- pullDone{w, position}
			}
			a.mu.Unlock()
		}
	})
}

// ahead looks for the first Identity in Messages that are still to be
// journaled: should they wait for the Journal, the exporter is told why.
func (a *answerer) ahead(messages iter.Seq[[]byte]) {
	w := ack.NewWatcher(a.p.cfg.Enterprise)
	for msg := range messages {
		if a.started || ipfix.Validate(msg) != nil {
			return
		}
		w.Message(msg, func(l *ack.Layout, r ipfix.Record, front bool) {
			if l.Kind != ack.KindIdentity || !front {
				return
			}
			if id := l.Identity(r); id.Wants&ack.Acknowledgements != 0 {
				a.begin(id)
			}
		})
	}
}

// begin begins to answer an exporter, whose first Identity this is.
func (a *answerer) begin(id ack.Identity) {
	if a.started {
		return
	}
	a.started = true
	a.mu.Lock()
	a.identity = id
	a.mu.Unlock()
	a.p.logAcknowledged(a, id)
	go a.run()
}

func (a *answerer) wake() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// run says what there is to say until the connection ends.
func (a *answerer) run() {
	defer close(a.ended)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-a.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	s := newSpeaker(a)
	look := time.NewTicker(patience)
	defer look.Stop()
	held := false
	for {
		a.mu.Lock()
		id, position, behind, requests := a.identity, a.position, a.position > a.told, a.requests
		a.requests = nil
		a.mu.Unlock()
		err := s.pulls(requests)
		if err == nil && behind {
			err = a.p.wait(ctx, position)
			if err == nil {
				err = s.acknowledge(id)
				held = false
				a.tell(position)
			} else if errors.Is(err, context.DeadlineExceeded) {
				err = s.hold(id.Instance, &held, a.p.cfg.Acknowledge.HeldUp())
			} else if ctx.Err() == nil {
				_ = s.heldUp(id.Instance, ack.Failing) // the connection ends anyway
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			a.fail(err)
			return
		}
		select {
		case <-a.stop:
			a.fail(net.ErrClosed)
			return
		case <-a.kick:
		case now := <-look.C:
			if since := a.blocked.Load(); since != 0 && now.UnixNano()-since > int64(patience) {
				if err := s.hold(id.Instance, &held, a.p.cfg.Acknowledge.HeldUp()); err != nil {
					a.fail(err)
					return
				}
			}
		}
	}
}

// wait waits until a position is durable, for as long as patience is.
func (p *Process) wait(ctx context.Context, position uint64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.cfg.Acknowledge.Wait(ctx, position)
}

// tell notes what was acknowledged.
func (a *answerer) tell(position uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = position
	a.move()
}

// move wakes who waits on moved. a.mu is held.
func (a *answerer) move() {
	close(a.moved)
	a.moved = make(chan struct{})
}

// fail ends all that waits.
func (a *answerer) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = true
	a.move()
	for request, done := range a.pulls {
		delete(a.pulls, request)
		close(done)
	}
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.Canceled) {
		a.p.cfg.Log.Warn("exporter can't be answered", "exporter", a.exporter, "remote", a.remote, "error", err)
	}
}

// last waits until all that was read is acknowledged, or for StopTimeout. The
// reader may go on meanwhile.
func (a *answerer) last() {
	a.mu.Lock()
	upTo := a.position
	a.mu.Unlock()
	timer := time.NewTimer(a.p.cfg.StopTimeout)
	defer timer.Stop()
	for {
		a.mu.Lock()
		done, moved := a.told >= upTo || a.failed, a.moved
		a.mu.Unlock()
		if done {
			return
		}
		select {
		case <-moved:
		case <-timer.C:
			return
		}
	}
}

// finish acknowledges what was read of a connection that has ended, as far as
// the exporter still reads, and ends run.
func (a *answerer) finish() {
	a.p.answerers.Delete(a.conn)
	if a.started {
		a.last()
		a.silent()
		<-a.ended
	}
}

// A speaker writes answers: conforming Messages of an Observation Domain of
// our own, 0, which is that of the whole process (RFC 7011, Section 3.1).
type speaker struct {
	conn            net.Conn
	encoder         *ipfix.Encoder
	acknowledgement *ipfix.Template
	held            *ipfix.Template
	pull            *ipfix.Template
	record          []byte
	said            map[*ipfix.Template]bool // it was sent
	reminder        time.Time                // when hold spoke last
	now             func() time.Time
	heldUps, acks   *atomic.Uint64
}

func newSpeaker(a *answerer) *speaker {
	n := a.p.cfg.Enterprise
	return &speaker{
		conn: a.conn, encoder: ipfix.NewEncoder(0, 0), said: make(map[*ipfix.Template]bool), now: a.p.cfg.Now,
		acknowledgement: ack.AcknowledgementTemplate(n), held: ack.HeldUpTemplate(n), pull: ack.PullTemplate(n),
		heldUps: &a.p.heldUps, acks: &a.p.acknowledgements,
	}
}

func (s *speaker) add(t *ipfix.Template, record []byte) error {
	s.record = record[:0]
	if !s.said[t] {
		s.said[t] = true
		if err := s.encoder.AddTemplate(t); err != nil {
			return err
		}
	}
	return s.encoder.AppendRecord(t, record)
}

func (s *speaker) say() error {
	msg := s.encoder.Flush(uint32(s.now().Unix()))
	if msg == nil {
		return nil
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	if assoc, ok := s.conn.(*sctp.Conn); ok {
		return assoc.WriteMessage(msg, sctp.Message{})
	}
	_, err := s.conn.Write(msg)
	return err
}

func (s *speaker) acknowledge(id ack.Identity) error {
	a := ack.Acknowledgement{Instance: id.Instance, Position: id.Position, Version: min(id.Version, ack.Version)}
	if err := s.add(s.acknowledgement, a.Append(s.record[:0])); err != nil {
		return err
	}
	s.acks.Add(1)
	return s.say()
}

// hold says that the exporter is held up, and again from time to time.
func (s *speaker) hold(i ack.Instance, held *bool, reason ack.Reason) error {
	const again = 10 * time.Second
	if *held && time.Since(s.reminder) < again {
		return nil
	}
	*held, s.reminder = true, time.Now()
	s.heldUps.Add(1)
	return s.heldUp(i, reason)
}

func (s *speaker) heldUp(i ack.Instance, r ack.Reason) error {
	if err := s.add(s.held, ack.HeldUp{Instance: i, Reason: r}.Append(s.record[:0])); err != nil {
		return err
	}
	return s.say()
}

func (s *speaker) pulls(requests []ack.Pull) error {
	for _, r := range requests {
		if err := s.add(s.pull, r.Append(s.record[:0])); err != nil {
			return err
		}
	}
	return s.say()
}

// A Pulled is what became of a Pull at one exporter.
type Pulled struct {
	Exporter string
	Remote   netip.AddrPort
	Instance ack.Instance
	Result   ack.Result
	Time     time.Time // up to when packets are in what came
	Position uint64    // in the Journal: all that came is up to there
	Err      error     // the exporter did not answer
}

// Pull asks all exporters that are connected, and can, to export now what
// their flow caches have of addresses (RFC 5472, Section 4.4); ack.All is of
// all. It returns when each has answered, its connection has ended, or ctx
// has.
func (p *Process) Pull(ctx context.Context, of []netip.Prefix) []Pulled {
	var all []*answerer
	p.answerers.Range(func(_, v any) bool {
		a := v.(*answerer)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.identity.Wants&ack.Pulls != 0 && !a.failed {
			all = append(all, a)
		}
		return true
	})
	results := make([]Pulled, len(all))
	var g sync.WaitGroup
	for i, a := range all {
		g.Go(func() { results[i] = a.pull(ctx, of) })
	}
	g.Wait()
	return results
}

// pull is Pull for one exporter.
func (a *answerer) pull(ctx context.Context, of []netip.Prefix) Pulled {
	result := Pulled{Exporter: a.exporter, Remote: a.remote}
	if len(of) > maxPullAreas {
		of = []netip.Prefix{ack.All}
	}
	answers := make(chan pullDone, len(of))
	a.mu.Lock()
	result.Instance = a.identity.Instance
	if a.failed {
		a.mu.Unlock()
		result.Err = errGone
		return result
	}
	var requests []uint64
	for _, prefix := range of {
		r := ack.Pull{Request: rand.Uint64(), Prefix: prefix}
		one := make(chan pullDone, 1)
		a.pulls[r.Request] = one
		a.requests = append(a.requests, r)
		requests = append(requests, r.Request)
		go func() { answers <- <-one }()
	}
	a.mu.Unlock()
	a.wake()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, r := range requests {
			if one := a.pulls[r]; one != nil {
				delete(a.pulls, r)
				close(one)
			}
		}
	}()
	for range of {
		select {
		case <-ctx.Done():
			result.Err = fmt.Errorf("collect: pull: %w", ctx.Err())
			return result
		case done := <-answers:
			if done.position == 0 {
				result.Err = errGone
				return result
			}
			if result.Time.IsZero() || done.Time.Before(result.Time) {
				result.Time = done.Time
			}
			result.Position = max(result.Position, done.position)
			result.Result = max(result.Result, done.Result)
		}
	}
	return result
}

var errGone = errors.New("collect: pull: the connection has ended")
