package export

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"tollbridge/internal/sctp"
	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
	"tollbridge/ipfix/export/backlog"
)

// batchOctets is about how much is handed to the kernel at once.
const batchOctets = 64 << 10

// maxPulls is how many requests for the flow cache are served at once.
const maxPulls = 16

// An association is one connection of acknowledged export. One goroutine
// sends; another, listen, hears what the Collecting Process says.
//
//	Backlog ──► sendKept ── Messages ──► Collecting Process
//	   ▲                                        │
//	   └── frees ◄── listen ◄── acknowledgements, pulls
type association struct {
	*Process
	conn      net.Conn
	reader    *backlog.Reader
	announced map[uint16]announcement // what the Collecting Process was sent
	sequence  uint32
	clock     clock
	flight    []uint64 // positions sent and not known to be acknowledged
	out       []byte   // Messages to be sent
	cuts      []int    // where each ends
	counted   Stats

	ended   chan error // receives why listen ended, nil for an orderly close; closed after that
	pulls   sync.WaitGroup
	pulling atomic.Int32

	mu      sync.Mutex
	heard   bool      // anything at all
	heldUp  bool      // what was heard last is no acknowledgement
	waiting time.Time // since when something is under way, or the last news
}

// An announcement is a Template, or Options Template, as its record.
type announcement struct {
	options bool
	record  string
}

// sendKept is send with acknowledgements: it sends what the Backlog has from
// the oldest Message that is not acknowledged on.
func (p *Process) sendKept(ctx context.Context, on link, found <-chan struct{}) error {
	listening, hangUp := context.WithCancel(ctx)
	a := &association{
		Process: p, conn: on.conn, reader: p.keeping.backlog.Reader(p.tellDamaged),
		announced: make(map[uint16]announcement), ended: make(chan error, 1),
	}
	go a.listen(listening)
	defer func() {
		hangUp()
		on.conn.Close()
		for range a.ended { // until listen has ended
		}
		a.pulls.Wait()
		_ = a.reader.Close() // it was only read
	}()
	defer context.AfterFunc(ctx, func() { on.conn.Close() })() // ends a write that blocks

	linger := time.NewTicker(p.cfg.Linger)
	defer linger.Stop()
	said, unsafe := false, false
	for {
		select {
		case err := <-a.ended:
			return p.ended(ctx, on, err)
		case <-found:
			return p.moved(ctx, on, a)
		default:
		}
		n, err := a.sendBatch()
		p.sent(0, a.take())
		switch {
		case err != nil:
			return p.ended(ctx, on, err)
		case n > 0:
			continue // there may be more
		case p.drained():
			return a.finish(ctx)
		}
		select {
		case err := <-a.ended:
			return p.ended(ctx, on, err)
		case <-ctx.Done():
			return ctx.Err()
		case <-found:
			return p.moved(ctx, on, a)
		case <-linger.C:
			p.mu.Lock()
			p.storeLocked()
			p.mu.Unlock()
			err := p.keeping.backlog.Sync()
			if err != nil && !unsafe {
				p.cfg.Log.Error("the spool can't be made safe from a power cut", "error", err)
			}
			unsafe = err != nil
			silent, heard := a.silent()
			switch {
			case !silent:
			case len(p.cfg.Backups) > 0:
				return p.ended(ctx, on, errSilent)
			case !heard && !said:
				said = true
				p.cfg.Log.Error("collecting process acknowledges nothing: does it know acknowledged export? What was sent is kept", "collector", on.to.address)
			}
		case <-p.ready:
		}
	}
}

var errSilent = errors.New("nothing was acknowledged for long")

func (a *association) take() Stats {
	c := a.counted
	a.counted = Stats{}
	return c
}

