// Package export is an IPFIX Exporting Process (RFC 7011) over UDP, TCP, TLS,
// DTLS and SCTP, for one Observation Domain. It exports to one Collecting Process
// at a time, and to another while that can't be reached; a Duplicate exports
// to several at once.
//
// Over SCTP and TCP, with TLS or without, a Process keeps what it could not hand to the kernel and sends it
// on the next connection; where its buffer is full, Export blocks. What the
// kernel took but could not deliver when a connection broke is lost, as TCP
// does not tell how far the Collecting Process got. An orderly end, by
// whichever side, loses nothing. Over UDP and DTLS anything may be lost.
package export

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tollbridge/ipfix"
	"tollbridge/ipfix/ack"
)

// Errors of Export.
var (
	ErrClosed   = errors.New("exporting process is closed")
	ErrTemplate = errors.New("template ID is in use by a different template: give it a free one, or a Process of its own")
	ErrRelative = errors.New("times told from the Export Time can't be exported with acknowledgements, as each sending has another: use absolute times")
)

// A Process is an Exporting Process. All its methods may be called at once.
type Process struct {
	cfg        Config
	unmeasured int // octets of a Message over UDP while nobody knows the path's MTU
	backoff    backoff
	tls        atomic.Pointer[TLS]

	ready chan struct{} // a Message was queued, or closing began
	done  chan struct{} // Run has ended
	err   error         // of Run, once done

	mu        sync.Mutex
	encoder   *ipfix.Encoder    // the Message that is being filled
	longest   int               // that it may become, in octets
	templates []*ipfix.Template // in the order of their first use
	byID      map[uint16]*ipfix.Template
	last      *ipfix.Template // the one used last; records come in runs
	queue     queue
	keeping   *keeping      // nil unless Config.Acknowledged
	skipped   int           // records dropped since the latest Message was cut
	progress  chan struct{} // closed, and nil again, when the queue gets shorter
	cancel    func()        // ends Run; nil before it
	closing   bool
	counts    Stats
}

