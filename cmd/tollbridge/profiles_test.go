package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
	"tollbridge/internal/peertest"
)

// TestProfiles meters the bundled capture and delivers its records by each
// profile, to the Erlang/OTP accounting server or through freeDiameter, with
// TLS too. Each user is billed what tshark counted, and tshark finds nothing
// malformed and no unknown AVP on the wire. In one row two peers have two
// realms, and each names its own profile.
func TestProfiles(t *testing.T) {
	for _, c := range []struct {
		name, profile string
		classes       string
		relay, tls    bool
		start         func(*testing.T) erlang // nil for startErlang
		ours          string                  // profile of our own server, which then has all realms but carol's
		bill          func(*testing.T, erlang, int) map[string]acct.Usage
	}{
		{name: "NASREQ over freeDiameter", profile: "kind: nasreq, optionalAvps: [6]", relay: true, bill: billSessions},
		{name: "NASREQ coupled", profile: "kind: nasreq, application: 1", start: startNASREQ, bill: billSessions},
		{name: "NASREQ coupled to our own server, Rf to another peer", profile: "kind: rf, optionalAvps: [461, 873]", bill: billRf,
			ours: "kind: nasreq, application: 1"},
		{name: "3GPP Rf with Service-Data-Containers", profile: "kind: rf, optionalAvps: [461, 873]", bill: billContainers,
			classes: ", classes: [{name: web, ports: ['80', '443'], zeroRated: true}, {name: rest}]"},
		{name: "3GPP Rf over freeDiameter with TLS", profile: "kind: rf, optionalAvps: [461, 873]", relay: true, tls: true, bill: billRf},
		{name: "EVENT records and other names", bill: billSessions,
			profile: "records: event, avps: [{action: set, avp: NAS-Identifier, value: bridge-7}, {action: drop, avp: Class-Usage}, {action: rename, avp: Acct-Multi-Session-Id, to: Acct-Session-Id}]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			capture, users := files(t, dir)
			if c.start == nil {
				c.start = startErlang
			}
			e := c.start(t)
			ports := []string{e.port}
			s := setup{
				data: filepath.Join(dir, "state"), tcp: "127.0.0.1:0", users: users,
				peers: []string{peerAt(e.address(), "acct.home.example")}, realm: "home.example",
				counting: c.classes,
				delivery: fmt.Sprintf(", profile: p, profiles: [{name: p, %s}]", c.profile),
			}
			var aaa *daemon
			if c.ours != "" {
				aaa = start(t, setup{
					data: filepath.Join(dir, "aaa"), server: "127.0.0.1:0", origin: "bridge.aaa.example",
					serving: ", clients: [bridge.isp.example], accessServers: [nas.isp.example]",
				})
				_, port, err := net.SplitHostPort(aaa.server())
				if err != nil {
					t.Fatal(err)
				}
				ports = append(ports, port)
				giveRealm(t, users, "carol", "roam.example")
				s.peers = []string{peerWith(aaa.server(), "server.aaa.example", "q"), peerWith(e.address(), "acct.home.example", "p")}
				s.delivery = fmt.Sprintf(", realms: [{realms: [roam.example], peers: [acct.home.example]}], profiles: [{name: p, %s}, {name: q, %s}]", c.profile, c.ours)
			}
			if c.relay {
				r := runRelay(t, e)
				ports = append(ports, r.port)
				s.peers = []string{peerAt("127.0.0.1:"+r.port, "relay.visited.example")}
				if c.tls {
					s.origin = "bridge.visited.example"
					s.peers = []string{fmt.Sprintf("{address: '127.0.0.1:%s', host: relay.visited.example, tls: true}", r.secure)}
					s.delivery += fmt.Sprintf(", tls: {certificate: %[1]s/%[2]s.pem, key: %[1]s/%[2]s.key, ca: %[1]s/ca.pem}", r.certs, s.origin)
				}
			}
			stopCapture := captureTraffic(t, ports)
			d := start(t, s)
			meter := []string{"meter", "-r", capture, "--active-timeout", "3s", "--idle-timeout", "2s", "--to", d.tcp()}
			if out, errOut, status := cli(t, meter...); status != 0 {
				t.Fatalf("meter: %s%s", out, errOut)
			}
			octets, _ := captureOctets(t)
			waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets >= octets })
			waitEnd(t, d.data)
			d.stop()
			records := acknowledged(t, d.data)
			got := map[string]acct.Usage{}
			if c.ours != "" {
				stored := charges(t, aaa.data)
				got = bill(stored)
				checkApplications(t, aaa.data, 1)
				if users := slices.Sorted(maps.Keys(got)); !slices.Equal(users, []string{"alice", "bob"}) {
					t.Errorf("our own server bills %q, want alice and bob", users)
				}
				records -= len(stored)
			}
			for user, u := range c.bill(t, e, records) {
				got[user] = got[user].Plus(u)
			}
			truth := captureTruth(t)
			for user, want := range truth {
				if user != nobody && (got[user].InputOctets != want.InputOctets || got[user].OutputOctets != want.OutputOctets) {
					t.Errorf("%s is billed %+v, but tshark counted %+v", user, got[user], want)
				}
			}
			if stopCapture == nil {
				peertest.Missing(t, "tshark does not judge it, since capturing packets needs root")
			}
			judge(t, stopCapture(), ports)
		})
	}
}

