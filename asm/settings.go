package asm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tollbridge/asm/classes"
)

// A Mode says what the pipeline makes of a flow.
type Mode string

const (
	// ModeASM maps flows to users and accounts for their sessions by START,
	// INTERIM and STOP records (RFC 5472, Section 3.5.2).
	ModeASM Mode = "asm"
	// ModeAAAClient makes each flow an EVENT record that carries the flow,
	// and leaves the user to the AAA server (RFC 5472, Section 3.5.1).
	ModeAAAClient Mode = "aaa-client"
)

// Settings are all that an operator can set and that can change an accounting
// record. They reach the pipeline as journal entries (acct.EntryConfig), so
// that the same journal gives the same records. New settings take effect at a
// cut: open usage becomes records under the old ones first.
//
// A zero value means the default that the field names.
type Settings struct {
	Mode             Mode   `json:"mode"`              // default ModeASM
	OriginHost       string `json:"origin_host"`       // DiameterIdentity that Session-Ids begin with; required
	DestinationRealm string `json:"destination_realm"` // of records whose binding names none; "" leaves it to delivery
	VendorID         uint32 `json:"vendor_id"`         // of the AVPs of Information Elements; default 32473

	Interval       time.Duration   `json:"interval"`                 // of interim records and ledger rows, whole seconds; default 5m
	MinInterim     time.Duration   `json:"min_interim,omitempty"`    // a server's shorter interval for a session counts as this; default 1m, or Interval if that is shorter
	MaxInterim     time.Duration   `json:"max_interim,omitempty"`    // likewise a longer one; default 24h, or Interval if that is longer
	Linger         time.Duration   `json:"linger"`                   // from a binding's end, and from the session's last flow, to the STOP: the exporter's active timeout and export delay; default 5m30s
	Late           time.Duration   `json:"late"`                     // how long after its STOP a session's late flows are still tied to it; default 24h
	MaxSessionAge  time.Duration   `json:"max_session_age"`          // an older session stops and starts anew; 0 for no limit
	Wait           time.Duration   `json:"wait"`                     // how long an unmapped flow waits before it goes to Fallback; default 1h
	Fallback       string          `json:"fallback"`                 // user who is accounted what nobody held; "" leaves it suspended
	Layer          string          `json:"layer,omitempty"`          // which octets are billed where an exporter counts at several: LayerNetwork, the default, or LayerLink
	TimeZone       string          `json:"time_zone,omitempty"`      // where days and billing cycles begin, of users without one; "" cuts at no midnight
	BillingDay     int             `json:"billing_day,omitempty"`    // of the month, on which billing cycles begin, the last if it is shorter; 0 for no cycles
	Realms         []RealmSettings `json:"realms,omitempty"`         // what is particular to users of some realms
	Split          Split           `json:"split,omitempty"`          // who gets a flow during which its address changed hands; default SplitEnd
	UserTolerance  time.Duration   `json:"user_tolerance,omitempty"` // how far the clocks of the sources of bindings and of the exporters may differ
	Correct        time.Duration   `json:"correct,omitempty"`        // for how long what was accounted is remembered, so that bindings which contradict it correct it; 0 corrects nothing
	CorrectOctets  int             `json:"correct_octets,omitempty"` // of memory for that at most, the oldest is forgotten; default 64 MiB
	ClockTolerance time.Duration   `json:"clock_tolerance"`          // how far ahead of its arrival a flow may end; default 10m
	DedupWindow    time.Duration   `json:"dedup_window"`             // how far before the newest flow end identities are remembered; default 1h
	CompareOctets  int             `json:"compare_octets,omitempty"` // of the journal that are kept to compare duplicates with the records that came first; 0 compares none
	MaxIdentities  int             `json:"max_identities"`           // how many are remembered at most; default 16 Mi

	Exporters  []ExporterSettings `json:"exporters,omitempty"`
	MaxTotals  int                `json:"max_totals"`        // flows per exporter whose total counters are remembered; default 262144
	InBand     []string           `json:"in_band,omitempty"` // elements that name a record's user, see ParseElement
	InBandIdle time.Duration      `json:"in_band_idle"`      // the session of such a user stops when no flow has come for so long; default 1h
	MaxInBand  int                `json:"max_in_band"`       // such sessions; default 1 Mi

	MaxRecord        int            `json:"max_record"`                  // octets of the largest Accounting-Request; default 16384
	EarlySets        int            `json:"early_sets"`                  // Data Sets kept per exporter until their Template comes; default 1024
	EarlyOctets      int            `json:"early_octets"`                // octets of those; default 4 MiB
	EarlyWait        time.Duration  `json:"early_wait"`                  // how long they are kept; default 1h
	TemplateLifetime time.Duration  `json:"template_lifetime,omitempty"` // of Templates over UDP and DTLS that are not sent again; 0 is for ever
	Networks         []netip.Prefix `json:"networks,omitempty"`          // addresses that users hold: a flow accounted at its other end waits for who holds such a one

	Classes      []classes.Rule `json:"classes"`       // the first that matches names the usage's class
	ClassDefault string         `json:"class_default"` // class of what no rule matches
}

