package aaaclient

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
)

// A desk is a Stepper with a connection to each of its peers, two at first.
type desk struct {
	t      *testing.T
	outbox *outboxModel
	client *Client
	s      *Stepper
	now    time.Time
	conns  []*deskConn
}

func newDesk(t *testing.T, records []acct.Record, change func(*Config)) *desk {
	t.Helper()
	d := &desk{t: t, outbox: newOutbox(), now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	d.outbox.add(records...)
	cfg := client(d.outbox, "192.0.2.1:3868", "192.0.2.2:3868")
	cfg.Peers[0].Host, cfg.Peers[1].Host = "one.home.example", "two.home.example"
	if change != nil {
		change(&cfg)
	}
	var err error
	if d.client, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	d.s = d.client.Stepper()
	d.conns = make([]*deskConn, len(cfg.Peers))
	for i := range d.conns {
		d.open(i)
	}
	d.s.Woken()
	d.work()
	return d
}

func (d *desk) open(i int) {
	d.conns[i] = &deskConn{}
	d.s.Opened(i, d.conns[i])
}

// work does what can be done now.
func (d *desk) work() {
	d.t.Helper()
	for range 10_000 {
		d.s.Round(d.now)
		if !d.s.Work(d.t.Context()) {
			return
		}
		d.s.Done(d.now)
	}
	d.t.Fatal("there is no end of work")
}

// answer answers a request of a peer.
func (d *desk) answer(i int, m peer.Message, result uint32, text string, failed []byte) {
	d.t.Helper()
	n := peer.Node{OriginHost: d.client.cfg.Peers[i].Host, OriginRealm: "home.example"}
	d.receive(i, n.AppendError(nil, m, result, text, failed))
}

func (d *desk) receive(i int, answer []byte) {
	d.t.Helper()
	if err := d.s.Received(i, answer); err != nil {
		d.t.Fatal(err)
	}
	d.work()
}

// experimental returns the answer with an Experimental-Result.
func experimental(m peer.Message, vendor, code uint32) []byte {
	b := peer.AppendAnswerHeader(nil, m, avp.ResultSuccess)
	id, _ := avp.Find(m.AVPs(), avp.SessionID, 0)
	b = id.Append(b)
	b, group := avp.Begin(b, avp.ExperimentalResult, 0, avp.FlagMandatory)
	b = avp.AppendUint32(b, avp.VendorID, 0, avp.FlagMandatory, vendor)
	b = avp.AppendUint32(b, avp.ExperimentalResultCode, 0, avp.FlagMandatory, code)
	avp.End(b, group)
	b = avp.AppendString(b, avp.OriginHost, 0, avp.FlagMandatory, "one.home.example")
	avp.SetLength(b)
	return b
}

// Every Result-Code of RFC 6733, Section 7.1, and those of vendors by their
// class (Section 7.7): what becomes of the record that is so answered. The
// table in docs/delivery.md says the same.
func TestFateOfEveryResultCode(t *testing.T) {
	type row struct {
		name   string
		vendor uint32
		code   uint32
		want   Fate
	}
	rows := []row{
		{"DIAMETER_MULTI_ROUND_AUTH", 0, 1001, Quarantine},
		{"DIAMETER_SUCCESS", 0, 2001, Settle},
		{"DIAMETER_LIMITED_SUCCESS", 0, 2002, Settle},
		{"DIAMETER_COMMAND_UNSUPPORTED", 0, 3001, Quarantine},
		{"DIAMETER_UNABLE_TO_DELIVER", 0, 3002, Wait},
		{"DIAMETER_REALM_NOT_SERVED", 0, 3003, Reroute},
		{"DIAMETER_TOO_BUSY", 0, 3004, Wait},
		{"DIAMETER_LOOP_DETECTED", 0, 3005, Reroute},
		{"DIAMETER_REDIRECT_INDICATION", 0, 3006, Reroute},
		{"DIAMETER_APPLICATION_UNSUPPORTED", 0, 3007, Quarantine},
		{"DIAMETER_INVALID_HDR_BITS", 0, 3008, Quarantine},
		{"DIAMETER_INVALID_AVP_BITS", 0, 3009, Quarantine},
		{"DIAMETER_UNKNOWN_PEER", 0, 3010, Reroute},
		{"DIAMETER_AUTHENTICATION_REJECTED", 0, 4001, Wait},
		{"DIAMETER_OUT_OF_SPACE", 0, 4002, Wait},
		{"ELECTION_LOST", 0, 4003, Wait},
		{"DIAMETER_AVP_UNSUPPORTED", 0, 5001, Quarantine},
		{"DIAMETER_UNKNOWN_SESSION_ID", 0, 5002, Quarantine},
		{"DIAMETER_AUTHORIZATION_REJECTED", 0, 5003, Quarantine},
		{"DIAMETER_INVALID_AVP_VALUE", 0, 5004, Quarantine},
		{"DIAMETER_MISSING_AVP", 0, 5005, Quarantine},
		{"DIAMETER_RESOURCES_EXCEEDED", 0, 5006, Wait},
		{"DIAMETER_CONTRADICTING_AVPS", 0, 5007, Quarantine},
		{"DIAMETER_AVP_NOT_ALLOWED", 0, 5008, Quarantine},
		{"DIAMETER_AVP_OCCURS_TOO_MANY_TIMES", 0, 5009, Quarantine},
		{"DIAMETER_NO_COMMON_APPLICATION", 0, 5010, Reroute},
		{"DIAMETER_UNSUPPORTED_VERSION", 0, 5011, Reroute},
		{"DIAMETER_UNABLE_TO_COMPLY", 0, 5012, Wait},
		{"DIAMETER_INVALID_BIT_IN_HEADER", 0, 5013, Quarantine},
		{"DIAMETER_INVALID_AVP_LENGTH", 0, 5014, Quarantine},
		{"DIAMETER_INVALID_MESSAGE_LENGTH", 0, 5015, Quarantine},
		{"DIAMETER_INVALID_AVP_BIT_COMBO", 0, 5016, Quarantine},
		{"DIAMETER_NO_COMMON_SECURITY", 0, 5017, Reroute},
		{"a success that the RFC does not name", 0, 2999, Settle},
		{"a transient failure that the RFC does not name", 0, 4999, Wait},
		{"a protocol error that the RFC does not name", 0, 3999, Quarantine},
		{"a permanent failure that the RFC does not name", 0, 5999, Quarantine},
		{"a class that the RFC does not name", 0, 6000, Quarantine},
		{"an Experimental-Result of success", 10415, 2021, Settle},
		{"a transient Experimental-Result", 10415, 4010, Wait},
		{"a permanent Experimental-Result", 10415, 5030, Quarantine},
		{"an Experimental-Result with a number of the RFC's", 10415, 3002, Quarantine},
	}
	page, err := os.ReadFile(filepath.Join("..", "docs", "delivery.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, test := range rows {
		if line := fmt.Sprintf("| %d | %s | %v |", test.code, test.name, test.want); strings.ToUpper(test.name) == test.name && !strings.Contains(string(page), line) {
			t.Errorf("docs/delivery.md lacks %s", line)
		}
		if test.vendor == 0 {
			if _, ok := fates[test.code]; ok {
				named++
			}
		}
		t.Run(test.name, func(t *testing.T) {
			d := newDesk(t, records(1, 2)[:1], nil)
			m := d.conns[0].request(t)
			if test.vendor != 0 {
				d.receive(0, experimental(m, test.vendor, test.code))
			} else {
				d.answer(0, m, test.code, "because", nil)
			}
			state, got := d.outbox.state(1)
			if len(got) != 1 || got[0].Result != test.code {
				t.Fatalf("settled by %+v", got)
			}
			again := len(d.conns[1].sent) > 0
			d.now = d.now.Add(time.Hour)
			d.work()
			later := len(d.conns[0].sent)+len(d.conns[1].sent) > 0
			var is Fate
			switch {
			case state == acct.Acknowledged && !later:
				is = Settle
			case state == acct.Quarantined && !later:
				is = Quarantine
			case state == acct.Pending && again:
				is = Reroute // at once, elsewhere
			case state == acct.Pending && later:
				is = Wait
			default:
				t.Fatalf("state %v, sent again %v, later %v", state, again, later)
			}
			if is != test.want {
				t.Errorf("fate %v, want %v", is, test.want)
			}
		})
	}
	if named != len(fates)-1 { // without 0, which is no code
		t.Errorf("%d rows of %d codes that have a fate", named, len(fates)-1)
	}
}

// The fate of each code can be configured, that of a vendor's apart.
func TestConfiguredFates(t *testing.T) {
	for _, test := range []struct {
		name         string
		vendor, code uint32
		fates        map[Code]Fate
		want         acct.DeliveryState
	}{
		{"a refusal is waited out", 0, 5003, map[Code]Fate{{0, 5003}: Wait}, acct.Pending},
		{"a failure is final", 0, 4001, map[Code]Fate{{0, 4001}: Quarantine}, acct.Quarantined},
		{"a vendor's refusal settles", 10415, 5030, map[Code]Fate{{10415, 5030}: Settle}, acct.Acknowledged},
		{"another vendor's does not", 12645, 5030, map[Code]Fate{{10415, 5030}: Settle}, acct.Quarantined},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDesk(t, records(1, 2)[:1], func(c *Config) { c.Fates = test.fates })
			m := d.conns[0].request(t)
			if test.vendor != 0 {
				d.receive(0, experimental(m, test.vendor, test.code))
			} else {
				d.answer(0, m, test.code, "", nil)
			}
			if state, _ := d.outbox.state(1); state != test.want {
				t.Errorf("record is %v, want %v", state, test.want)
			}
		})
	}
}