// sendBatch sends what comes next, as far as the window allows, and returns
// how many Messages that are.
func (a *association) sendBatch() (int, error) {
	k := a.keeping
	room := k.Window - a.underWay()
	before := k.backlog.LastSent()
	now := time.Now()
	a.out, a.cuts = a.out[:0], a.cuts[:0]
	n, counted := 0, Stats{}
	for n < min(room, batchMessages) && len(a.out) < batchOctets {
		e, ok, err := a.reader.Next()
		if err != nil && n == 0 {
			return 0, err
		}
		if err != nil || !ok {
			break // what came before goes first
		}
		start := len(a.out)
		if e.Kind == backlog.Template {
			if err := a.announce(e, now); err != nil {
				return 0, err
			}
			if len(a.out) > start {
				a.cuts = append(a.cuts, len(a.out))
				counted.TemplateMessages++
			}
			continue
		}
		a.out = append(a.out, e.Octets...)
		a.cuts = append(a.cuts, len(a.out))
		ipfix.Header{Length: uint16(len(e.Octets)), ExportTime: a.clock.data(now), Sequence: a.sequence, Domain: k.domain}.Append(a.out[start:start])
		a.sequence += e.Records
		a.flight = append(a.flight, e.Position)
		n++
		if e.Position <= before {
			counted.Resent++
		} else {
			counted.Messages++
			counted.Records += uint64(e.Records) - 1
		}
	}
	if len(a.out) == 0 {
		return 0, nil
	}
	if n > 0 {
		if err := k.backlog.Sending(); err != nil {
			return 0, err
		}
	}
	if err := a.write(); err != nil {
		return 0, err
	}
	a.counted = counted
	a.counted.Octets = uint64(len(a.out))
	return n, nil
}

// underWay returns how many Messages were sent and not acknowledged.
func (a *association) underWay() int {
	acked := a.keeping.backlog.Acknowledged()
	i := 0
	for i < len(a.flight) && a.flight[i] <= acked {
		i++
	}
	a.flight = a.flight[:copy(a.flight, a.flight[i:])]
	a.mu.Lock()
	if len(a.flight) == 0 || i > 0 || a.waiting.IsZero() {
		a.waiting = time.Now()
	}
	a.mu.Unlock()
	return len(a.flight)
}

// silent reports whether something has waited for too long to be acknowledged,
// and whether the Collecting Process has ever said anything.
func (a *association) silent() (silent, heard bool) {
	under := a.underWay()
	a.mu.Lock()
	defer a.mu.Unlock()
	return under > 0 && time.Since(a.waiting) > a.keeping.Silence, a.heard
}

// announce appends a Message with a Template that the Collecting Process does
// not have, and withdraws before what had its ID.
func (a *association) announce(e backlog.Entry, now time.Time) error {
	id, definition := uint16(e.Position), announcement{e.Options, string(e.Octets)}
	known, ok := a.announced[id]
	if ok && known == definition {
		return nil
	}
	t, _, err := ipfix.ParseTemplate(e.Octets, e.Options)
	if err != nil {
		return fmt.Errorf("export: a template of the spool: %w", err)
	}
	m := ipfix.NewEncoder(a.keeping.domain, ipfix.MaxMessage)
	if ok {
		old, _, err := ipfix.ParseTemplate([]byte(known.record), known.options)
		if err == nil {
			err = m.Withdraw(old)
		}
		if err != nil {
			return fmt.Errorf("export: a template of the spool: %w", err)
		}
	}
	if err := m.AddTemplate(t); err != nil {
		return fmt.Errorf("export: a template of the spool: %w", err)
	}
	a.announced[id] = definition
	start := len(a.out)
	a.out = append(a.out, m.Flush(0)...)
	ipfix.Header{Length: uint16(len(a.out) - start), ExportTime: a.clock.templates(now), Sequence: a.sequence, Domain: a.keeping.domain}.Append(a.out[start:start])
	return nil
}

// write hands out to the kernel: SCTP as one message each, all over stream 0,
// which keeps their order.
func (a *association) write() error {
	assoc, ok := a.conn.(*sctp.Conn)
	if !ok {
		_, err := a.conn.Write(a.out)
		return err
	}
	start := 0
	for _, end := range a.cuts {
		if err := assoc.WriteMessage(a.out[start:end], sctp.Message{}); err != nil {
			return err
		}
		start = end
	}
	return nil
}

// finish closes our end and waits for the Collecting Process, which
// acknowledges what it has and then closes its own.
func (a *association) finish(ctx context.Context) error { return hangUp(ctx, a.conn, a.ended) }