// New checks cfg and returns a Process that connects to nobody yet.
func New(cfg Config) (*Process, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	unmeasured := cmp.Or(cfg.MaxMessage, cfg.unmeasuredMessage())
	orDefault(&cfg.MaxMessage, cfg.defaultMaxMessage())
	orDefault(&cfg.Streams, 1)
	if cfg.Streams < 1 || cfg.Streams > maxStreams {
		return nil, fmt.Errorf("export: Config.Streams: %d is not within 1 and %d", cfg.Streams, maxStreams)
	}
	orDefault(&cfg.TemplateRefresh, 10*time.Minute)
	orDefault(&cfg.TemplateRefreshMessages, 1000)
	orDefault(&cfg.Reconnect, time.Minute)
	orDefault(&cfg.MaxReconnect, 10*cfg.Reconnect)
	if cfg.Reconnect < 0 || cfg.MaxReconnect < cfg.Reconnect {
		return nil, fmt.Errorf("export: Config.Reconnect, Config.MaxReconnect: %v to %v is no span of time", cfg.Reconnect, cfg.MaxReconnect)
	}
	orDefault(&cfg.ConnectTimeout, 30*time.Second)
	orDefault(&cfg.Linger, time.Second)
	orDefault(&cfg.Buffer, 8<<20)
	longest := ipfix.MaxMessage
	if cfg.Transport == ipfix.DTLS {
		longest = maxDTLSMessage
	}
	if cfg.MaxMessage < minMessage || cfg.MaxMessage > longest {
		return nil, fmt.Errorf("export: Config.MaxMessage: %d is not within %d and %d", cfg.MaxMessage, minMessage, longest)
	}
	if cfg.Dial == nil {
		cfg.Dial = newDialer().DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Process{
		cfg:        cfg,
		unmeasured: unmeasured,
		backoff:    backoff{cfg.Reconnect, cfg.MaxReconnect},
		ready:      make(chan struct{}, 1),
		done:       make(chan struct{}),
		encoder:    ipfix.NewEncoder(cfg.Domain, cfg.MaxMessage),
		longest:    cfg.MaxMessage,
		byID:       make(map[uint16]*ipfix.Template),
	}
	if cfg.Acknowledged != nil {
		var err error
		if p.keeping, err = newKeeping(*cfg.Acknowledged, cfg.Domain); err != nil {
			return nil, fmt.Errorf("export: Config.Acknowledged: %w", err)
		}
	}
	p.tls.Store(cfg.TLS)
	return p, nil
}

// Export adds one Data Record of t, or one record of options data, and copies
// it. Template IDs are the caller's: an ID stays with its Template as long as
// the Process lives, so that nothing has to be withdrawn (RFC 7011, Section
// 8.1) and no Collecting Process can take one Template for another. There are
// 65280 of them (Section 3.4.1); after that each new Template is ErrTemplate.
//
// Export blocks while the buffer is full, unless DropWhenFull is set. The error is ErrClosed, ErrTemplate,
// with Acknowledged ErrRelative, that of ctx, or ipfix.ErrLength where the octets are no record of t or too
// many for a Message.
func (p *Process) Export(ctx context.Context, t *ipfix.Template, record []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keeping != nil {
		return p.keepLocked(ctx, t, record)
	}
	for {
		if p.closing {
			return fmt.Errorf("export: %w", ErrClosed)
		}
		if t != p.last {
			if err := p.useLocked(t); err != nil {
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
		if p.queue.octets < p.cfg.Buffer {
			p.cutLocked()
		} else if p.cfg.DropWhenFull {
			p.skipped++
			p.counts.LostRecords++
			return nil
		} else if err := p.waitLocked(ctx); err != nil {
			return fmt.Errorf("export: buffer is full: %w", err)
		}
	}
}

// useLocked makes t known, so that it is sent before any record of it.
func (p *Process) useLocked(t *ipfix.Template) error {
	if p.keeping != nil && slices.ContainsFunc(t.Fields, relative) {
		return fmt.Errorf("template %d: %w", t.ID, ErrRelative)
	}
	if p.keeping != nil && t.ID >= ack.FirstReserved {
		return fmt.Errorf("template %d: IDs from %d on are those of acknowledged export: %w", t.ID, ack.FirstReserved, ErrTemplate)
	}
	u := p.byID[t.ID]
	if u == nil {
		if err := ipfix.NewEncoder(p.cfg.Domain, p.cfg.MaxMessage).AddTemplate(t); err != nil {
			return err
		}
		if p.keeping != nil {
			if err := p.keeping.define(t); err != nil {
				return err
			}
		}
		if p.keeping != nil && t.Scope == 0 && !slices.ContainsFunc(t.Fields, absolute) {
			p.cfg.Log.Warn("records say no absolute time: those that wait in the spool will seem to be of when they are sent", "template", t.ID)
		}
		p.templates = append(p.templates, t)
		p.byID[t.ID] = t
	} else if u.Scope != t.Scope || !slices.Equal(u.Fields, t.Fields) {
		return fmt.Errorf("template %d: %w", t.ID, ErrTemplate)
	}
	p.last = t
	return nil
}

// relative reports whether a field is told by its distance from the Export
// Time, which belongs to one sending of a Message.
func relative(f ipfix.FieldSpecifier) bool {
	return f.Enterprise == 0 && (f.ID == ipfix.FlowStartDeltaMicroseconds || f.ID == ipfix.FlowEndDeltaMicroseconds)
}

// absolute reports whether a field is, or makes up times into, an absolute time
// that a Collecting Process can take for a flow's.
func absolute(f ipfix.FieldSpecifier) bool {
	return f.Enterprise == 0 && (f.ID >= ipfix.FlowStartSeconds && f.ID <= ipfix.FlowEndNanoseconds || f.ID == ipfix.SystemInitTimeMilliseconds ||
		f.ID >= ipfix.ObservationTimeSeconds && f.ID <= ipfix.ObservationTimeNanoseconds)
}

// cutLocked ends the Message that is being filled and queues it.
func (p *Process) cutLocked() {
	if p.keeping != nil {
		p.storeLocked()
		return
	}
	if p.encoder.Len() == 0 {
		return
	}
	records := p.encoder.Records()
	p.queue.push(p.encoder.Flush(0), records, len(p.templates), p.skipped)
	p.skipped = 0
	p.wake()
}

// wake lets the sender look at the queue.
func (p *Process) wake() {
	select {
	case p.ready <- struct{}{}:
	default: // it has yet to see the last one
	}
}

// waitLocked waits until the queue has become shorter, Run has ended, or ctx
// has. It lets go of the lock meanwhile.
func (p *Process) waitLocked(ctx context.Context) error {
	if p.progress == nil {
		p.progress = make(chan struct{})
	}
	progress := p.progress
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-progress:
		return nil
	case <-p.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Flush returns when everything exported before it was handed to the kernel;
// with Acknowledged, when it is durable in the Backlog.
func (p *Process) Flush(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keeping != nil {
		return p.syncLocked(ctx)
	}
	p.cutLocked()
	for end := p.queue.pushed; p.queue.popped < end; {
		if err := p.waitLocked(ctx); err != nil {
			return fmt.Errorf("export: flush: %w", err)
		}
	}
	return nil
}

// Close flushes and ends Run, which must have been called or be about to be.
// Over TCP and TLS it then closes its end of the connection and waits for the
// Collecting Process to close the other, so that nil means that all was read,
// and is durable where that is another of ours, unless that was being stopped
// itself. Over SCTP, which knows no end of half an association, nil means that
// all has arrived. With Acknowledged nil means that all was acknowledged. When
// ctx ends it gives up; the error
// then says what was not sent. Export fails from here on.
func (p *Process) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closing = true
	p.cutLocked()
	p.mu.Unlock()
	p.wake()
	select {
	case <-p.done:
		return p.closed(p.err)
	case <-ctx.Done():
	}
	p.mu.Lock()
	cancel := p.cancel
	p.mu.Unlock()
	if cancel != nil {
		cancel()
		<-p.done
	}
	return p.closed(ctx.Err())
}

// closed returns the error of a Close: why Run ended, and what it left.
func (p *Process) closed(cause error) error {
	s := p.Stats()
	switch {
	case s.QueuedMessages > 0 && p.keeping != nil:
		return fmt.Errorf("export: close: %d messages are not acknowledged; they are kept, and sent at the next start: %w", s.QueuedMessages, cause)
	case s.QueuedMessages > 0:
		return fmt.Errorf("export: close: %d messages with %d records are unsent: %w", s.QueuedMessages, s.QueuedRecords, cause)
	case cause != nil && p.keeping == nil: // else all is acknowledged, however the connection ended
		return fmt.Errorf("export: close: not known to have been read to the end: %w", cause)
	}
	return nil
}
