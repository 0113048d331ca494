// Package entry reads entries of the journal back: one as people and programs
// want to see it, or many, to follow what the pipeline made of them.
package entry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/flowtext"
	"tollbridge/ipfix"
	"tollbridge/spool"
	"tollbridge/spool/archive"
)

// Show returns the entry at a position with its octets, from the journal,
// or from the archive in dir where the journal does not have it any more, or not
// the Templates that held when it came.
func Show(ctx context.Context, s *spool.Spool, dir string, position uint64) (*View, []byte, error) {
	t := &tracer{position: position}
	e, err := s.Journal().Read(ctx, position)
	switch last := s.Journal().Durable(); {
	case err == nil:
		known := true
		if e.Kind == acct.EntryMessage {
			if known, err = t.read(ctx, s, e); err != nil {
				return nil, nil, err
			}
		}
		if known || dir == "" {
			return t.view(e, "journal"), e.Data, nil
		}
	case !errors.Is(err, acct.ErrNoEntry):
		return nil, nil, err
	case position > last:
		return nil, nil, fmt.Errorf("position %d has no entry yet: the journal ends at %d", position, last)
	case dir == "" && errors.Is(err, spool.ErrTrimmed):
		return nil, nil, fmt.Errorf("position %d was trimmed from the journal, which keeps what spool.keepJournal says: name the archive with --archive DIR or -c FILE, if there is one", position)
	case dir == "":
		return nil, nil, err
	}
	found, archiveErr := t.readArchive(ctx, dir)
	switch {
	case archiveErr == nil:
		return t.view(found, dir), found.Data, nil
	case err == nil && errors.Is(archiveErr, acct.ErrNoEntry):
		return t.view(e, "journal"), e.Data, nil
	}
	return nil, nil, archiveErr
}

// A tracer looks at the Messages of one entry while the journal is read
// again from before it.
type tracer struct {
	position uint64
	messages []Message
}

var _ asm.MessageTracer = (*tracer)(nil)

// Flow implements asm.Tracer.
func (t *tracer) Flow(uint64, asm.TracedFlow) {}

// Record implements asm.Tracer.
func (t *tracer) Record(uint64, *acct.Record) {}

// read reads the journal of s again up to e, and reports whether what held when
// it came is still known.
func (t *tracer) read(ctx context.Context, s *spool.Spool, e acct.Entry) (known bool, err error) {
	opening, err := s.OpeningAt(ctx, time.Unix(0, e.Time-1))
	if errors.Is(err, spool.ErrNotFound) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return true, Replay(ctx, s, opening, t, func(at uint64) bool { return at == t.position })
}

// What ends the reading of an archive.
var (
	errEnough = errors.New("the position is reached")
	errLost   = fmt.Errorf("lost from the journal before it was archived: %w", acct.ErrNoEntry)
)

// readArchive reads the Segment of the archive in dir that has the position, up
// to it, and returns its entry.
func (t *tracer) readArchive(ctx context.Context, dir string) (found acct.Entry, err error) {
	var replay *asm.Replay
	err = archive.ReadJournalAt(dir, t.position, func(o spool.Opening) (err error) {
		replay, err = asm.NewReplay(ctx, asm.Opening(o), noJournal{}, t, slog.New(slog.DiscardHandler))
		return err
	}, func(e acct.Entry) error {
		if e.Position > t.position {
			return errLost
		}
		if err := replay.Apply(ctx, e); err != nil || e.Position < t.position {
			return err
		}
		found = e
		found.Data = bytes.Clone(e.Data)
		return errEnough
	})
	switch {
	case errors.Is(err, errEnough):
		err = nil
	case err == nil, errors.Is(err, errLost):
		err = fmt.Errorf("position %d: %w", t.position, errLost)
	}
	return found, err
}

// view returns e, from somewhere, with its Messages. Where nothing is known of
// its Transport Session it is looked at as if nothing had come before.
func (t *tracer) view(e acct.Entry, from string) *View {
	if _, err := ipfix.MessageHeader(e.Data); e.Kind == acct.EntryMessage && err == nil && len(t.messages) == 0 {
		t.Message(e, asm.SessionInfo{Transport: ipfix.UDP}, ipfix.NewSession(ipfix.UDP))
	}
	v := viewEntry(e, from)
	v.Messages = t.messages
	return v
}

// noJournal has no entries: those that an archived one would ask for may be in
// other Segments.
type noJournal struct{}

// Read implements asm.Journal.
func (noJournal) Read(_ context.Context, position uint64) (acct.Entry, error) {
	return acct.Entry{}, fmt.Errorf("position %d: %w", position, acct.ErrNoEntry)
}

// Message implements asm.MessageTracer.
func (t *tracer) Message(e acct.Entry, info asm.SessionInfo, decoder *ipfix.Session) {
	if e.Position != t.position {
		return
	}
	m := Message{Octets: len(e.Data)}
	if info.Exporter != "" {
		m.Session = viewSession(info)
	}
	state, err := decoder.AppendBinary(nil)
	session := ipfix.NewSession(info.Transport)
	if err == nil {
		err = session.UnmarshalBinary(state)
	}
	if err != nil {
		panic("tollbridge: internal error: " + err.Error()) // of a session that is used
	}
	_, stream := e.Stream()
	p := flowtext.NewPrinter(session)
	sets := templateSets(e.Data)
	result, err := session.DecodeStream(e.Data, stream, func(s ipfix.DataSet) {
		for len(sets) > 0 && sets[0].Offset < s.Offset {
			m.Sets = append(m.Sets, viewTemplates(sets[0]))
			sets = sets[1:]
		}
		m.Sets = append(m.Sets, viewData(p, s))
	})
	h := result.Header
	if err != nil {
		m.Fault = err.Error()
		h, _ = ipfix.MessageHeader(e.Data) // it has one: the pipeline has read it
	}
	for _, s := range sets {
		m.Sets = append(m.Sets, viewTemplates(s))
	}
	m.Domain, m.Sequence, m.ExportTime = h.Domain, h.Sequence, flowtext.ExportTime(h)
	t.messages = append(t.messages, m)
}

// Replay applies what the journal has behind an opening, until done says
// so of the entry applied last, or it ends.
func Replay(ctx context.Context, s *spool.Spool, o spool.Opening, t asm.Tracer, done func(position uint64) bool) error {
	j := s.Journal()
	replay, err := asm.NewReplay(ctx, asm.Opening(o), j, t, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	reader := j.Reader(o.Position)
	for at := o.Position; at < j.Durable(); {
		entries, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := replay.Apply(ctx, e); err != nil {
				return err
			}
			if done(e.Position) {
				return nil
			}
			at = e.Position
		}
	}
	return nil
}
