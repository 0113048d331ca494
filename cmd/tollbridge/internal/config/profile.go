package config

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// A Profile says how accounting records are written.
type Profile struct {
	Name           string       `yaml:"name"`
	Kind           Kind         `yaml:"kind"`
	Application    int          `yaml:"application"`
	Records        RecordsAs    `yaml:"records"`
	Volumes        Volumes      `yaml:"volumes"`
	ServiceContext string       `yaml:"serviceContext"`
	OptionalAVPs   []int        `yaml:"optionalAvps"`
	AVPs           []Edit       `yaml:"avps"`
	Allow          []string     `yaml:"allow"`
	Identity       UserIdentity `yaml:"identity"`
	Key            Secret       `yaml:"key"`
}

// An Edit changes the AVPs of a profile.
type Edit struct {
	Action Action   `yaml:"action"`
	In     []string `yaml:"in"`
	AVP    string   `yaml:"avp"`
	To     string   `yaml:"to"`
	Value  string   `yaml:"value"`
}

// Words of a Profile.
type (
	Kind         string // what it begins with
	RecordsAs    string // START, INTERIM and STOP, or EVENT alone
	Volumes      string // since the session's start, or since the record before
	UserIdentity string // what becomes of a user's name
	Action       string // of an Edit
)

// UnmarshalText refuses what is not a kind.
func (k *Kind) UnmarshalText(b []byte) error { return oneOf(k, b, "base", "nasreq", "rf") }

// UnmarshalText refuses what is neither session nor event.
func (r *RecordsAs) UnmarshalText(b []byte) error { return oneOf(r, b, "session", "event") }

// UnmarshalText refuses what is neither cumulative nor interval.
func (v *Volumes) UnmarshalText(b []byte) error { return oneOf(v, b, "cumulative", "interval") }

// UnmarshalText refuses what can't be done with a name.
func (i *UserIdentity) UnmarshalText(b []byte) error {
	return oneOf(i, b, "keep", "remove", "chargeable", "pseudonym")
}

// UnmarshalText refuses what can't be done with an AVP.
func (a *Action) UnmarshalText(b []byte) error { return oneOf(a, b, "drop", "rename", "set", "add") }

// ProfileOf returns the name of the profile by which the records of r are
// written: r's, else its peers', which check has found to agree, else that of
// delivery. "" is base accounting.
func (d *Delivery) ProfileOf(r Realm) string {
	if r.Profile != "" {
		return r.Profile
	}
	return d.profileOf(d.PeersOf(r))
}

// DefaultProfile is ProfileOf for the realms that Realms does not have.
func (d *Delivery) DefaultProfile() string { return d.profileOf(d.DefaultPeers()) }

// profileOf returns that of peers that agree.
func (d *Delivery) profileOf(peers []int) string {
	if len(peers) == 0 {
		return d.Profile // all records go to the server of this process
	}
	return d.profileAt(peers[0])
}

// profileAt returns that of the peer at a place.
func (d *Delivery) profileAt(i int) string { return cmp.Or(d.Peers[i].Profile, d.Profile) }

// checkProfiles reports what a profile says twice, or not at all. What its AVPs
// are is for the dictionary to say.
func (d *Delivery) checkProfiles(report func(key, format string, args ...any)) {
	names := map[string]bool{}
	for i, p := range d.Profiles {
		key := fmt.Sprintf("delivery.profiles[%d]", i)
		if p.Name == "" {
			report(key+".name", "is missing: realms name a profile by it")
		}
		if names[p.Name] {
			report(key+".name", "%q is another profile's name", p.Name)
		}
		names[p.Name] = true
		if p.Volumes == "cumulative" && (p.Kind == "rf" || p.Records == "event") {
			report(key+".volumes", "can't be cumulative: the records of kind rf, and event records, say what they add")
		}
		if p.Identity == "pseudonym" {
			p.Key.check(report, key+".key")
		} else if p.Key != (Secret{}) {
			report(key+".key", "is of no use unless identity is pseudonym")
		}
		for j, e := range p.AVPs {
			key := fmt.Sprintf("%s.avps[%d]", key, j)
			if e.Action == "" {
				report(key+".action", "is missing: drop, rename, set or add")
			}
			if e.AVP == "" {
				report(key+".avp", "is missing: name an AVP, such as Class or 10415:847")
			}
			if (e.To != "") != (e.Action == "rename") {
				report(key+".to", "goes with action rename, and with no other")
			}
			if e.Value != "" && e.Action != "set" && e.Action != "add" {
				report(key+".value", "goes with the actions set and add alone")
			}
		}
	}
	named := func(key, name string) {
		if name != "" && !names[name] {
			report(key, "%q is the name of none of delivery.profiles", name)
		}
	}
	named("delivery.profile", d.Profile)
	for i, p := range d.Peers {
		named(fmt.Sprintf("delivery.peers[%d].profile", i), p.Profile)
	}
	for i, r := range d.Realms {
		named(fmt.Sprintf("delivery.realms[%d].profile", i), r.Profile)
	}
	d.checkPeersProfiles(report)
}

// checkPeersProfiles reports peers of one realm that differ in their profile
// where the realm has none. What was sent to one of them goes unchanged to
// another that takes over (RFC 6733, Section 5.5.4), so it could be as a
// partner must not get it.
func (d *Delivery) checkPeersProfiles(report func(key, format string, args ...any)) {
	agree := func(peers []int, whose, otherwise string) {
		for _, i := range peers {
			if first := peers[0]; d.profileAt(i) != d.profileAt(first) {
				report(fmt.Sprintf("delivery.peers[%d].profile", i), "is %s, but that of delivery.peers[%d] is %s, and what one of them got of %s goes to the other unchanged when that takes over: give both the same, or %s",
					d.describe(i), first, d.describe(first), whose, otherwise)
				return
			}
		}
	}
	for i, r := range d.Realms {
		if r.Profile == "" {
			agree(d.PeersOf(r), fmt.Sprintf("delivery.realms[%d] (%s)", i, strings.Join(r.Realms, ", ")), "name a profile there")
		}
	}
	agree(d.DefaultPeers(), "the realms that delivery.realms does not have",
		"leave only those out of delivery.realms that are to serve such realms, or have delivery.profile name theirs")
}

// describe returns the profile of the peer at a place for people.
func (d *Delivery) describe(i int) string {
	switch {
	case d.Peers[i].Profile != "":
		return strconv.Quote(d.Peers[i].Profile)
	case d.Profile != "":
		return strconv.Quote(d.Profile) + " (of delivery.profile)"
	}
	return "base accounting (it names none)"
}