// ExporterSettings are those of one exporter.
type ExporterSettings struct {
	Name     string `json:"name"`
	Identity string `json:"identity,omitempty"` // the name that identities of its records are made with, the oldest it had; default Name

	// Where the same flow is seen by several observation points, one of them
	// is to account for it. What the policy leaves to others is skipped.
	Account    AccountPolicy `json:"account,omitempty"`    // default AccountAll
	Interfaces []uint32      `json:"interfaces,omitempty"` // that flows are accounted at where the record says at which it was metered; none for all

	Sampling uint32       `json:"sampling,omitempty"` // each packet seen stands for so many, whatever the exporter says; 0 leaves it to the exporter
	VRF      *VRFSettings `json:"vrf,omitempty"`      // nil if all addresses are of one space
	Forwards bool         `json:"forwards,omitempty"` // it is a collector that passes on what others exported, and is believed about whom
}

// An AccountPolicy says which flows of an exporter are accounted.
type AccountPolicy string

const (
	AccountAll     AccountPolicy = "all"
	AccountIngress AccountPolicy = "ingress" // metered where they come in, or without a flowDirection
	AccountEgress  AccountPolicy = "egress"  // metered where they leave
	AccountNone    AccountPolicy = "none"    // all is left to other exporters
)

// Values of Settings.Layer.
const (
	LayerNetwork = "network" // from the IP header on
	LayerLink    = "link"    // with the frame's header
)

// RealmSettings are those of the users of one realm: roaming partners'.
type RealmSettings struct {
	Realm        string `json:"realm"`
	TimeZone     string `json:"time_zone,omitempty"`
	OperatorName string `json:"operator_name,omitempty"` // Operator-Name (RFC 5580, Section 4.1) of their records, with its namespace: 1visited.example
	Agreement    string `json:"agreement,omitempty"`     // name of the roaming agreement that their records are made under
}

// minCorrectOctets is the least Settings.CorrectOctets.
const minCorrectOctets = 4096

// ErrSettings is matched by the errors of Settings that can't be used.
var ErrSettings = errors.New("invalid settings")

// WithDefaults returns s with the defaults filled in.
func (s Settings) WithDefaults() Settings {
	def(&s.Mode, ModeASM)
	def(&s.Interval, 5*time.Minute)
	def(&s.MinInterim, min(time.Minute, s.Interval))
	def(&s.MaxInterim, max(24*time.Hour, s.Interval))
	def(&s.Linger, 5*time.Minute+30*time.Second)
	def(&s.Late, 24*time.Hour)
	def(&s.Wait, time.Hour)
	def(&s.ClockTolerance, 10*time.Minute)
	def(&s.DedupWindow, time.Hour)
	def(&s.MaxIdentities, 16<<20)
	def(&s.MaxRecord, 16<<10)
	def(&s.EarlySets, 1024)
	def(&s.EarlyOctets, 4<<20)
	def(&s.EarlyWait, time.Hour)
	def(&s.VendorID, 32473)
	def(&s.MaxTotals, 1<<18)
	def(&s.InBandIdle, time.Hour)
	def(&s.MaxInBand, 1<<20)
	def(&s.CorrectOctets, 64<<20)
	return s
}

