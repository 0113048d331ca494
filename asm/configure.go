package asm

import (
	"context"

	"tollbridge/asm/classes"
	"tollbridge/dict"
)

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
	m.classes = classes.NewClassifier(s.Classes, s.ClassDefault, m.class)
	m.users.Tolerate(s.UserTolerance.Milliseconds())
	m.dictionary = dict.For(s.VendorID)
}

// class returns the index of a class's name.
func (m *Module) class(name string) classes.Index {
	for i, n := range m.classNames {
		if n == name {
			return classes.Index(i)
		}
	}
	if len(m.classNames) == int(classes.None) {
		return 0 // more classes than anybody has
	}
	m.classNames = append(m.classNames, name)
	return classes.Index(len(m.classNames) - 1)
}
