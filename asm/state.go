package asm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"tollbridge/asm/acct"
	"tollbridge/asm/positions"
	"tollbridge/asm/sampling"
	"tollbridge/asm/totals"
	"tollbridge/dedup"
	"tollbridge/internal/octets"
)

// statePipeline is the Kind of the counters of the pipeline; no key.
const statePipeline = acct.StatePipeline

// Other kinds of acct.State.
const (
	stateSettings  = "settings"  // as in an acct.EntryConfig; no key
	stateUsers     = "users"     // bindings of lists, by source
	stateClaim     = "claim"     // user sessions that events told of, by the key that package users gives them
	statePorts     = "ports"     // what NATs told of shared addresses, by the key that package users gives it
	stateTransport = "transport" // a Transport Session, by number
	stateMessages  = "messages"  // identities of Messages, by generation and position
	stateSampling  = "sampling"  // what options records say, by Observation Domain and exporter
	statePositions = "positions" // Messages of acknowledged export, by spool and chunk of positions
	stateTotals    = "totals"    // last-seen total counters, by exporter and number of the piece
	stateBehind    = "behind"    // private addresses behind the ends of suspended flows, by ID
	stateParts     = "parts"     // flow records of which not all requests have come, by client and Acct-Multi-Session-Id
	stateWindow    = "window"    // of record identities, by exporter
	stateReleased  = "released"  // identities that left suspense, by position of the command
	stateCharge    = "charge"    // what was charged, by segment and offset, and the doubts about it
	stateCrash     = "crash"     // how often the pipeline crashed at an entry, by position
)

// stateChanges says which of the values that rarely change have changed since
// the last checkpoint.
type stateChanges struct {
	settings bool
	users    []string // sources
}

// A piece is a stored part of the identities of Messages.
type piece struct {
	generation int64
	key        string
}

