// Package asm is the pipeline of an accounting bridge (RFC 5472,
// Section 3.5.2: Accounting Service Module): it turns journaled IPFIX Messages
// into Diameter accounting records, and keeps the books.
//
// A [Module] is a function of the journal: the same entries give the same
// records, to Session-Id and Accounting-Record-Number, however often it was
// stopped, killed and restored from a checkpoint in between. [Run] drives one.
package asm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"tollbridge/asm/acct"
	"tollbridge/asm/charges"
	"tollbridge/asm/classes"
	"tollbridge/asm/positions"
	"tollbridge/asm/sampling"
	"tollbridge/asm/totals"
	"tollbridge/asm/users"
	"tollbridge/dedup"
	"tollbridge/dict"
	"tollbridge/internal/octets"
	"tollbridge/ipfix"
)

// A Store keeps checkpoints.
type Store interface {
	// Commit stores a Batch whole or not at all, durably, before it returns.
	// It does not keep the Batch.
	Commit(context.Context, acct.Batch) error
	// Load returns the latest checkpoint.
	Load(context.Context) (acct.Checkpoint, error)
	// EachIdentity visits the stored identities that are not forgotten, by
	// ascending bucket.
	EachIdentity(context.Context, func(acct.Identities) error) error
	// EachSuspended visits the suspended records whose IDs are above after, in
	// ascending order. The error of visit ends it and is returned.
	EachSuspended(ctx context.Context, after uint64, visit func(acct.Suspended) error) error
}

// A Journal gives back single entries from Batch.Needed on.
type Journal interface {
	Read(ctx context.Context, position uint64) (acct.Entry, error)
}

// Config is what a Module works with.
type Config struct {
	Store   Store        // required
	Journal Journal      // required
	Log     *slog.Logger // nil discards

	// Weaken makes record identities collide, in tests. Nil in earnest.
	Weaken func(dedup.Identity) dedup.Identity
	Tracer Tracer // nil for none
}

// ErrFailed is matched by the errors of a Module that can't be used any more:
// memory and store disagree, or an entry was half applied. Make a new one,
// which begins at the last checkpoint.
var ErrFailed = errors.New("module has failed")

// ErrCorrupt is matched by the errors of journal entries and stored state
// that can't be read.
var ErrCorrupt = octets.ErrCorrupt

// A Module is the pipeline. It belongs to one goroutine.
type Module struct {
	store   Store
	journal Journal
	log     *slog.Logger
	tracer  Tracer // nil for none
	failed  error

	position uint64 // of the last entry applied
	now      int64  // the pipeline's clock, Unix nanoseconds; it never goes back
	boundary int64  // the next interval end to be seen to, Unix nanoseconds; 0 before the first entry
	interval int64  // start of the interval of now, Unix seconds
	epoch    uint32
	hashKey  dedup.Key

	settings   Settings
	configured bool
	linkLayer  bool // octets of layer 2 are billed
	classes    classes.Classifier
	classNames []string
	realms     map[string]*RealmSettings
	dictionary *dict.Dictionary
	users      users.Table
	spans      []users.Span // scratch
	swept      int64        // when user sessions that are over were last dropped, Unix nanoseconds
	forgotten  int64        // bindings that ended until then may be dropped, Unix milliseconds: it does not fall with the clock

	transports transports
	sources    sources  // exporters whose records come in requests
	parts      partials // of such records
	decoder    decoder
	dropped    uint64              // position of the latest Message with a Data Set that was not kept
	visit      func(ipfix.DataSet) // m.dataSet

	windows    *dedup.Windows
	stored     map[string]storedWindow // what the store has of windows, by exporter
	released   released
	messages   *dedup.Recent
	comparison comparison
	weaken     func(dedup.Identity) dedup.Identity // nil in earnest
	pieces     []piece                             // stored identities of Messages

	sessions sessions
	ledger   ledger
	suspense suspense
	charges  charges.Memory

	generation uint64                // rises with all that refiners go by
	points     map[string]*point     // policies of observation points, by exporter
	identities map[string]string     // names that identities are made with, by exporter
	sampling   map[string]uint32     // rates that the settings give, by exporter
	vrfs       map[string]*vrfReader // of exporters whose addresses are of several spaces
	inBand     []ipfix.Element       // that name a record's user
	samplers   *sampling.Tables
	totals     totals.Exporters
	clocks     map[string]*exporterClock
	spools     *positions.Spools
	forwards   map[string]bool // exporters that are collectors which pass on

	records   []acct.Record // cut since the last checkpoint
	decisions []acct.Decision
	state     stateChanges
	crashes   map[uint64]int // entries that the pipeline crashed at, how often

	logs  limiter
	stats Stats
}

// Apply takes in the next entry of the journal. An acct.EntryClose of session
// 0 says that the Collecting Process began anew, so that all Transport Sessions
// but those over UDP are over.
//
// An entry that can't be read
// is counted and logged, and is no error; an error says that the Module has
// failed.
func (m *Module) Apply(ctx context.Context, e acct.Entry) error {
	if m.failed != nil {
		return m.failed
	}
	if e.Position <= m.position {
		return m.fail(fmt.Errorf("asm: entry %d follows entry %d", e.Position, m.position))
	}
	if missing := e.Position - m.position - 1; missing > 0 {
		// Damaged and set aside by the journal, or trimmed by mistake.
		m.stats.Missing += missing
		m.log.Error("journal entries are missing", "after", m.position, "entries", missing)
	}
	if err := m.apply(ctx, e); err != nil {
		return m.fail(fmt.Errorf("asm: entry %d (%v): %w", e.Position, e.Kind, err))
	}
	if err := m.comparison.err; err != nil {
		return m.fail(fmt.Errorf("asm: entry %d: compare with what came first: %w", e.Position, err))
	}
	if err := m.suspense.err; err != nil {
		return m.fail(fmt.Errorf("asm: entry %d: %w", e.Position, err))
	}
	m.keep(&e)
	m.position = e.Position
	m.stats.Entries++
	return nil
}

func (m *Module) fail(err error) error {
	m.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	return m.failed
}

func (m *Module) apply(ctx context.Context, e acct.Entry) error {
	if err := m.advance(ctx, e.Time); err != nil {
		return err
	}
	if m.crashes[e.Position] >= maxCrashes {
		m.setAside(e)
		return nil
	}
	switch e.Kind {
	case acct.EntryMessage:
		return m.message(ctx, e)
	case acct.EntryOpen:
		info, err := ParseSessionInfo(e.Data)
		if err != nil {
			m.broken(e, err)
			return nil
		}
		m.transports.openSession(e.Position, info, origin{})
		m.transports.open[e.Position].name(m.identityOf(info.Exporter))
	case acct.EntryClose:
		if e.Session == 0 {
			m.transports.beginAnew(origin{}, m.now)
		} else if t := m.transports.open[e.Session]; t != nil {
			m.transports.close(t)
		}
	case acct.EntryUsers:
		return m.replaceUsers(ctx, e)
	case acct.EntryBinding:
		m.applyEvent(e)
	case acct.EntryConfig:
		s, err := ParseSettings(e.Data)
		if err != nil {
			m.broken(e, err)
			return nil
		}
		return m.configure(ctx, s)
	case acct.EntryRequest:
		m.request(e)
	case acct.EntryCommand:
		return m.command(ctx, e)
	case acct.EntryInterim:
		m.obey(e)
	case acct.EntryTick:
	default:
		m.broken(e, fmt.Errorf("asm: kind %d: %w", e.Kind, ErrCorrupt))
	}
	return nil
}
