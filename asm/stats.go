package asm

import (
	"log/slog"

	"tollbridge/asm/acct"
)

// Stats counts what a Module has done since it was made. What it did before
// the checkpoint that it began at is not in it.
type Stats struct {
	Entries    uint64 // of the journal
	Missing    uint64 // entries that the journal lost
	Broken     uint64 // of these, could not be applied
	SetAside   uint64 // of these, passed over as the pipeline had crashed at them
	Messages   uint64
	Compared   uint64 // duplicates found equal to the record that came first
	Uncompared uint64 // duplicates by their identity alone, as the journal no longer has that, or it is not to be compared
	Collisions uint64 // records that were no duplicates though their identity is another's

	TemplatesRepeated  uint64 // Template Records that say again what holds, where they should be sent once
	WithdrawalsIgnored uint64 // of Templates that are not held, or over UDP

	DuplicateSets uint64 // Data Sets that came in an equal Message before, of those whose records have no identity that tells

	Records        uint64 // Data Records of usage, received
	OptionsRecords uint64 // Data Records of Options Templates; not in the books
	NotUsage       uint64 // Data Records without any address; not in the books
	NoCounter      uint64 // rejected: no counter in their Template
	TooLarge       uint64 // rejected: a counter above acct.MaxOctets

	UnknownSampler  uint64 // records counted unscaled, as nothing was said of the sampler that they name
	OptionsRefused  uint64 // options records beyond the bounds of sampling rates and Observation Domains
	TotalsForgotten uint64 // flows forgotten, that may have gone on, as Settings.MaxTotals was reached
	InBandInvalid   uint64 // records whose user element holds no name
	InBandConflicts uint64 // records that name another user than the one that their address is bound to
	InBandRefused   uint64 // records suspended as Settings.MaxInBand was reached

	Events          uint64 // of user sessions, applied
	EventsIdle      uint64 // of these, changed nothing: they came again, or too late
	Contradictions  uint64 // of these, said that a session had ended before usage that is accounted to it
	Interims        uint64 // interim intervals of sessions, as answers asked for them
	InterimsIdle    uint64 // likewise, of sessions that were over
	Corrections     uint64 // records cut since bindings contradicted others
	NATEvents       uint64 // records of a NAT
	NATOther        uint64 // of these, thresholds and quotas
	NATInvalid      uint64 // of these, without address or ports
	Mappings        int    // of ports, that are remembered
	MappingsRefused uint64 // beyond users.MaxMappings
	UserSessions    int    // that events told of and that are remembered
	SessionsRefused uint64 // events of others, beyond users.MaxSessions
	Overlaps        uint64 // a session began to hold a prefix that another of its source still held

	ResentMessages     uint64 // known again by their position in the exporter's spool
	PositionConflicts  uint64 // Messages whose position another one had
	ForgottenPositions uint64 // Messages whose position is too old to be known again
	ForwardedMessages  uint64 // that another collector passed on
	ForwardsRefused    uint64 // records that say so, of exporters that are none
	GivenUpRecords     uint64 // that exporters told to have had no room for

	Clocks []ClockStats // by exporter; not to be changed

	EarlySets    uint64 // Data Sets before their Template
	EarlyDropped uint64 // of these, beyond the bounds of number, octets or time
	EarlyDecoded uint64 // of these, decoded later
	EarlyMisfits uint64 // of these, not fitting the Template that came, or lost by the journal

	Requests          uint64 // Accounting-Requests with a flow, or for another realm
	RequestDuplicates uint64 // of these, that came before
	RequestConflicts  uint64 // of these, that came before with other content
	Forwarded         uint64 // of these, made records for another realm

	Checkpoints       uint64
	AccountingRecords uint64 // committed
	Oversized         uint64 // of these, larger than Settings.MaxRecord as one value alone is

	Sessions   int    // of users, that are active
	Transports int    // Transport Sessions that are open
	Suspended  uint64 // flows that wait for a user
	Identities int    // remembered, of Data Records
	Totals     int    // flows remembered whose counters are totals
	InBand     int    // sessions of users whom flow records named
	Position   uint64 // of the last entry applied
	Clock      int64  // of the pipeline, Unix nanoseconds
	Charges    int    // octets that it takes to remember what was accounted
	ChargedFor int64  // since when, Unix milliseconds; 0 for not at all
	SetBack    uint64 // how often that was ahead and was set back
}

// Stats returns a snapshot. Like all of a Module it belongs to the one
// goroutine.
func (m *Module) Stats() Stats {
	s := m.stats
	s.Sessions = m.sessions.active
	s.Transports = len(m.transports.open)
	s.Suspended = m.suspense.unmapped
	s.Identities = m.windows.Stats().Identities
	s.Totals = m.totals.Len()
	s.InBand = m.sessions.named
	s.Overlaps = m.users.Overlaps()
	s.UserSessions, s.SessionsRefused = m.users.Sessions()
	s.Mappings, s.MappingsRefused = m.users.Mappings()
	if since, ok := m.charges.Since(); ok {
		s.Charges, s.ChargedFor = m.charges.Size(), max(since, m.horizon())
	}
	s.Position, s.Clock = m.position, m.now
	return s
}

// A limiter lets a log line through at its 1st, 10th, 100th ... occurrence.
type limiter struct {
	seen map[limiterKey]uint64
	keys map[string]int // in seen, by exporter, of those with a domain or what
}

type limiterKey struct {
	text     string // one of ours, so they are few
	exporter string
	domain   uint32
	what     uint64
}

// Bounds of the lines that are told apart. Beyond them lines of one text count
// together, those of an exporter first.
const (
	maxLines    = 100  // of an exporter
	maxExporter = 1000 // exporters
)

// warn logs text about an exporter and domain; what tells apart lines of the
// same text.
func (l *limiter) warn(log *slog.Logger, text string, key acct.LedgerKey, what uint64, args ...any) {
	if n, ok := l.lets(limiterKey{text, key.Exporter, key.Domain, what}); ok {
		log.Warn(text, append([]any{"exporter", key.Exporter, "domain", key.Domain, "template", what, "times", n}, args...)...)
	}
}

// lets counts an occurrence of k, the nth, and reports whether it is to be
// logged.
func (l *limiter) lets(k limiterKey) (n uint64, ok bool) {
	if l.seen == nil {
		l.seen, l.keys = make(map[limiterKey]uint64), make(map[string]int)
	}
	if l.seen[k] == 0 {
		k = l.bound(k)
	}
	l.seen[k]++
	n = l.seen[k]
	for p := uint64(1); p <= n; p *= 10 {
		if p == n {
			return n, true
		}
	}
	return n, false
}

// bound returns what a new k is counted as.
func (l *limiter) bound(k limiterKey) limiterKey {
	lines, known := l.keys[k.exporter]
	if !known && len(l.keys) >= maxExporter {
		return limiterKey{text: k.text}
	}
	if k.domain == 0 && k.what == 0 {
		l.keys[k.exporter] = lines
		return k
	}
	if lines >= maxLines {
		return limiterKey{text: k.text, exporter: k.exporter}
	}
	l.keys[k.exporter]++
	return k
}