// listen hears what the Collecting Process says until the connection ends.
func (a *association) listen(ctx context.Context) {
	defer close(a.ended)
	next := a.frames()
	w := ack.NewWatcher(a.keeping.Enterprise)
	for {
		msg, err := next()
		if err == nil {
			err = ipfix.Validate(msg)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			a.ended <- err
			return
		}
		w.Message(msg, func(l *ack.Layout, r ipfix.Record, _ bool) { a.hear(ctx, l, r) })
	}
}

// frames returns what reads one Message after the other. Each is valid until
// the next call; the error is io.EOF after the last.
func (a *association) frames() func() ([]byte, error) {
	buf := make([]byte, ipfix.MaxMessage)
	if assoc, ok := a.conn.(*sctp.Conn); ok {
		return func() ([]byte, error) {
			n, _, err := assoc.ReadMessage(buf)
			return buf[:n], err
		}
	}
	r := bufio.NewReader(a.conn)
	return func() ([]byte, error) {
		if _, err := io.ReadFull(r, buf[:ipfix.HeaderLength]); err != nil {
			return nil, err
		}
		h, err := ipfix.ParseHeader(buf[:ipfix.HeaderLength])
		if err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(r, buf[ipfix.HeaderLength:h.Length]); err != nil {
			return nil, errors.Join(io.ErrUnexpectedEOF, err)
		}
		return buf[:h.Length], nil
	}
}

// hear takes in one record of the Collecting Process.
func (a *association) hear(ctx context.Context, l *ack.Layout, r ipfix.Record) {
	k := a.keeping
	a.mu.Lock()
	a.heard = true
	a.mu.Unlock()
	switch l.Kind {
	case ack.KindAcknowledgement:
		if w := l.Acknowledgement(r); w.Instance == ack.Instance(k.backlog.Instance()) {
			a.acknowledged(w.Position)
		}
	case ack.KindHeldUp:
		w := l.HeldUp(r)
		a.mu.Lock()
		news := !a.heldUp
		a.heldUp = true
		a.mu.Unlock()
		if news {
			a.Process.mu.Lock()
			a.counts.HeldUp++
			a.Process.mu.Unlock()
			a.cfg.Log.Warn("collecting process is held up: what is exported waits in the spool", "collector", a.conn.RemoteAddr(), "why", w.Reason)
		}
	case ack.KindPull:
		a.pulled(ctx, l.Pull(r))
	}
}

// acknowledged lets go of all up to a position.
func (a *association) acknowledged(position uint64) {
	news, err := a.keeping.backlog.Acknowledge(position)
	if err != nil {
		a.cfg.Log.Warn("the spool can't note what was acknowledged: it may be sent again", "error", err)
	}
	if !news {
		return
	}
	a.mu.Lock()
	a.waiting = time.Now()
	relieved := a.heldUp
	a.heldUp = false
	a.mu.Unlock()
	if relieved {
		a.cfg.Log.Info("collecting process goes on", "collector", a.conn.RemoteAddr())
	}
	a.Process.mu.Lock()
	a.counts.Answers++
	a.progressLocked()
	a.Process.mu.Unlock()
	a.wake() // the window has moved, or all is done
}

// pulled serves a request for what is in the flow cache.
func (a *association) pulled(ctx context.Context, w ack.Pull) {
	k := a.keeping
	a.Process.mu.Lock()
	a.counts.Pulls++
	a.Process.mu.Unlock()
	answer := ack.PullAnswer{Request: w.Request, Result: ack.Refused, Time: time.Now()}
	a.pulling.Add(1)
	a.pulls.Go(func() {
		defer a.pulling.Add(-1)
		if k.Pull != nil && w.Prefix.IsValid() && a.pulling.Load() <= maxPulls {
			at, err := k.Pull(ctx, w.Prefix)
			answer.Time, answer.Result = at, ack.Done
			if err != nil {
				answer.Time, answer.Result = time.Now(), ack.Failed
				a.cfg.Log.Warn("the flow cache can't be exported on request", "error", err)
			}
		}
		a.Process.mu.Lock()
		defer a.Process.mu.Unlock()
		if err := a.addLocked(ctx, k.pullAnswer, answer.Append(nil)); err == nil {
			a.storeLocked() // it does not wait for company
		}
	})
}