// New returns a Module that continues at the store's checkpoint: its next
// entry is that at Checkpoint.Position + 1.
func New(ctx context.Context, cfg Config) (*Module, error) {
	if cfg.Store == nil || cfg.Journal == nil {
		return nil, errors.New("asm: Config.Store and Config.Journal are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cp, err := cfg.Store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("asm: load checkpoint: %w", err)
	}
	m := &Module{
		store: cfg.Store, journal: cfg.Journal, log: cfg.Log, tracer: cfg.Tracer, weaken: cfg.Weaken,
		position: cp.Position, now: cp.Time, epoch: cp.Epoch, hashKey: cp.HashKey,
		transports: newTransports(), sources: make(sources), parts: newPartials(), sessions: newSessions(), ledger: newLedger(),
		messages: dedup.NewRecent(dedup.RecentConfig{Length: messageMemory}),
		suspense: suspense{next: max(cp.NextSuspended, 1)},
		crashes:  make(map[uint64]int),
		samplers: sampling.NewTables(),
		totals:   make(totals.Exporters),
		clocks:   make(map[string]*exporterClock),
		spools:   positions.NewSpools(),
		stored:   make(map[string]storedWindow),
	}
	m.visit = m.dataSet
	if err := m.restore(ctx, &cp); err != nil {
		return nil, fmt.Errorf("asm: restore checkpoint %d: %w", cp.Position, err)
	}
	return m, nil
}

// restore takes in a checkpoint.
func (m *Module) restore(ctx context.Context, cp *acct.Checkpoint) error {
	settings := Settings{OriginHost: "localhost"}.WithDefaults()
	var base, trimmed int64
	for _, s := range cp.State {
		var err error
		switch s.Kind {
		case statePipeline:
			base, trimmed, err = m.restorePipeline(s.Value)
		case stateSettings:
			settings, err = ParseSettings(s.Value)
			m.configured = true
		case stateUsers:
			err = m.users.RestoreSource(s.Value)
		case statePorts:
			err = m.users.RestorePorts(s.Value)
		case stateClaim:
			err = m.users.RestoreClaim(s.Value)
		case stateTransport:
			var number uint64
			if number, err = strconv.ParseUint(s.Key, 10, 64); err == nil {
				err = m.transports.restore(number, s.Value)
			}
		case stateMessages:
			m.pieces = append(m.pieces, piece{key: s.Key})
		case stateParts:
			err = m.parts.restore(s.Key, s.Value)
		case stateSampling:
			err = m.samplers.Restore(s.Key, s.Value)
		case statePositions:
			err = m.spools.Restore(s.Key, s.Value)
		case stateBehind:
			err = m.suspense.backstage.restore(s.Key, s.Value)
		case stateReleased:
			err = m.released.restore(s.Key, s.Value)
		case stateWindow:
			m.stored[s.Key] = storedWindow{state: s.Value}
		case stateCrash:
			var position uint64
			if position, err = strconv.ParseUint(s.Key, 10, 64); err == nil && len(s.Value) == 1 {
				m.crashes[position] = int(s.Value[0])
			}
		}
		if err != nil {
			return fmt.Errorf("state %s %s: %w", s.Kind, s.Key, err)
		}
	}
	if err := m.totals.Restore(ofKind(cp.State, stateTotals)); err != nil {
		return err
	}
	for _, err := range m.charges.Restore(ofKind(cp.State, stateCharge), m.millis()) {
		m.log.Error("what was charged is damaged in the store", "error", err)
	}
	if trimmed != 0 {
		m.state.users = m.users.Trim(trimmed)
		m.forgotten = max(trimmed, m.millis()-settings.Late.Milliseconds())
	}
	m.adopt(settings)
	if err := m.restoreMessages(cp.State); err != nil {
		return err
	}
	if err := m.restoreWindows(ctx, settings, base); err != nil {
		return err
	}
	m.interval = m.intervalOf(m.now)
	for _, row := range cp.Sessions {
		s, err := restoreSession(row, m.class)
		if err != nil {
			return fmt.Errorf("session %s: %w", row.SessionID, err)
		}
		m.sessions.add(s)
		m.sessions.nextID = max(m.sessions.nextID, s.id+1)
		if s.phase == active {
			m.sessions.active++
		}
		if s.changed {
			m.sessions.changed = append(m.sessions.changed, s)
		}
		m.sessions.timers.set(s, s.due)
	}
	return nil
}

// ofKind returns those of state that are of a kind.
func ofKind(state []acct.State, kind string) (of []acct.State) {
	for _, s := range state {
		if s.Kind == kind {
			of = append(of, s)
		}
	}
	return of
}

// restoreMessages takes in the identities of Messages.
func (m *Module) restoreMessages(state []acct.State) error {
	for i := range m.pieces {
		p := &m.pieces[i]
		generation, _, _ := strings.Cut(p.key, "/")
		var err error
		if p.generation, err = strconv.ParseInt(generation, 10, 64); err != nil {
			return fmt.Errorf("state %s %s: %w", stateMessages, p.key, ErrCorrupt)
		}
	}
	for _, s := range ofKind(state, stateMessages) {
		i := slices.IndexFunc(m.pieces, func(p piece) bool { return p.key == s.Key })
		if err := m.messages.Restore(m.pieces[i].generation, s.Value); err != nil {
			return fmt.Errorf("state %s %s: %w", stateMessages, s.Key, err)
		}
	}
	return nil
}

// pipelineVersion is the first octet of the encoded pipeline, which is in every
// checkpoint: whoever does not know it refuses to go on from there. So it rises
// with every state that would be missed: with version 7 came stateBehind, and user
// sessions that know that an EndAll ended them, with version 8 the times of marks.
const pipelineVersion = 8

func (m *Module) appendPipeline(b []byte) ([]byte, error) {
	b = append(b, pipelineVersion)
	b = binary.AppendVarint(b, m.boundary)
	b = binary.AppendVarint(b, m.forgotten)
	s := &m.suspense
	for _, v := range []uint64{m.sessions.nextID, m.sessions.counter, s.next, s.unmapped, s.offered} {
		b = binary.AppendUvarint(b, v)
	}
	b = binary.AppendVarint(b, s.since)
	b = binary.AppendUvarint(b, uint64(len(s.setBacks)))
	for _, back := range s.setBacks {
		b = binary.AppendUvarint(b, back.before)
		b = binary.AppendVarint(b, back.to)
	}
	b = binary.AppendVarint(b, m.windows.Base())
	b = m.comparison.appendBinary(b)
	messages, err := m.messages.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	b = octets.AppendBytes(b, messages)
	b = binary.AppendVarint(b, s.remap)
	b = binary.AppendVarint(b, m.swept)
	return binary.AppendUvarint(b, uint64(m.epoch)), nil
}

// restorePipeline returns the floor that the windows of new exporters begin at,
// and, from before version 6, until when bindings that ended have been dropped
// since they were stored, Unix milliseconds.
func (m *Module) restorePipeline(data []byte) (base, trimmed int64, err error) {
	r := octets.NewReader(data)
	version := r.Octet()
	if version > pipelineVersion {
		return 0, 0, fmt.Errorf("asm: the pipeline's state is of version %d, and this program knows none above %d: run one that is no older than the one that wrote it", version, pipelineVersion)
	}
	if version == 0 {
		r.Fail()
	}
	m.boundary, m.forgotten = r.Varint(), r.Varint()
	if version < 6 {
		trimmed = m.forgotten
	}
	s := &m.suspense
	m.sessions.nextID, m.sessions.counter = r.Uvarint(), r.Uvarint()
	s.next, s.unmapped, s.offered = max(s.next, r.Uvarint()), r.Uvarint(), r.Uvarint()
	s.since = r.Varint()
	if version == 1 {
		base = oneWindow(r.Bytes())
	} else {
		n := 1
		if version > 4 {
			n = r.Count()
		}
		for range n {
			s.setBacks = append(s.setBacks, setBack{r.Uvarint(), r.Varint()})
		}
		base = r.Varint()
		m.comparison.restore(&r, version)
	}
	messages := r.Bytes()
	if version > 2 {
		s.remap, m.swept = r.Varint(), r.Varint()
	}
	if version > 3 {
		// The store has a later one after it has lost part of its state.
		m.epoch = max(m.epoch, uint32(r.Uvarint()))
	}
	if err := r.Close(); err != nil {
		return 0, 0, err
	}
	return base, trimmed, m.messages.UnmarshalBinary(messages)
}
