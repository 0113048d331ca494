package asm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dedup"
	"tollbridge/internal/octets"
	"tollbridge/ipfix"
)

// version3 makes of b's checkpoint one that a program with states of version 3
// left: of a Message whose records have no identity it remembered the hash of the
// whole when it came, and of what waits for a Template whether it had come
// before. So had all copies of msg that wait, if decoded says that one was
// decoded, and else all but the first.
func (b *bridge) version3(msg []byte, came, decoded bool) {
	b.t.Helper()
	b.m.messages = dedup.NewRecent(dedup.RecentConfig{Length: messageMemory})
	if came {
		b.m.messages.Add(b.m.transports.sorted()[0].domain(1, b.m.hashKey).messages.Sum(msg), b.m.millis())
	}
	b.checkpoint()
	for _, s := range b.m.transports.sorted() {
		state := octets.AppendBytes([]byte{3}, must(s.info.AppendBinary(nil)))
		state = binary.AppendUvarint(state, uint64(len(s.early)))
		for _, e := range s.early {
			state = binary.AppendUvarint(state, e.position)
			state = binary.AppendVarint(state, e.time)
			state = binary.AppendVarint(state, e.interval)
			for _, n := range []uint64{uint64(e.inner), uint64(e.offset), uint64(e.domain), uint64(e.template), uint64(e.octets)} {
				state = binary.AppendUvarint(state, n)
			}
			state = octets.AppendBool(state, decoded)
			state = octets.AppendBool(state, e.partial)
			decoded = true
		}
		state = s.origin.append(s.appendLosses(state))
		b.s.state[[2]string{stateTransport, fmt.Sprint(s.number)}] = must(s.decoder.AppendBinary(state))
	}
}

// Copies of Messages whose records have no identity count once, whichever came
// before an upgrade, and whichever waited for its Template then.
func TestCopiesAcrossAnUpgrade(t *testing.T) {
	tmpl := must(ipfix.NewTemplate(256, field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 4)))
	type sending int // of the one Message
	const (
		none  sending = iota
		told          // in a session that knows the Template
		early         // in one that does not yet
	)
	for _, row := range []struct {
		name          string
		before, after []sending
	}{
		{"both waited", []sending{early, early}, nil},
		{"one waited, one came later", []sending{early}, []sending{told}},
		{"one waited, the others wait later", []sending{early}, []sending{early, early}},
		{"one was decoded, one waited", []sending{told, early}, nil},
		{"one was decoded, the others came later", []sending{told}, []sending{told, told}},
		{"one was decoded, the others wait later", []sending{told}, []sending{early, early}},
		{"all came later", nil, []sending{early, told, early}},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := mapped(t, testSettings)
			knows, waits := b.open(ipfix.UDP, "router", "198.51.100.1:999"), b.open(ipfix.UDP, "router", "198.51.100.1:998")
			b.sendRecords(knows, tmpl)
			e := ipfix.NewEncoder(1, 0)
			if err := e.AddRecord(tmpl, netip.MustParseAddr("192.0.2.1"), 10); err != nil {
				t.Fatal(err)
			}
			msg := bytes.Clone(e.Flush(uint32(b.clock.Unix())))
			send := func(all []sending) {
				for _, s := range all {
					b.add(acct.EntryMessage, map[sending]uint64{told: knows, early: waits}[s], msg)
				}
			}
			send(row.before)
			b.version3(msg, len(row.before) > 0, slices.Contains(row.before, told))
			b.restart()
			b.after(time.Second)
			send(row.after)
			b.checkpoint()
			b.restart() // what waited is kept as it was
			b.sendRecords(waits, tmpl)
			n := uint64(len(row.before) + len(row.after))
			if sum := b.checkpoint(); sum.Accounted != count(1, 10, 0) || sum.Duplicate != count(n-1, 10*(n-1), 0) {
				t.Errorf("of %d copies accounted %+v, duplicate %+v", n, sum.Accounted, sum.Duplicate)
			}
		})
	}
}

// Marks of before version 8, which had no time, still say what the journal
// keeps, until the windows no longer need it.
func TestMarksOfAnOlderProgram(t *testing.T) {
	settings := testSettings
	settings.CompareOctets, settings.DedupWindow = 64<<20, 10*time.Minute
	b := mapped(t, settings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	msg := b.message(true, b.flow("192.0.2.1", outside))
	b.add(acct.EntryMessage, s, msg)
	b.checkpoint()
	key := [2]string{statePipeline, ""}
	now := b.m.comparison.appendBinary(nil)
	old := binary.AppendUvarint(nil, b.m.comparison.octets)
	old = binary.AppendUvarint(old, uint64(len(b.m.comparison.marks)))
	for _, k := range b.m.comparison.marks {
		old = binary.AppendUvarint(binary.AppendUvarint(old, k.position), k.octets)
	}
	state := bytes.Replace(b.s.state[key], now, old, 1)
	if len(state) == len(b.s.state[key]) {
		t.Fatal("the state has no marks")
	}
	state[0] = 7
	b.s.state[key] = state
	b.restart()
	b.add(acct.EntryMessage, s, msg)
	sum := b.checkpoint()
	if st := b.m.Stats(); sum.Duplicate.Records != 1 || st.Compared != 1 || b.s.needed > 4 {
		t.Errorf("duplicates %+v, %d compared, needed from %d on", sum.Duplicate, st.Compared, b.s.needed)
	}
	for i := range 15 {
		b.after(time.Minute)
		f := b.flow("192.0.2.1", outside)
		f.fromPort = i
		b.send(s, f)
	}
	b.checkpoint()
	if b.s.needed < 4 {
		t.Errorf("needed from %d on, when the window has forgotten it", b.s.needed)
	}
}

// A program that is older than the state does not go on from it.
func TestStateOfANewerProgram(t *testing.T) {
	b := newBridge(t, testSettings)
	b.checkpoint()
	b.s.state[[2]string{statePipeline, ""}][0] = pipelineVersion + 1
	_, err := New(t.Context(), Config{Store: b.s, Journal: b.j})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("version %d, and this program knows none above %d", pipelineVersion+1, pipelineVersion)) {
		t.Errorf("%v", err)
	}
}