// peerWith is a peer that names its profile.
func peerWith(address, host, profile string) string {
	return strings.TrimSuffix(peerAt(address, host), "}") + ", profile: " + profile + "}"
}

// giveRealm has a user of a users file belong to a realm.
func giveRealm(t *testing.T, file, user, realm string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "prefix,"):
			line += ",realm"
		case strings.Contains(line, ","+user+","):
			line += "," + realm
		case !strings.HasPrefix(line, "#"):
			line += ","
		}
		out.WriteString(line + "\n")
	}
	if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// checkApplications says of each CDR whether it was sent under an
// Acct-Application-Id.
func checkApplications(t *testing.T, data string, want uint32) {
	t.Helper()
	for _, c := range storedCDRs(t, data) {
		a, _ := avp.Find(c.AVPs, avp.AcctApplicationID, 0)
		if got, err := a.Uint32(); err != nil || got != want {
			t.Errorf("%s/%d has Acct-Application-Id %d (%v)", c.SessionID, c.Number, got, err)
		}
	}
}

func billSessions(t *testing.T, e erlang, n int) map[string]acct.Usage {
	t.Helper()
	return bill(e.charges(t, n))
}

// billContainers is billRf, and compares the Service-Data-Containers with that:
// those of zero-rated classes say so, to tshark too.
func billContainers(t *testing.T, e erlang, n int) map[string]acct.Usage {
	t.Helper()
	billed := billRf(t, e, n)
	var all, contained, free acct.Usage
	for _, u := range billed {
		all = all.Plus(u)
	}
	for _, avps := range e.unique(t) {
		service, _ := avp.Find(avps, 873, dict.Vendor3GPP)
		ps, _ := avp.Find(service.Data, 874, dict.Vendor3GPP)
		for a, err := range avp.Scan(ps.Data) {
			if err != nil {
				t.Fatal(err)
			}
			if !a.Is(2040, dict.Vendor3GPP) {
				continue
			}
			u := volumesOf(a.Data)
			contained = contained.Plus(u)
			name, _ := avp.Find(a.Data, 1004, dict.Vendor3GPP)
			rated, zero := avp.Find(a.Data, dict.ZeroRated, dict.DefaultVendor)
			if zero != (string(name.Data) == "web") || rated.Mandatory() {
				t.Errorf("class %q, zero-rated %v, %v", name.Data, zero, rated)
			}
			if zero {
				free = free.Plus(u)
			}
		}
	}
	if contained != all || free == (acct.Usage{}) || free == all {
		t.Errorf("Service-Data-Containers have %+v, %+v of it zero-rated; Traffic-Data-Volumes %+v", contained, free, all)
	}
	return billed
}

