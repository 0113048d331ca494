package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/cmd/tollbridge/internal/flowtext"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/ipfix"
	"tollbridge/spool"
	"tollbridge/spool/archive"
)

func newSpoolJournal(state *stateFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "journal",
		Short: "Look at the journal: what came, as it came",
	}
	cmd.AddCommand(newSpoolJournalShow(state))
	return cmd
}

func newSpoolJournalShow(state *stateFlags) *cobra.Command {
	var dir, raw string
	var dump bool
	cmd := &cobra.Command{
		Use:   "show POSITION",
		Short: "Show the journal entry at a position: of a Message its Sets, records and values",
		Long: `Show prints what the journal has at a position, such as one that "audit record"
or "audit --duplicates" names: when it came and from whom, and of a Message its
header, its Sets, and each record's elements by name, read with the Templates
that held when it came.

A position that was trimmed from the journal (spool.keepJournal) is looked for
in the archive, that of the configuration or of --archive.`,
		Example: `  tollbridge audit record 17
  tollbridge spool journal show 4711
  tollbridge spool journal show 4711 -c tollbridge.yaml -o json | jq '.messages[].sets[].records'
  tollbridge spool journal show 4711 --raw message.ipfix && tollbridge ipfix dump message.ipfix
  tollbridge spool journal show 4711 --hex`,
		Args: cobra.ExactArgs(1),
	}
	out := listing.FormatFlag(cmd)
	cmd.Flags().StringVar(&dir, "archive", "", "archive to look in for what was trimmed (default that of the configuration)")
	cmd.Flags().StringVar(&raw, "raw", "", `write the entry's octets to this file and print nothing; "-" is standard output`)
	cmd.Flags().BoolVar(&dump, "hex", false, "print the entry's octets in hexadecimal")
	cmd.MarkFlagsMutuallyExclusive("raw", "hex", "output")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		position, err := strconv.ParseUint(args[0], 10, 63)
		if err != nil || position == 0 {
			return fmt.Errorf("%q is not a position: give a number that \"audit record\" names, from 1", args[0])
		}
		if dir == "" && state.config != "" {
			c, err := config.Load(state.config)
			if err != nil {
				return err
			}
			dir = c.Archive.Dir
		}
		s, err := state.open()
		if err != nil {
			return err
		}
		defer s.Close()
		v, octets, err := showEntry(cmd.Context(), s, dir, position)
		switch {
		case err != nil:
			return err
		case dump:
			_, err = io.WriteString(cmd.OutOrStdout(), hex.Dump(octets))
			return err
		case raw == "-":
			_, err = cmd.OutOrStdout().Write(octets)
			return err
		case raw != "":
			return os.WriteFile(raw, octets, 0o600)
		}
		t := v.table()
		return t.Print(cmd.OutOrStdout(), *out)
	}
	return cmd
}

// showEntry returns the entry at a position with its octets, from the journal,
// or from the archive in dir where the journal does not have it any more, or not
// the Templates that held when it came.
func showEntry(ctx context.Context, s *spool.Spool, dir string, position uint64) (*entryView, []byte, error) {
	t := &entryTracer{position: position}
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

// An entryTracer looks at the Messages of one entry while the journal is read
// again from before it.
type entryTracer struct {
	position uint64
	messages []messageView
}

var _ asm.MessageTracer = (*entryTracer)(nil)

// Flow implements asm.Tracer.
func (t *entryTracer) Flow(uint64, asm.TracedFlow) {}

// Record implements asm.Tracer.
func (t *entryTracer) Record(uint64, *acct.Record) {}

// read reads the journal of s again up to e, and reports whether what held when
// it came is still known.
func (t *entryTracer) read(ctx context.Context, s *spool.Spool, e acct.Entry) (known bool, err error) {
	opening, err := s.OpeningAt(ctx, time.Unix(0, e.Time-1))
	if errors.Is(err, spool.ErrNotFound) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return true, replayJournal(ctx, s, opening, t, func(at uint64) bool { return at == t.position })
}

// What ends the reading of an archive.
var (
	errEnough = errors.New("the position is reached")
	errLost   = fmt.Errorf("lost from the journal before it was archived: %w", acct.ErrNoEntry)
)

// readArchive reads the Segment of the archive in dir that has the position, up
// to it, and returns its entry.
func (t *entryTracer) readArchive(ctx context.Context, dir string) (found acct.Entry, err error) {
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
func (t *entryTracer) view(e acct.Entry, from string) *entryView {
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
func (t *entryTracer) Message(e acct.Entry, info asm.SessionInfo, decoder *ipfix.Session) {
	if e.Position != t.position {
		return
	}
	m := messageView{Octets: len(e.Data)}
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