// Failed-AVP and Error-Message stay with the quarantined record.
func TestRefusalIsExplained(t *testing.T) {
	d := newDesk(t, records(1, 2)[:1], nil)
	failed := avp.Append(nil, 363, 0, avp.FlagMandatory, []byte{1, 2, 3})
	d.answer(0, d.conns[0].request(t), avp.ResultInvalidAVPLength, "octets are eight octets", failed)
	_, got := d.outbox.state(1)
	if len(got) != 1 || got[0].Peer != "one.home.example" || !strings.Contains(got[0].Reason, "octets are eight octets; Failed-AVP code 363 data 010203") {
		t.Errorf("settled by %+v", got)
	}
}

// A server that demands accounting in real time is reported.
func TestAccountingRealtimeRequired(t *testing.T) {
	d := newDesk(t, records(1, 3), nil)
	for _, demand := range []uint32{1, 2} {
		m := d.conns[0].request(t)
		b := peer.Node{OriginHost: "one.home.example", OriginRealm: "home.example"}.AppendError(nil, m, avp.ResultSuccess, "", nil)
		b = avp.AppendUint32(b, avp.AccountingRealtimeRequired, 0, avp.FlagMandatory, demand)
		avp.SetLength(b)
		d.receive(0, b)
		if s := d.client.Stats(); s.Peers[0].Realtime != (demand == 1) || s.Routes[0].Realtime != (demand == 1) {
			t.Errorf("demand %d is reported as %+v", demand, s)
		}
	}
}

