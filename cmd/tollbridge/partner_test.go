package main

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"
	"layeh.com/radius/rfc3162"
	"layeh.com/radius/rfc4372"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/userscmd"
	"tollbridge/dict/avp"
	"tollbridge/internal/certtest"
	"tollbridge/internal/peertest"
)

// TestPartner has a partner's daemon receive records of two realms over mutual
// TLS: one reads pseudonyms, the other Chargeable-User-Identities, and both no
// AVP but what their profile allows. Nothing at the partner has a user's name;
// our own commands go back from it, and the two sides reconcile. While the
// partner is away, each realm's waiting records are counted against its own
// quota.
func TestPartner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	capture, _ := files(t, dir)
	ca := certtest.NewAuthority(t)
	port := peertest.FreePorts(t, 1)[0]
	s := partnerSetup(t, dir, ca, port)

	d := start(t, s)
	tellOfCarol(t, d.address("users.radius.listen"), rfc2866.AcctStatusType_Value_Start)
	tellOfCarol(t, d.address("users.radius.listen"), rfc2866.AcctStatusType_Value_Stop)
	meterCapture(t, capture, d.tcp())
	octets, _ := captureOctets(t)
	if !until(t, func() bool { b := audit(t, s.data); return b.Received.Octets >= octets && b.Open.IsZero() }) {
		t.Fatalf("the books stay %+v", audit(t, s.data))
	}
	d.kill()
	d = start(t, s) // it counts at the start, and once a minute
	d.waitLog(`too many records wait for a partner" realms=home.example pending=\d+ maxPending=1`)
	d.waitMetric(`delivery_realm_over_quota{realms="home.example"}`, func(v float64) bool { return v == 1 })
	if v := d.metric(`delivery_realm_over_quota{realms="roam.example"}`); v != 0 || d.metric(`delivery_realm_pending{realms="roam.example"}`) == 0 {
		t.Errorf("the other partner's records are over quota (%v), or are not counted", v)
	}

	files := ca.Write(ca.Issue("server.aaa.example"))
	partner := start(t, setup{
		data: filepath.Join(dir, "partner"), server: "127.0.0.1:0", origin: "bridge.aaa.example",
		serving: fmt.Sprintf(", tlsListen: ['127.0.0.1:%s'], clients: [bridge.isp.example], tls: {certificate: %s, key: %s, ca: %s}",
			port, files.Certificate, files.Key, files.CA),
	})
	sent := waitEnd(t, s.data)
	if sent.Received.Octets != octets || sent.Acknowledged != sent.Accounted {
		t.Errorf("the books are %+v", sent)
	}
	records := acknowledged(t, s.data)
	counted := 0.0
	for _, realm := range []string{"home.example", "roam.example"} {
		n := d.metric(fmt.Sprintf(`delivery_realm_records_total{outcome="acknowledged",realms=%q}`, realm))
		if counted += n; n == 0 {
			t.Errorf("no record for %s is counted", realm)
		}
	}
	if int(counted) != records {
		t.Errorf("%v records are counted for the two realms, %d are acknowledged", counted, records)
	}
	for _, d := range []*daemon{d, partner} {
		d.stop()
		audit(t, d.data)
	}

	pseudonyms := checkPartnersRecords(t, partner.data)
	checkNoName(t, partner.data, "alice", "bob", "carol")
	users := whose(t, s.data, pseudonyms)
	got := map[string]acct.Usage{}
	for name, u := range bill(charges(t, partner.data)) {
		if name == "" {
			name = "carol@roam.example"
		} else {
			name = users[name]
		}
		got[strings.TrimSuffix(name, "@roam.example")] = u
	}
	checkBill(t, got)

	if _, errOut, status := cli(t, "users", "pseudonym", strings.Repeat("0", 32), "--data", s.data); status != 1 || !strings.Contains(errOut, "nobody of 3 users is 000") {
		t.Errorf("a pseudonym of nobody: status %d, %s", status, errOut)
	}
	if out, errOut, status := cli(t, "reconcile", s.data, filepath.Join(partner.data, "cdr.db")); status != 0 {
		t.Errorf("reconcile: status %d\n%s%s", status, out, errOut)
	}
	s.peers = []string{peerAt("198.51.100.9:3868", "aaa.home.example")}
	if _, errOut, status := cli(t, "check", s.write(t)); status == 0 || !strings.Contains(errOut, "would cross the network in the clear: set tls to true") {
		t.Errorf("a partner without TLS: status %d, %s", status, errOut)
	}
}