// volumesOf returns the Accounting-Input-Octets and -Output-Octets among AVPs.
func volumesOf(avps []byte) (u acct.Usage) {
	for code, n := range map[uint32]*uint64{avp.AccountingInputOctets: &u.InputOctets, avp.AccountingOutputOctets: &u.OutputOctets} {
		if a, ok := avp.Find(avps, code, 0); ok {
			*n, _ = a.Uint64()
		}
	}
	return u
}

// billRf adds up the Traffic-Data-Volumes of all records.
func billRf(t *testing.T, e erlang, n int) map[string]acct.Usage {
	t.Helper()
	e.charges(t, n)
	find := func(avps []byte, code, vendor uint32) []byte {
		a, _ := avp.Find(avps, code, vendor)
		return a.Data
	}
	billed := map[string]acct.Usage{}
	for _, avps := range e.unique(t) {
		service := find(avps, 873, dict.Vendor3GPP)
		user := string(find(find(service, 443, 0), 444, 0))
		ps := find(service, 874, dict.Vendor3GPP)
		billed[user] = billed[user].Plus(volumesOf(find(ps, 2046, dict.Vendor3GPP)))
		if context := string(find(avps, 461, 0)); context != dict.DefaultServiceContext {
			t.Errorf("Service-Context-Id %q", context)
		}
	}
	return billed
}

// unique returns the AVPs of the requests that it has accounted for, of each
// Session-Id and number once.
func (e erlang) unique(t *testing.T) map[string][]byte {
	t.Helper()
	b, err := os.ReadFile(e.file)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for line := range strings.Lines(string(b)) {
		var a struct{ AVPs [][]any }
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		avps := joined(t, a.AVPs)
		r, err := dict.For(0).ParseRecord(avps)
		if err != nil {
			t.Fatal(err)
		}
		all[fmt.Sprint(r.SessionID, "/", r.Number)] = avps
	}
	return all
}

// TestCheckProfiles: what of a profile the dictionary does not bear out is
// reported by "tollbridge check", with the place.
func TestCheckProfiles(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	for profile, want := range map[string]string{
		"avps: [{action: drop, avp: Nonsense}]":                                          `delivery.profiles[0]: avps[0]: dict: "Nonsense": no such AVP`,
		"avps: [{action: set, avp: NAS-Port, value: x}]":                                 `avps[0]: NAS-Port: dict: "x" is no value of type Unsigned32`,
		"avps: [{action: rename, avp: Class, to: User-Name}]":                            "Class is of type OctetString, which can't become User-Name of type UTF8String",
		"avps: [{action: drop, in: [Class], avp: NAS-Port}]":                             "in: Class is of type OctetString, not a group",
		"avps: [{action: drop, avp: Session-Id}]":                                        "AVP 263 must be what it is",
		"kind: base, application: 1":                                                     "accounting is sent under 3",
		"kind: rf, volumes: cumulative":                                                  "delivery.profiles[0].volumes: can't be cumulative",
		"identity: pseudonym":                                                            "delivery.profiles[0].key: is missing",
		"identity: pseudonym, key: {file: " + key + "}":                                  "has 5 octets, wants at least 16",
		"avps: [{action: add, avp: GGSN-Address, value: 192.0.2.1}], allow: [No-Such]":   `allow[0]: dict: "No-Such": no such AVP`,
		"avps: [{action: add, avp: '10415:847', value: 192.0.2.1}], allow: ['10415:99']": "",
	} {
		s := setup{data: filepath.Join(t.TempDir(), "state"), tcp: "127.0.0.1:0", server: "127.0.0.1:0", delivery: ", profiles: [{name: p, " + profile + "}]"}
		_, errOut, status := cli(t, "check", s.write(t))
		if (status == 0) != (want == "") || !strings.Contains(errOut, want) || strings.Contains(errOut, "short") {
			t.Errorf("%s: status %d, %s, want %q", profile, status, errOut, want)
		}
	}
}
