package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Delivery sends accounting records to AAA servers.
type Delivery struct {
	DestinationRealm string        `yaml:"destinationRealm"`
	Peers            []Peer        `yaml:"peers"`
	Realms           []Realm       `yaml:"realms"`
	Profiles         []Profile     `yaml:"profiles"`
	Profile          string        `yaml:"profile"` // of realms and peers that name none; "" for base accounting
	TLS              TLS           `yaml:"tls"`
	Window           int           `yaml:"window"`
	Timeout          time.Duration `yaml:"timeout"`
	Reconnect        time.Duration `yaml:"reconnect"`
	Watchdog         time.Duration `yaml:"watchdog"`
	Drain            time.Duration `yaml:"drain"`
	VendorID         int           `yaml:"vendorId"`
	OptionalAVPs     []int         `yaml:"optionalAvps"`
	ResultCodes      []ResultCode  `yaml:"resultCodes"`
	Files            []FilePartner `yaml:"files"`
}

// maxDrain leaves the server of the same daemon time to answer: it is stopped
// 20 s after delivery was told to stop, at the latest.
const maxDrain = 15 * time.Second

// A FilePartner takes the records of its realm as CDR files.
type FilePartner struct {
	Realm      string        `yaml:"realm"`
	Dir        string        `yaml:"dir"`
	Every      time.Duration `yaml:"every"`
	MaxRecords int           `yaml:"maxRecords"`
}

// checkFiles reports partners that could not take files, or would get records
// another way too.
func (d *Delivery) checkFiles(report func(key, format string, args ...any), identity func(key, s string)) {
	realms, dirs := map[string]bool{}, map[string]bool{}
	for _, r := range d.Realms {
		for _, realm := range r.Realms {
			realms[strings.ToLower(realm)] = true
		}
	}
	for i, f := range d.Files {
		key := fmt.Sprintf("delivery.files[%d]", i)
		identity(key+".realm", f.Realm)
		if realms[strings.ToLower(f.Realm)] {
			report(key+".realm", "%s is in another entry, or in delivery.realms: its records go one way", f.Realm)
		}
		realms[strings.ToLower(f.Realm)] = true
		if f.Dir == "" || dirs[f.Dir] {
			report(key+".dir", "is missing or another partner's: name a directory that the files are to be in")
		}
		dirs[f.Dir] = true
		if f.Every < time.Second {
			report(key+".every", "%s is too short: at least 1s, such as 15m", f.Every)
		}
		if f.MaxRecords < 0 {
			report(key+".maxRecords", "%d is out of range: 0 for the default, or records in one file", f.MaxRecords)
		}
	}
}

// A Peer is an AAA server or relay.
type Peer struct {
	Address   netip.AddrPort `yaml:"address"`
	Host      string         `yaml:"host"`
	Priority  int            `yaml:"priority"`
	Weight    int            `yaml:"weight"`
	Profile   string         `yaml:"profile"` // of its realms that name none; "" for that of delivery
	SCTP      bool           `yaml:"sctp"`
	TLS       bool           `yaml:"tls"`
	Plaintext bool           `yaml:"plaintext"`
}

// A Realm is how the records of some Destination-Realms are delivered.
type Realm struct {
	Realms     []string `yaml:"realms"`
	Peers      []string `yaml:"peers"`   // by host
	Profile    string   `yaml:"profile"` // "" for that of its peers
	LearnHost  bool     `yaml:"learnHost"`
	Rate       int      `yaml:"rate"`       // records a second; 0 is no limit
	MaxPending int      `yaml:"maxPending"` // records before an alarm; 0 is none
}

// A ResultCode says what becomes of a record that is so answered.
type ResultCode struct {
	Code   int  `yaml:"code"`
	Vendor int  `yaml:"vendor"` // of an Experimental-Result-Code; 0 for a Result-Code
	Fate   Fate `yaml:"fate"`
}

// A Fate is what becomes of an accounting record by its answer.
type Fate string

// UnmarshalText refuses what is not a fate.
func (f *Fate) UnmarshalText(b []byte) error {
	return oneOf(f, b, "settle", "wait", "reroute", "quarantine")
}

// DefaultPeers returns the places in Peers of those that take the records of
// realms that Realms does not have: those that no entry names. Where every one
// is named, those that have the profile of delivery, so that a partner's peer
// gets no record that was not meant for it; all where none has.
func (d *Delivery) DefaultPeers() []int {
	var all, rest, plain []int
	for i, p := range d.Peers {
		all = append(all, i)
		if !slices.ContainsFunc(d.Realms, func(r Realm) bool { return r.names(p) }) {
			rest = append(rest, i)
		}
		if d.profileAt(i) == d.Profile {
			plain = append(plain, i)
		}
	}
	for _, list := range [...][]int{rest, plain} {
		if len(list) > 0 {
			return list
		}
	}
	return all
}

