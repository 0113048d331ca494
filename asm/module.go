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
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/charges"
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
	classes    classifier
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

// millis returns the pipeline's clock in Unix milliseconds.
func (m *Module) millis() int64 { return m.now / int64(time.Millisecond) }

// advance moves the clock to a time in Unix nanoseconds and does, in order,
// what came due until then. A time in the past moves nothing.
func (m *Module) advance(ctx context.Context, to int64) error {
	if to <= m.now {
		return nil
	}
	if m.boundary == 0 {
		m.boundary = alignDown(to, m.settings.Interval) + int64(m.settings.Interval)
	}
	for {
		if s := m.sessions.timers.first(); s != nil {
			due := s.due * int64(time.Millisecond)
			if due <= to && due <= m.boundary {
				m.now = max(m.now, due)
				m.expire(s, m.millis())
				continue
			}
		}
		if due := m.suspense.remap; due != 0 && due <= to && due <= m.boundary {
			m.now = max(m.now, due)
			if err := m.retry(ctx); err != nil {
				return err
			}
			continue
		}
		if m.boundary > to {
			break
		}
		m.now = max(m.now, m.boundary)
		if err := m.endInterval(ctx); err != nil {
			return err
		}
		m.boundary += int64(m.settings.Interval)
		// Nothing happens in intervals without usage: go on to the one in
		// which something is due.
		next := to
		if s := m.sessions.timers.first(); s != nil {
			next = min(next, s.due*int64(time.Millisecond))
		}
		if due := m.suspense.remap; due != 0 {
			next = min(next, due)
		}
		m.boundary = max(m.boundary, alignDown(next, m.settings.Interval))
	}
	m.now = to
	m.interval = m.intervalOf(to)
	m.windows.Advance(m.millis())
	m.forgotten = max(m.forgotten, m.over())
	return nil
}

// endInterval does what is due at the end of an interval.
func (m *Module) endInterval(ctx context.Context) error {
	m.expireEarly(m.now)
	m.transports.expire(m.now)
	m.released.expire(m.now)
	if err := m.fallback(ctx); err != nil {
		return err
	}
	m.cutChanged(false)
	return m.correct()
}

// cutAll makes records of all usage that is open, in the order of sessions.
func (m *Module) cutAll() { m.cutChanged(true) }

// cutChanged is cutAll; or, without all, leaves out sessions that go by an
// interval of their own.
func (m *Module) cutChanged(all bool) {
	for _, s := range m.sessions.takeChanged(all) {
		m.cut(s, m.millis())
	}
}

// Deadline returns when the pipeline wants a tick if no other entry comes,
// the zero time if it waits for nothing.
func (m *Module) Deadline() time.Time {
	due := int64(0)
	earlier := func(at int64) {
		if at != 0 && (due == 0 || at < due) {
			due = at
		}
	}
	if s := m.sessions.timers.first(); s != nil {
		earlier(s.due * int64(time.Millisecond))
	}
	earlier(m.suspense.remap)
	if len(m.sessions.changed) > 0 || m.charges.InDoubt() {
		earlier(m.boundary)
	}
	if s := &m.suspense; s.since != 0 && m.settings.Fallback != "" && m.settings.Mode == ModeASM {
		// It is seen to at the end of an interval.
		at := s.since + m.settings.Wait.Nanoseconds()
		end := alignDown(at, m.settings.Interval)
		if end < at {
			end += int64(m.settings.Interval)
		}
		earlier(max(end, m.boundary))
	}
	if due == 0 {
		return time.Time{}
	}
	return time.Unix(0, due)
}

