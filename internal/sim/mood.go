package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/classes"
	"tollbridge/dedup"
)

// A mood says what a run is like: how much of what goes wrong.
type mood struct {
	traffic   time.Duration // how long flows are measured
	exporters int
	gap       time.Duration // between two Messages of an exporter, at most twice this

	crashes int     // at most
	crash   float64 // at each place where one may be

	loss, double float64       // of datagrams
	cut          float64       // of a stream, at each Message
	fulls        int           // times that the disk is full
	steps        int           // of the bridge's clock
	slow         time.Duration // most that a sync of the journal takes
	answers      float64       // of AAA peers that go wrong
	refuse       bool          // records may be refused for good
	outages      int           // of AAA peers

	events  int           // of user sessions, at most
	late    float64       // of them come so
	latest  time.Duration // by at most that
	correct bool          // what they contradict is corrected

	shared bool // addresses are, by ports, and there are several address spaces

	relayed bool // another collector passes on what it collects

	weak bool // identities of 12 bits, so that different records collide

	settings asm.Settings
}

// String is the same whenever a seed is run.
func (m mood) String() string {
	type plain mood // without this method
	settings := mustEncode(m.settings)
	m.settings = asm.Settings{}
	return fmt.Sprintf("%+v, settings %s", plain(m), settings)
}

// weaken returns what the pipeline makes of identities, nil in most runs.
func (m *mood) weaken() func(dedup.Identity) dedup.Identity {
	if !m.weak {
		return nil
	}
	return func(id dedup.Identity) dedup.Identity { return id.Weak(12) }
}

func newMood(rng *rand.Rand) mood {
	some := func(p float64) float64 {
		if rng.IntN(3) == 0 {
			return 0
		}
		return p * rng.Float64()
	}
	m := mood{
		traffic:   time.Duration(4+rng.IntN(14)) * time.Minute,
		exporters: 1 + rng.IntN(3),
		gap:       time.Duration(2+rng.IntN(10)) * time.Second,
		crashes:   rng.IntN(9),
		crash:     0.002 + 0.02*rng.Float64(),
		loss:      some(0.2),
		double:    some(0.4),
		cut:       some(0.1),
		fulls:     rng.IntN(3),
		steps:     rng.IntN(3),
		slow:      30 * time.Millisecond,
		answers:   some(0.5),
		refuse:    rng.IntN(4) == 0,
		outages:   rng.IntN(4),
		events:    16,
		late:      0.3,
		latest:    2 * time.Minute,
	}
	if rng.IntN(10) == 0 { // hardly gets up
		m.crashes, m.crash = 60, 0.1
	}
	remembered := 0
	if rng.IntN(3) == 0 {
		remembered = 1 + rng.IntN(8)
	}
	early := 0
	if rng.IntN(3) == 0 {
		early = 2
	}
	if rng.IntN(3) == 0 {
		m.slow = 2 * time.Second
	}
	m.settings = asm.Settings{
		OriginHost: "bridge.visited.example", DestinationRealm: "home.example",
		Interval: time.Duration(30+30*rng.IntN(3)) * time.Second,
		Linger:   time.Duration(5+rng.IntN(60)) * time.Second, Late: time.Duration(1+rng.IntN(10)) * time.Minute,
		MinInterim: 5 * time.Second, MaxInterim: 4 * time.Minute,
		InBandIdle:  time.Duration(1+rng.IntN(5)) * time.Minute,
		DedupWindow: time.Duration(5+5*rng.IntN(4)) * time.Minute, ClockTolerance: time.Minute,
		MaxTotals: remembered, MaxRecord: 2048, EarlySets: early, EarlyWait: time.Duration(2+rng.IntN(5)) * time.Minute,
	}
	if remembered > 0 {
		// A copy below the window is known as such if its whole Message is
		// one, which the truth does not know; it would not be used then.
		m.settings.DedupWindow = 2 * time.Hour
	}
	if m.weak = rng.IntN(4) == 0; m.weak || rng.IntN(2) == 0 {
		m.settings.CompareOctets = 64 << 20 // all of it
	}
	return m.vary(rng, true)
}

