package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/cmd/tollbridge/internal/auditcmd"
	"tollbridge/ipfix"
)

// A NAS whose Stop is lost and whose next Start comes late has one user charged
// for what another had. Once the Start is durable that is put right, by a credit
// and a debit that name the record which was wrong, though the daemon is killed
// in between; audit shows the very flow.
func TestLateBinding(t *testing.T) {
	s := setup{
		data: filepath.Join(t.TempDir(), "state"), udp: "127.0.0.1:0", server: "127.0.0.1:0",
		sources: radiusUsers(t, "127.0.0.1:0") + ", correct: 1h",
	}
	d := start(t, s)
	flows := time.Now()
	told := func(session, user string, at time.Time) {
		radclient(t, d.address("users.radius.listen"), fmt.Sprintf("Acct-Status-Type = Start\nAcct-Session-Id = %q\nUser-Name = %q\n"+
			"Framed-IP-Address = 192.0.2.1\nNAS-Identifier = bng-1\nEvent-Timestamp = %d\n", session, user, at.Unix()))
	}
	told("1", "ann", flows.Add(-time.Minute))
	sendFlows(t, d.udp(), 1, agedFlow{30 * time.Second, 100}, agedFlow{10 * time.Second, 20}, agedFlow{0, 3})
	waitBooks(t, s.data, func(b sums) bool { return b.Acknowledged.Octets == 123 })

	told("2", "bob", flows.Add(-20*time.Second))
	d.kill()
	d = start(t, s)
	type cdr struct {
		SessionID string           `json:"session_id"`
		User      string           `json:"user"`
		Octets    uint64           `json:"input_octets"`
		Corrects  *acct.Correction `json:"corrects"`
	}
	var corrections []cdr
	if !until(t, func() bool {
		var all []cdr
		show(t, &all, "spool", "cdrs", "--limit", "0", "--data", s.data)
		corrections = corrections[:0]
		for _, c := range all {
			if c.Corrects != nil {
				corrections = append(corrections, c)
			}
		}
		return len(corrections) == 2
	}) {
		t.Fatalf("corrections %+v, want a credit and a debit", corrections)
	}
	for _, c := range corrections {
		user := "bob"
		if c.Corrects.Credit {
			user = "ann"
		}
		if c.User != user || c.Octets != 23 || c.Corrects.Reason != "late binding" || c.Corrects.Number == 0 {
			t.Errorf("%+v corrects %+v", c, c.Corrects)
		}
	}
	if a, b := corrections[0].Corrects, corrections[1].Corrects; a.Credit == b.Credit || a.SessionID != b.SessionID || a.Number != b.Number {
		t.Errorf("they correct %+v and %+v", a, b)
	}
	if b := audit(t, s.data); b.Accounted.Octets != 123 {
		t.Errorf("the exporter's octets: %+v", b)
	}

	var records []struct {
		ID       uint64           `json:"id"`
		Corrects *acct.Correction `json:"corrects"`
	}
	show(t, &records, "spool", "ls", "--data", s.data)
	shown := 0
	for _, r := range records {
		if r.Corrects == nil {
			continue
		}
		var o auditcmd.Origin
		show(t, &o, "audit", "record", strconv.FormatUint(r.ID, 10), "--data", s.data)
		if shown++; len(o.Differs) > 0 || o.Found != o.Increment || o.Found.Octets != 23 || len(o.Flows) != 2 || o.Flows[0].Flow != "192.0.2.1" {
			t.Errorf("record %d is made of %+v", r.ID, o)
		}
	}
	if shown != 2 {
		t.Errorf("%d corrections are listed, want 2", shown)
	}
	d.stop()
}

// An agedFlow has ended so long ago.
type agedFlow struct {
	ago    time.Duration
	octets int
}

// datedFlows is a Template of a flow's end in milliseconds, its source and its octets.
func datedFlows(t *testing.T) *ipfix.Template {
	t.Helper()
	field := func(id, length uint16) ipfix.FieldSpecifier { return ipfix.FieldSpecifier{ID: id, Length: length} }
	tmpl, err := ipfix.NewTemplate(256, field(ipfix.FlowEndMilliseconds, 8), field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 4))
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

// sendFlows sends a message of flows from 192.0.2.1 over UDP, so many times.
func sendFlows(t *testing.T, to string, times int, flows ...agedFlow) {
	t.Helper()
	exporter, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer exporter.Close()
	tmpl := datedFlows(t)
	e := ipfix.NewEncoder(1, 0)
	if err := e.AddTemplate(tmpl); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, f := range flows {
		if err := e.AddRecord(tmpl, now.Add(-f.ago), netip.MustParseAddr("192.0.2.1"), f.octets); err != nil {
			t.Fatal(err)
		}
	}
	message := bytes.Clone(e.Flush(uint32(now.Unix())))
	for range times {
		if _, err := exporter.Write(message); err != nil {
			t.Fatal(err)
		}
	}
}
