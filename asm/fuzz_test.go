package asm

import (
	"net/netip"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/classes"
	"tollbridge/ipfix"
)

// FuzzApply lets entries of any content come in: none may crash the pipeline
// or unbalance the books.
func FuzzApply(f *testing.F) {
	b := &bridge{t: f, clock: epoch, enc: nil}
	seed := func(template bool, flows ...testFlow) []byte {
		b.enc = map[uint32]*ipfix.Encoder{}
		return b.message(template, flows...)
	}
	flow := b.flow("192.0.2.1", outside)
	f.Add(uint8(acct.EntryMessage), seed(true, flow), seed(false, flow))
	f.Add(uint8(acct.EntryMessage), seed(false, flow), seed(true, flow))
	special := func(t *ipfix.Template, values ...any) []byte {
		b.enc = map[uint32]*ipfix.Encoder{}
		return b.encodeRecords(t, values)
	}
	ann := netip.MustParseAddr("192.0.2.1")
	rated := special(rateTemplate, 1, 1, 10)
	f.Add(uint8(acct.EntryMessage), rated, special(sampledTemplate, epoch, ann, 1, 100, 3, 7, 8, 0, 1))
	f.Add(uint8(acct.EntryMessage), special(initTemplate, 1, epoch), special(upTimeTemplate, 1000, ann, 100))
	f.Add(uint8(acct.EntryMessage), special(totalsTemplate, epoch, ann, 1, 100, 1), special(totalsTemplate, epoch, ann, 1, 50, 2))
	f.Add(uint8(acct.EntryMessage), special(startedTemplate, epoch, epoch, ann, 100, 1), special(namedTemplate, epoch, ann, ann, 1, 100, "ann", 1))
	f.Add(uint8(acct.EntryOpen), must(SessionInfo{Transport: ipfix.UDP, Exporter: "x"}.AppendBinary(nil)), []byte{})
	f.Add(uint8(acct.EntryConfig), must(testSettings.AppendBinary(nil)), []byte{})
	f.Add(uint8(acct.EntryUsers), []byte("\x01\x04file\x00"), []byte{})
	f.Add(uint8(acct.EntryTick), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, kind uint8, first, second []byte) {
		b := mapped(t, namingSettings)
		s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
		b.add(acct.EntryKind(kind), s, first)
		b.checkpoint()
		b.restart()
		b.add(acct.EntryMessage, s, second)
		b.after(time.Minute)
		b.checkpoint()
	})
}

// FuzzState lets the store give back anything: it is refused or taken in, but
// never a crash.
func FuzzState(f *testing.F) {
	b := &bridge{t: f, j: &modelJournal{}, s: newModelStore(), clock: epoch, enc: map[uint32]*ipfix.Encoder{}}
	b.restart()
	b.configure(testSettings)
	s := b.open(ipfix.UDP, "router", "198.51.100.1:999")
	b.add(acct.EntryMessage, s, b.message(false, b.flow("192.0.2.1", outside)))
	b.send(s, b.flow("192.0.2.1", outside))
	ann := netip.MustParseAddr("192.0.2.1")
	b.sendRecords(s, rateTemplate, []any{1, 1, 10})
	b.sendRecords(s, totalsTemplate, []any{epoch, ann, 1, 100, 1})
	b.checkpoint()
	for k, v := range b.s.state {
		f.Add(k[0], k[1], v)
	}
	for _, x := range b.s.suspended {
		f.Add("flow", "", x.Flow)
	}
	f.Add("session", "x;1;2", newSession(1, bindingKey{source: "file", user: "ann"}).appendState(nil, nil))
	f.Add(stateBehind, "1", (&behind{{netip.MustParseAddr("100.64.0.1"), "red"}, {}}).appendBinary(nil))
	f.Add("info", "", must(SessionInfo{Transport: ipfix.UDP, Exporter: "x"}.AppendBinary(nil)))
	f.Fuzz(func(t *testing.T, kind, key string, value []byte) {
		switch kind {
		case "flow":
			if flow, err := parseFlow(value); err == nil {
				if back, err := parseFlow(flow.appendBinary(nil)); err != nil || back != flow {
					t.Errorf("%+v is %+v after encoding, %v", flow, back, err)
				}
			}
		case "info":
			if info, err := ParseSessionInfo(value); err == nil {
				if back, err := ParseSessionInfo(must(info.AppendBinary(nil))); err != nil || back != info {
					t.Errorf("%+v is %+v after encoding, %v", info, back, err)
				}
			}
		case "session":
			_, _ = restoreSession(acct.SessionState{SessionID: key, State: value}, func(string) classes.Index { return 0 })
		default:
			store := newModelStore()
			store.state[[2]string{kind, key}] = value
			if m, err := New(t.Context(), Config{Store: store, Journal: &modelJournal{}}); err == nil {
				e := acct.Entry{Position: 1, Kind: acct.EntryTick, Time: epoch.UnixNano()}
				if err := m.Apply(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