// vary returns m with other settings, of those that may change in a run. All
// of them may at first.
func (m mood) vary(rng *rand.Rand, first bool) mood {
	s := &m.settings
	if first || rng.IntN(3) == 0 {
		s.Mode = asm.ModeASM
		if rng.IntN(6) == 0 {
			s.Mode = asm.ModeAAAClient
		}
	}
	s.Split = ""
	if rng.IntN(2) == 0 {
		s.Split = asm.SplitProportional
	}
	s.Networks = nil
	if rng.IntN(2) == 0 {
		s.Networks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/23"), netip.MustParsePrefix("2001:db8::/47")}
	}
	tolerance, fallback := s.UserTolerance, s.Fallback
	s.UserTolerance = 0
	if rng.IntN(3) == 0 {
		s.UserTolerance = time.Duration(rng.IntN(5000)) * time.Millisecond
	}
	s.MaxSessionAge = 0
	if rng.IntN(3) == 0 {
		s.MaxSessionAge = time.Duration(90+rng.IntN(200)) * time.Second
	}
	s.Fallback, s.Wait = "", time.Minute
	if rng.IntN(2) == 0 {
		s.Fallback = fallbackUser
	}
	if m.correct && !first {
		s.UserTolerance, s.Fallback = tolerance, fallback // whom they give what is no news of a binding
		if rng.IntN(6) == 0 {
			s.Correct = s.Late - s.Correct // to nothing and back
		}
	}
	s.Classes, s.ClassDefault = nil, ""
	if rng.IntN(2) == 0 {
		s.Classes = []classes.Rule{
			{Name: "dns", Ports: []classes.PortRange{{First: 53, Last: 53}}},
			{Name: "voice", DSCP: []uint8{46}, Protocols: []uint8{17}},
			{Name: "local", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
			{Name: "between", Internal: true, Ports: []classes.PortRange{{First: 1024, Last: 20000}}},
			{Name: "up", Direction: classes.Input, Ports: []classes.PortRange{{First: 5000, Last: 9000}}},
		}
		if rng.IntN(2) == 0 {
			s.ClassDefault = "other"
		}
		if rng.IntN(2) == 0 { // too long for one record
			for i := range s.Classes {
				s.Classes[i].Name += strings.Repeat(" of traffic", 20)
			}
		}
	}
	s.InBand, s.Exporters = nil, nil
	if rng.IntN(2) == 0 {
		s.InBand = []string{"userName"}
	}
	if rng.IntN(3) == 0 {
		s.Exporters = []asm.ExporterSettings{{Name: "east", Sampling: uint32(1 + rng.IntN(8))}}
	}
	if m.shared && rng.IntN(4) > 0 {
		s.Exporters = m.spaces(s.Exporters)
	}
	s.Exporters = m.forwarders(s.Exporters)
	if !first && rng.IntN(3) == 0 {
		if s.MaxTotals == 0 {
			s.DedupWindow = time.Duration(5+5*rng.IntN(4)) * time.Minute
		}
		s.ClockTolerance = time.Duration(30+30*rng.IntN(3)) * time.Second
	}
	if !first && rng.IntN(3) == 0 {
		s.Interval = time.Duration(30+30*rng.IntN(3)) * time.Second
	}
	return m
}

// corrects returns m with late bindings corrected, for as long as they are
// remembered or less.
func (m mood) corrects(rng *rand.Rand) mood {
	s := &m.settings
	m.correct, m.events, m.late, m.latest = true, 40, 0.6, 10*time.Minute
	if rng.IntN(2) == 0 {
		s.Late = time.Duration(1+rng.IntN(24)) * time.Hour
	}
	s.Correct = s.Late
	if rng.IntN(2) == 0 {
		s.Correct = s.Late / time.Duration(1+rng.IntN(8))
	}
	s.CorrectOctets = 64 << 20
	return m
}

// fallbackUser is accounted what nobody held.
const fallbackUser = "nobody"
