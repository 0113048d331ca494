package main

import (
	"context"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tollbridge/aaaclient/peer"
	"tollbridge/asm/users"
	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/dict/avp"
	"tollbridge/spool"
)

// answered counts the answers of a connection by Result-Code.
type answered chan uint32

func (a answered) Receive(m peer.Message) bool {
	code, _ := avp.Find(m.AVPs(), avp.ResultCodeAVP, 0)
	v, _ := code.Uint32()
	a <- v
	return true
}

func (a answered) Flush()   {}
func (a answered) Changed() {}

// TestAccessServer has a BNG tell over Diameter who holds which addresses,
// by INTERIM_RECORDs of sessions whose START_RECORD was lost, each sent twice.
// The daemon is killed after the answers; each user is billed what tshark
// counted, and what the BNG counts is no CDR.
func TestAccessServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	capture, _ := files(t, dir)
	e := example(t, "asm.yaml", dir)
	e.replace("  files: [examples/users.csv]", "  files: []")
	e.replace("'0.0.0.0:4739', '[::]:4739'", "'127.0.0.1:0'")
	e.set("server.listen", "['127.0.0.1:0']")
	e.set("server.accessServers", "[bng.isp.example]")
	d := start(t, e.setup(dir))

	answers := bng(t, d.server())
	d.kill()
	for _, code := range answers {
		if code != avp.ResultSuccess {
			t.Errorf("the BNG got %d", code)
		}
	}
	d = start(t, e.setup(dir))
	meterCapture(t, capture, d.tcp())
	octets, nobodys := captureOctets(t)
	s := waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets >= octets && s.Acknowledged == s.Accounted })
	if s.Suspended.Octets != nobodys {
		t.Errorf("the books are %+v", s)
	}
	d.stop()
	checkBill(t, bill(charges(t, d.data)))
	for _, c := range charges(t, d.data) {
		if strings.HasPrefix(c.SessionID, "bng.isp.example;") {
			t.Errorf("%s is a CDR", c.SessionID)
		}
	}
}

// bng sends the bindings of the bundled users file as those of an access
// server, and returns the answers.
func bng(t *testing.T, address string) []uint32 {
	t.Helper()
	return askAsBNG(t, address, residents(t))
}