// configure puts new settings into effect. Open usage is cut under the old
// ones first.
func (m *Module) configure(ctx context.Context, s Settings) error {
	if m.configured && m.settings.equal(s) {
		return nil
	}
	old := m.settings
	m.cutAll()
	if s.DedupWindow != old.DedupWindow || s.MaxIdentities != old.MaxIdentities || s.ClockTolerance != old.ClockTolerance {
		if err := m.reshapeWindows(ctx, s); err != nil {
			return err
		}
	}
	if s.Mode != old.Mode {
		m.stopAll()
		m.charges.Configure(0, 0) // they are of sessions that are gone
	}
	m.adopt(s)
	m.configured = true
	m.state.settings = true
	m.boundary = alignDown(m.now, s.Interval) + int64(s.Interval)
	m.interval = m.intervalOf(m.now)
	if s.Fallback != old.Fallback {
		m.changeFallback(old.Fallback)
	}
	m.retime()
	return nil
}

// stopAll ends all sessions, whose usage has been cut.
func (m *Module) stopAll() {
	for _, s := range m.sessions.all() {
		if s.phase == active {
			m.stop(s, m.millis(), ended)
		}
		m.sessions.remove(s)
	}
}

// changeFallback ends the session of the fallback user that was and lets all
// that waits be offered to the one that is.
func (m *Module) changeFallback(old string) {
	if s := m.sessions.byKey[bindingKey{user: old}]; s != nil {
		s.until = m.millis()
	}
	if s := m.sessions.byKey[bindingKey{user: m.settings.Fallback}]; s != nil {
		s.until = 0
		if s.phase == ended {
			s.phase = dormant
		}
		m.sessions.touch(s)
	}
	m.suspense.offered, m.suspense.since = 0, 0
	if m.suspense.unmapped > 0 {
		m.suspense.since = 1 // long ago: all that waits is looked through
	}
}

// retime sets the timers of all sessions anew.
func (m *Module) retime() {
	for _, s := range m.sessions.byKey {
		if s.phase == active {
			s.midnight = m.midnight(s, m.millis())
		}
		if due := m.due(s); due != s.due {
			m.sessions.timers.set(s, due)
			m.sessions.touch(s)
		}
	}
}

// adopt makes s the settings.
func (m *Module) adopt(s Settings) {
	if s.VendorID != m.settings.VendorID {
		m.forgetOptions()
	}
	m.settings = s
	m.generation++
	m.sampling, m.points, m.identities = make(map[string]uint32), make(map[string]*point), make(map[string]string)
	m.vrfs = make(map[string]*vrfReader)
	m.forwards = make(map[string]bool)
	for _, e := range s.Exporters {
		if p := newPoint(e); p != nil {
			m.points[e.Name] = p
		}
		if e.Identity != "" && e.Identity != e.Name {
			m.identities[e.Name] = e.Identity
		}
		if e.VRF != nil {
			m.vrfs[e.Name] = newVRFReader(e.VRF)
		}
		m.forwards[e.Name] = e.Forwards
		if e.Sampling != 0 {
			m.sampling[e.Name] = e.Sampling
		}
	}
	m.transports.lifetime = s.TemplateLifetime
	for _, t := range m.transports.open {
		t.decoder.TemplateLifetime = s.TemplateLifetime
		t.name(m.identityOf(t.info.Exporter))
	}
	m.inBand = nil
	for _, name := range s.InBand {
		if e, err := ParseElement(name); err == nil { // they are validated
			m.inBand = append(m.inBand, e)
		}
	}
	m.stats.TotalsForgotten += uint64(m.totals.Bound(s.MaxTotals))
	m.charges.Configure(s.Correct.Milliseconds(), s.CorrectOctets)
	m.linkLayer = s.Layer == LayerLink
	m.realms = make(map[string]*RealmSettings)
	for i := range s.Realms {
		m.realms[s.Realms[i].Realm] = &s.Realms[i]
	}
	m.classes = newClassifier(s, m.class)
	m.users.Tolerate(s.UserTolerance.Milliseconds())
	m.dictionary = dict.For(s.VendorID)
}

// class returns the index of a class's name.
func (m *Module) class(name string) classIndex {
	for i, n := range m.classNames {
		if n == name {
			return classIndex(i)
		}
	}
	if len(m.classNames) == int(noClass) {
		return 0 // more classes than anybody has
	}
	m.classNames = append(m.classNames, name)
	return classIndex(len(m.classNames) - 1)
}