func def[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// Validate returns an error that matches ErrSettings and names the field if s,
// with the defaults filled in, can't be used.
func (s Settings) Validate() error {
	s = s.WithDefaults()
	bad := func(format string, args ...any) error {
		return fmt.Errorf("asm: settings: "+format+": %w", append(args, ErrSettings)...)
	}
	switch {
	case s.Mode != ModeASM && s.Mode != ModeAAAClient:
		return bad("mode %q: want %q or %q", s.Mode, ModeASM, ModeAAAClient)
	case s.OriginHost == "":
		return bad("origin_host: required")
	case s.Interval < time.Second || s.Interval%time.Second != 0:
		return bad("interval %v: want whole seconds, at least 1s", s.Interval)
	case s.MinInterim < time.Second, s.MaxInterim < s.MinInterim:
		return bad("min_interim %v, max_interim %v: want at least 1s, and no more than the longest", s.MinInterim, s.MaxInterim)
	case s.Linger < 0, s.Late < 0, s.Wait < 0, s.ClockTolerance < 0, s.EarlyWait < 0, s.MaxSessionAge < 0, s.TemplateLifetime < 0:
		return bad("linger, late, wait, clock_tolerance, early_wait, max_session_age, template_lifetime: want no negative time")
	case s.Split != "" && s.Split != SplitEnd && s.Split != SplitProportional:
		return bad("split %q: want %q or %q", s.Split, SplitEnd, SplitProportional)
	case s.UserTolerance < 0 || s.UserTolerance > time.Hour:
		return bad("user_tolerance %v: want 0 to 1h", s.UserTolerance)
	case s.Correct < 0 || s.Correct > s.Late:
		return bad("correct %v: want 0 to late, %v: bindings that are over are forgotten then", s.Correct, s.Late)
	case s.CorrectOctets < minCorrectOctets:
		return bad("correct_octets %d: want at least %d", s.CorrectOctets, minCorrectOctets)
	case s.MaxSessionAge != 0 && s.MaxSessionAge < s.Interval:
		return bad("max_session_age %v: want at least the interval, %v", s.MaxSessionAge, s.Interval)
	case s.DedupWindow < time.Second:
		return bad("dedup_window %v: want at least 1s", s.DedupWindow)
	case s.CompareOctets < 0:
		return bad("compare_octets %d: want no negative number", s.CompareOctets)
	case s.MaxIdentities < 1024:
		return bad("max_identities %d: want at least 1024", s.MaxIdentities)
	case s.MaxRecord < minRecord:
		return bad("max_record %d: want at least %d octets", s.MaxRecord, minRecord)
	case s.MaxTotals < 0 || s.MaxInBand < 0 || s.InBandIdle < time.Second:
		return bad("max_totals, max_in_band, in_band_idle: want no negative number, and at least 1s")
	case s.EarlySets < 0 || s.EarlyOctets < 0:
		return bad("early_sets, early_octets: want no negative number")
	case len(s.Classes) > classes.MaxRules:
		return bad("classes: %d of them: want at most %d", len(s.Classes), classes.MaxRules)
	}
	for i, e := range s.Exporters {
		switch e.Account {
		case "", AccountAll, AccountIngress, AccountEgress, AccountNone:
		default:
			return bad("exporters[%d] %q: account %q: want %q, %q, %q or %q", i, e.Name, e.Account, AccountAll, AccountIngress, AccountEgress, AccountNone)
		}
	}
	for _, name := range s.InBand {
		if _, err := ParseElement(name); err != nil {
			return bad("in_band: %w", err)
		}
	}
	if s.Layer != "" && s.Layer != LayerNetwork && s.Layer != LayerLink {
		return bad("layer %q: want %q or %q", s.Layer, LayerNetwork, LayerLink)
	}
	for i, e := range s.Exporters {
		if e.VRF == nil {
			continue
		}
		if _, err := ParseElement(e.VRF.Element); err != nil {
			return bad("exporters[%d] %s: vrf: %w", i, e.Name, err)
		}
	}
	if err := s.validateBilling(); err != nil {
		return bad("%w", err)
	}
	for _, p := range s.Networks {
		if !p.IsValid() {
			return bad("networks: invalid prefix")
		}
	}
	for i := range s.Classes {
		if err := s.Classes[i].Validate(); err != nil {
			return bad("classes[%d]: %w", i, err)
		}
	}
	return nil
}

// equal reports whether s and o mean the same.
func (s Settings) equal(o Settings) bool {
	a, err1 := json.Marshal(s)
	b, err2 := json.Marshal(o)
	return err1 == nil && err2 == nil && bytes.Equal(a, b)
}

// AppendBinary appends the data of an acct.EntryConfig.
func (s Settings) AppendBinary(b []byte) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("asm: encode settings: %w", err)
	}
	return append(b, data...), nil
}

// ParseSettings reads what AppendBinary wrote, fills in the defaults and
// validates the result.
func ParseSettings(data []byte) (Settings, error) {
	var s Settings
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&s); err != nil {
		return Settings{}, fmt.Errorf("asm: decode settings: %w", err)
	}
	s = s.WithDefaults()
	return s, s.Validate()
}

// zeroRated reports whether usage of a class is to cost nothing.
func (s *Settings) zeroRated(class string) bool {
	return slices.ContainsFunc(s.Classes, func(r classes.Rule) bool { return r.Name == class && r.ZeroRated })
}