// PeersOf returns the places in Peers that take the records of r.
func (d *Delivery) PeersOf(r Realm) []int {
	var all []int
	for i, p := range d.Peers {
		if r.names(p) {
			all = append(all, i)
		}
	}
	return all
}

// names reports whether p takes the records of r.
func (r Realm) names(p Peer) bool {
	return len(r.Peers) == 0 || slices.ContainsFunc(r.Peers, func(h string) bool { return strings.EqualFold(h, p.Host) })
}

// check reports what would not be delivered, or to whom it must not.
func (d *Delivery) check(report func(key, format string, args ...any), identity func(key, s string)) {
	addresses, hosts := map[netip.AddrPort]bool{}, map[string]bool{}
	secure := false
	for i, p := range d.Peers {
		key := fmt.Sprintf("delivery.peers[%d]", i)
		switch {
		case !p.Address.IsValid():
			report(key+".address", "is missing: write it like 127.0.0.1:3868")
		case p.TLS && p.Plaintext:
			report(key+".plaintext", "contradicts tls: remove one of the two")
		case p.TLS && p.SCTP:
			report(key+".tls", "is over TCP alone, and DTLS over SCTP (RFC 6733, Section 2.2) is not there: remove tls or sctp")
		case !p.Address.Addr().IsLoopback() && !p.TLS && !p.Plaintext:
			report(key+".address", "%s is another host, and accounting records would cross the network in the clear: set tls to true, or plaintext where IPsec or a private link protects them", p.Address)
		}
		if addresses[p.Address] {
			report(key+".address", "%s is another peer's address", p.Address)
		}
		addresses[p.Address] = true
		if p.Host != "" {
			identity(key+".host", p.Host)
			if hosts[strings.ToLower(p.Host)] {
				report(key+".host", "%s is another peer's host: a Diameter node has one connection to each peer", p.Host)
			}
			hosts[strings.ToLower(p.Host)] = true
		} else if p.TLS {
			report(key+".host", "is missing: the certificate that the peer shows must be for it")
		}
		if p.Priority < 0 || p.Priority > 1000 {
			report(key+".priority", "%d is out of range: 0 to 1000", p.Priority)
		}
		if p.Weight < 0 || p.Weight > 1000 {
			report(key+".weight", "%d is out of range: 0 to 1000", p.Weight)
		}
		secure = secure || p.TLS
	}
	if secure || d.TLS != (TLS{}) {
		d.checkTLS(report, secure)
	}
	d.checkProfiles(report)
	d.checkRealms(report, identity, hosts)
	d.checkFiles(report, identity)
	codes := map[[2]int]bool{}
	for i, c := range d.ResultCodes {
		key := fmt.Sprintf("delivery.resultCodes[%d]", i)
		if c.Code < 1000 || c.Code > 1<<32-1 {
			report(key+".code", "%d is no result code: they begin with 1000", c.Code)
		}
		if c.Fate == "" {
			report(key+".fate", "is missing: settle, wait, reroute or quarantine")
		}
		if c.Vendor == 0 && c.Code/1000 == 2 && c.Fate != "settle" {
			report(key+".fate", "%d means success: it settles a record, whatever is configured", c.Code)
		}
		if codes[[2]int{c.Vendor, c.Code}] {
			report(key+".code", "%d is there twice", c.Code)
		}
		codes[[2]int{c.Vendor, c.Code}] = true
	}
}

func (d *Delivery) checkRealms(report func(key, format string, args ...any), identity func(key, s string), hosts map[string]bool) {
	seen := map[string]bool{}
	for i, r := range d.Realms {
		key := fmt.Sprintf("delivery.realms[%d]", i)
		if len(r.Realms) == 0 {
			report(key+".realms", "is missing: name the Destination-Realms that this is about")
		}
		for j, realm := range r.Realms {
			key := fmt.Sprintf("%s.realms[%d]", key, j)
			identity(key, realm)
			if seen[strings.ToLower(realm)] {
				report(key, "%s is in another entry too", realm)
			}
			seen[strings.ToLower(realm)] = true
		}
		for j, h := range r.Peers {
			if !hosts[strings.ToLower(h)] {
				report(fmt.Sprintf("%s.peers[%d]", key, j), "%q is the host of none of delivery.peers", h)
			}
		}
		if len(d.Peers) == 0 {
			report(key+".realms", "is of no use without delivery.peers: all records go to the server of this process")
		}
		if r.Rate < 0 {
			report(key+".rate", "%d is out of range: 0 for no limit, or records a second", r.Rate)
		}
		if r.MaxPending < 0 {
			report(key+".maxPending", "%d is out of range: 0 for no alarm, or records", r.MaxPending)
		}
	}
}

// checkTLS checks the files by which peers and we know each other.
func (d *Delivery) checkTLS(report func(key, format string, args ...any), needed bool) {
	d.TLS.check(report, "delivery.tls", needed, "a peer has tls: true", "peers")
}