// partnerSetup is one with users alice and bob of home.example in a file, whom a
// NAS may add to, and a partner at a port who gets no names.
func partnerSetup(t *testing.T, dir string, ca *certtest.Authority, port string) setup {
	t.Helper()
	users, key := filepath.Join(dir, "users.csv"), filepath.Join(dir, "key")
	var list strings.Builder
	list.WriteString("prefix,user,from,until,realm\n")
	for prefix, user := range map[string]string{"192.0.2.11": "alice", "2001:db8:1:1::/64": "alice", "192.0.2.12": "bob", "2001:db8:1:2::/64": "bob"} {
		fmt.Fprintf(&list, "%s,%s,2026-11-22T00:00:00Z,2026-11-22T01:59:00Z,home.example\n", prefix, user)
	}
	for name, content := range map[string]string{users: list.String(), key: "0123456789abcdef0123456789abcdef\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const counters = "Event-Timestamp, Acct-Session-Time, Accounting-Input-Octets, Accounting-Output-Octets, Accounting-Input-Packets, Accounting-Output-Packets"
	own := ca.Write(ca.Issue("bridge.isp.example"))
	return setup{
		data: filepath.Join(dir, "state"), tcp: "127.0.0.1:0", users: users, realm: "home.example",
		sources: strings.TrimSuffix(radiusUsers(t, "127.0.0.1:0"), "}") + ", realm: true}",
		peers:   []string{fmt.Sprintf("{address: '127.0.0.1:%s', host: server.aaa.example, tls: true}", port)},
		delivery: fmt.Sprintf(", tls: {certificate: %s, key: %s, ca: %s}", own.Certificate, own.Key, own.CA) +
			", realms: [{realms: [home.example], profile: hidden, maxPending: 1}, {realms: [roam.example], profile: chargeable, maxPending: 1000}]" +
			", profiles: [{name: hidden, identity: pseudonym, key: {file: " + key + "}, allow: [User-Name, " + counters + "]}" +
			", {name: chargeable, identity: chargeable, allow: [Chargeable-User-Identity, " + counters + "]}]",
	}
}

// tellOfCarol has a NAS tell of the bundled capture's third user, with her
// Chargeable-User-Identity: the session's beginning, or its end.
func tellOfCarol(t *testing.T, address string, status rfc2866.AcctStatusType) {
	t.Helper()
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	if status == rfc2866.AcctStatusType_Value_Stop {
		at = at.Add(time.Hour + 59*time.Minute)
	}
	prefix := netip.MustParsePrefix("2001:db8:1:3::/64")
	p := radius.New(radius.CodeAccountingRequest, []byte(radiusSecret))
	for _, err := range []error{
		rfc2866.AcctStatusType_Set(p, status),
		rfc2866.AcctSessionID_SetString(p, "0001"), rfc2865.NASIdentifier_SetString(p, "bng-1"),
		rfc2865.UserName_SetString(p, "carol@roam.example"), rfc4372.ChargeableUserIdentity_SetString(p, "cui-0007"),
		rfc2865.FramedIPAddress_Set(p, net.IPv4(192, 0, 2, 13)), rfc2869.EventTimestamp_Set(p, at),
		rfc3162.FramedIPv6Prefix_Set(p, &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), 128)}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := radius.Exchange(t.Context(), p, address); err != nil {
		t.Fatal(err)
	}
}

// checkPartnersRecords says of each CDR at the partner whether it has what it
// may have and no more, and returns the pseudonyms.
func checkPartnersRecords(t *testing.T, data string) []string {
	t.Helper()
	list := storedCDRs(t, data)
	allowed := []uint32{
		avp.SessionID, avp.OriginHost, avp.OriginRealm, avp.DestinationRealm, avp.DestinationHost,
		avp.AccountingRecordType, avp.AccountingRecordNumber, avp.AcctApplicationID,
		avp.EventTimestamp, avp.AcctSessionTime,
		avp.AccountingInputOctets, avp.AccountingOutputOctets, avp.AccountingInputPackets, avp.AccountingOutputPackets,
	}
	hidden := regexp.MustCompile("^[0-9a-f]{32}$")
	pseudonyms := map[string]bool{}
	for _, c := range list {
		want, other := uint32(avp.UserName), uint32(avp.ChargeableUserIdentity)
		if realm, _ := avp.Find(c.AVPs, avp.DestinationRealm, 0); string(realm.Data) == "roam.example" {
			want, other = other, want
		}
		for a, err := range avp.Scan(c.AVPs) {
			if err != nil {
				t.Fatal(err)
			}
			if a.Vendor != 0 || a.Code != want && !slices.Contains(allowed, a.Code) {
				t.Errorf("%s/%d: AVP %d of vendor %d was not to leave", c.SessionID, c.Number, a.Code, a.Vendor)
			}
		}
		name, _ := avp.Find(c.AVPs, want, 0)
		switch {
		case want == avp.UserName && hidden.Match(name.Data):
			pseudonyms[string(name.Data)] = true
		case want == avp.UserName || string(name.Data) != "cui-0007":
			t.Errorf("%s/%d is of %q, AVP %d", c.SessionID, c.Number, name.Data, want)
		}
		if _, ok := avp.Find(c.AVPs, other, 0); ok {
			t.Errorf("%s/%d has AVP %d", c.SessionID, c.Number, other)
		}
	}
	return slices.Sorted(maps.Keys(pseudonyms))
}

// checkNoName looks for names in every file of a state directory.
func checkNoName(t *testing.T, data string, names ...string) {
	t.Helper()
	looked := 0
	err := filepath.WalkDir(data, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if looked += len(b); err != nil {
			return err
		}
		for _, name := range names {
			if bytes.Contains(b, []byte(name)) {
				t.Errorf("%s has the name %s", path, name)
			}
		}
		return nil
	})
	if err != nil || looked == 0 {
		t.Errorf("%d octets (%v)", looked, err)
	}
}

// whose goes back from pseudonyms to users, and to the pseudonyms again.
func whose(t *testing.T, data string, pseudonyms []string) map[string]string {
	t.Helper()
	var views, again []userscmd.Pseudonym
	show(t, &views, append([]string{"users", "pseudonym", "--data", data}, pseudonyms...)...)
	users := map[string]string{}
	var names []string
	for _, v := range views {
		users[v.Pseudonym] = v.User
		names = append(names, v.User)
		if !slices.Equal(v.Realms, []string{"home.example"}) {
			t.Errorf("%s is known as %s to %v", v.User, v.Pseudonym, v.Realms)
		}
	}
	show(t, &again, "users", "pseudonym", "--data", data, "--of", strings.Join(names, ","))
	if len(users) != 2 || len(again) != 2 || users[again[0].Pseudonym] != again[0].User || users[again[1].Pseudonym] != again[1].User {
		t.Errorf("%+v, and back %+v", views, again)
	}
	return users
}