// What a peer has demanded of an earlier client it demands until it answers.
func TestAccountingRealtimeRequiredBefore(t *testing.T) {
	d := newDesk(t, records(1, 1), func(c *Config) { c.Peers[0].Realtime = true })
	m := d.conns[0].request(t)
	if s := d.client.Stats(); !s.Peers[0].Realtime || !s.Routes[0].Realtime {
		t.Errorf("it is reported as %+v", s)
	}
	d.answer(0, m, avp.ResultSuccess, "", nil)
	if s := d.client.Stats(); s.Peers[0].Realtime || s.Routes[0].Realtime {
		t.Errorf("an answer that demands nothing is reported as %+v", s)
	}
}

// A record keeps the profile that it came under, whatever is configured
// meanwhile: what is sent again is the same.
func TestProfilesOfGenerations(t *testing.T) {
	writers := func(names ...string) map[string]*dict.Writer {
		out := map[string]*dict.Writer{}
		for i, realm := range []string{"", "partner.example"}[:len(names)] {
			edit := dict.Edit{Action: dict.Set, AVP: dict.Ref{Code: avp.NASIdentifier}, Data: []byte(names[i])}
			w, err := dict.For(0).Writer(dict.Profile{Edits: []dict.Edit{edit}, Interval: names[i] == "new partner"})
			if err != nil {
				t.Fatal(err)
			}
			out[realm] = w
		}
		return out
	}
	all := records(4, 1)
	all[1].Realm, all[3].Realm = "Partner.example", "partner.example"
	d := newDesk(t, all, func(c *Config) {
		c.Profiles = []Profiles{{First: 2, Realms: writers("old")}, {First: 3, Realms: writers("new", "new partner")}}
	})
	for id, want := range []string{"old", "old", "new", "new partner"} {
		m := d.conns[0].request(t)
		a, _ := avp.Find(m.AVPs(), avp.NASIdentifier, 0)
		if string(a.Data) != want {
			t.Errorf("record %d is written by %q, want %q", id+1, a.Data, want)
		}
		d.answer(0, m, avp.ResultSuccess, "", nil)
		if _, got := d.outbox.state(uint64(id + 1)); len(got) != 1 || got[0].Own != (want == "new partner") {
			t.Errorf("record %d is settled by %+v", id+1, got)
		}
	}
}