// residents are requests that tell of the bindings of the bundled users file,
// each twice.
func residents(t *testing.T) (requests [][]byte) {
	t.Helper()
	lines := slices.DeleteFunc(strings.SplitAfter(string(demodata.Users), "\n"), func(l string) bool { return strings.HasPrefix(l, "#") })
	rows, err := csv.NewReader(strings.NewReader(strings.Join(lines, ""))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range rows[1:] {
		b := accessRequest(t, uint32(i), row[1], netip.MustParsePrefix(row[0]))
		requests = append(requests, b, b)
	}
	return requests
}

// askAsBNG sends requests of an access server, and returns the answers.
func askAsBNG(t *testing.T, address string, requests [][]byte) []uint32 {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	answers := make(answered, len(requests))
	conn, err := peer.Connect(t.Context(), nc, peer.Config{
		Node:    peer.Node{OriginHost: "bng.isp.example", OriginRealm: "isp.example", Accounting: []uint32{avp.ApplicationNASREQ, avp.ApplicationAccounting}},
		Handler: answers,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- conn.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if err := conn.Send(slices.Concat(requests...)); err != nil {
		t.Fatal(err)
	}
	var codes []uint32
	for range requests {
		select {
		case code := <-answers:
			codes = append(codes, code)
		case <-time.After(patience):
			t.Fatalf("%d answers of %d", len(codes), len(requests))
		}
	}
	return codes
}

// A higher Origin-State-Id of an access server ends its sessions of before (RFC
// 6733, Section 8.16), whatever a crash left undone; an equal one ends nothing.
func TestAccessServerRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := setup{
		data: filepath.Join(dir, "state"), tcp: "127.0.0.1:0", server: "127.0.0.1:0",
		serving: ", clients: [bridge.isp.example], accessServers: [bng.isp.example]",
	}
	holders := func() (held []string) {
		var list []struct{ Prefix, User, Until string }
		show(t, &list, "users", "ls", "--data", s.data)
		for _, b := range list {
			if b.Until == "" {
				held = append(held, b.User)
			}
		}
		slices.Sort(held)
		return held
	}
	tells := func(stateID uint32, kind uint32, user, prefix string) []byte {
		b := accessRequest(t, stateID, user, netip.MustParsePrefix(prefix))
		typ, _ := avp.Find(b[avp.HeaderLen:], avp.AccountingRecordType, 0)
		binary.BigEndian.PutUint32(typ.Data, kind)
		b = avp.AppendUint32(b, avp.OriginStateID, 0, avp.FlagMandatory, stateID)
		if user == "erin" {
			b = avp.AppendUint32(b, avp.AcctDelayTime, 0, avp.FlagMandatory, 600)
		}
		if kind == avp.StartRecord {
			session, _ := avp.Find(b[avp.HeaderLen:], avp.AcctSessionTime, 0)
			binary.BigEndian.PutUint32(session.Data, 0)
		}
		avp.SetLength(b)
		return b
	}
	d := start(t, s)
	for _, step := range []struct {
		name    string
		request []byte
		want    string
	}{
		{"the first life", tells(7, avp.InterimRecord, "alice", "192.0.2.11/32"), "alice"},
		{"of the same life", tells(7, avp.InterimRecord, "bob", "192.0.2.12/32"), "alice bob"},
		{"a new life", tells(8, avp.StartRecord, "carol", "192.0.2.13/32"), "carol"},
		{"of that life too", tells(8, avp.StartRecord, "dave", "192.0.2.14/32"), "carol dave"},
		{"of that life, but heard of late", tells(8, avp.InterimRecord, "erin", "192.0.2.15/32"), "carol dave erin"},
		{"after another start of the daemon", tells(8, avp.StartRecord, "frank", "192.0.2.16/32"), "carol dave erin frank"},
	} {
		if codes := askAsBNG(t, d.server(), [][]byte{step.request}); codes[0] != avp.ResultSuccess {
			t.Fatalf("%s: result %d", step.name, codes[0])
		}
		if step.want == "carol" || step.want == "carol dave erin" {
			d.kill() // what it was told is in the journal
			d = start(t, s)
		}
		if !until(t, func() bool { return strings.Join(holders(), " ") == step.want }) {
			t.Errorf("%s: held by %v, want %s", step.name, holders(), step.want)
		}
	}
	d.stop()
}

// The end of an access server's sessions is journaled at a start if it may not
// be durable, and only then; what could not be journaled comes with the next
// request.
func TestAccessServersEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	former := filepath.Join(dir, "access-servers.json") // of an earlier version
	if err := os.WriteFile(former, []byte(`[{"origin_host": "BNG.isp.example", "origin_state_id": 6}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := spool.Open(dir, spool.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	open := func(ends int) *accessServers {
		t.Helper()
		a, err := openAccessServers(t.Context(), store, former, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if got := a.ends(); len(got) != ends {
			t.Fatalf("%d ends at the start, want %d: %v", len(got), ends, got)
		}
		return a
	}
	see := func(a *accessServers, id uint32, rises bool) users.Event {
		t.Helper()
		e := users.Event{NAS: "bng.isp.example", Since: time.Unix(1_800_000_000, 0)}
		end, rose, err := a.see(&e, avp.AppendUint32(nil, avp.OriginStateID, 0, avp.FlagMandatory, id))
		if err != nil || rose != rises {
			t.Fatalf("Origin-State-Id %d: rose %v, %v", id, rose, err)
		}
		return end
	}
	a := open(0)
	if _, err := os.Stat(former); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of before: %v", err)
	}
	first := see(a, 7, true)
	a.journaled(&first, 3)
	if err := a.durable(3); err != nil {
		t.Fatal(err)
	}
	see(a, 8, true)
	see(a, 7, false)
	end := see(a, 8, true) // the journal did not take it
	a.journaled(&end, 5)
	see(a, 8, false)
	if err := a.durable(4); err != nil {
		t.Fatal(err)
	}
	open(1)
	if err := a.durable(5); err != nil {
		t.Fatal(err)
	}
	see(open(0), 8, false)

	// The first that is told with a new one is a session that has outlived the
	// restart: all that was heard of before that is over.
	outlived := open(0)
	for i, r := range []struct {
		id   uint32
		at   int64
		ends int64
	}{{8, 1_800_000_300, 0}, {8, 1_800_000_200, 0}, {9, 1_800_000_400, 1_800_000_300}} {
		e := users.Event{NAS: "bng.isp.example", Since: time.Unix(1_800_000_000, 0), At: time.Unix(r.at, 0)}
		end, rose, err := outlived.see(&e, avp.AppendUint32(nil, avp.OriginStateID, 0, avp.FlagMandatory, r.id))
		if err != nil || rose != (r.ends != 0) || rose && end.At.Unix() != r.ends {
			t.Errorf("request %d: ends %v, rose %v (%v)", i, end.At, rose, err)
		}
	}

	// Who was replaced stores nothing more, so that no later end is forgotten.
	heir, err := spool.Open(dir, spool.Config{Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer heir.Close()
	e := users.Event{NAS: "bng.isp.example", Since: time.Unix(1_800_000_000, 0)}
	if _, _, err := a.see(&e, avp.AppendUint32(nil, avp.OriginStateID, 0, avp.FlagMandatory, 10)); !errors.Is(err, spool.ErrFenced) || !errors.Is(err, errNotStored) {
		t.Errorf("after it was replaced: %v", err)
	}
}

// accessRequest is an INTERIM_RECORD of a session that began before the
// bundled capture was taken, whenever the test runs.
func accessRequest(t *testing.T, i uint32, user string, p netip.Prefix) []byte {
	t.Helper()
	const m = avp.FlagMandatory
	b := avp.AppendHeader(nil, avp.Header{Flags: avp.FlagRequest | avp.FlagProxiable, Command: avp.CommandAccounting, Application: avp.ApplicationNASREQ, HopByHop: i, EndToEnd: i})
	b = avp.AppendString(b, avp.SessionID, 0, m, "bng.isp.example;1;"+p.String())
	b = avp.AppendString(b, avp.OriginHost, 0, m, "bng.isp.example")
	b = avp.AppendString(b, avp.OriginRealm, 0, m, "isp.example")
	b = avp.AppendString(b, avp.DestinationRealm, 0, m, "isp.example")
	b = avp.AppendUint32(b, avp.AccountingRecordType, 0, m, avp.InterimRecord)
	b = avp.AppendUint32(b, avp.AccountingRecordNumber, 0, m, 1)
	b = avp.AppendUint32(b, avp.AcctApplicationID, 0, m, avp.ApplicationNASREQ)
	b = avp.AppendString(b, avp.UserName, 0, m, user)
	b = avp.AppendUint32(b, avp.AcctSessionTime, 0, m, sessionSeconds())
	b = avp.AppendUint64(b, avp.AccountingInputOctets, 0, m, 12345)
	if p.Addr().Is4() {
		b = avp.Append(b, avp.FramedIPAddress, 0, m, p.Addr().AsSlice())
	} else {
		b = avp.Append(b, avp.FramedIPv6Prefix, 0, m, append([]byte{0, byte(p.Bits())}, p.Addr().AsSlice()...))
	}
	avp.SetLength(b)
	return b
}

// sessionSeconds returns for how long a session has lasted that began before the
// bundled capture was taken.
func sessionSeconds() uint32 {
	return uint32(max(time.Since(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)), 0) / time.Second)
}
