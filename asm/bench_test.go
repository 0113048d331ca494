package asm

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/ipfix"
)

// benchTemplate is of 13 accounting fields.
var benchTemplate = must(ipfix.NewTemplate(300,
	field(ipfix.FlowStartMilliseconds, 8), field(ipfix.FlowEndMilliseconds, 8),
	field(ipfix.SourceIPv4Address, 4), field(ipfix.DestinationIPv4Address, 4),
	field(ipfix.SourceTransportPort, 2), field(ipfix.DestinationTransportPort, 2),
	field(ipfix.ProtocolIdentifier, 1), field(ipfix.IpDiffServCodePoint, 1),
	field(ipfix.IngressInterface, 4), field(ipfix.EgressInterface, 4),
	field(ipfix.OctetDeltaCount, 8), field(ipfix.PacketDeltaCount, 8),
	field(ipfix.FlowEndReason, 1),
))

// A nullStore keeps nothing.
type nullStore struct{ modelStore }

func (*nullStore) Commit(context.Context, acct.Batch) error { return nil }

// BenchmarkApply is decode, dedup, mapping and aggregation of Messages of 24
// records among 100,000 users, with a checkpoint every 65536 Messages. ns/op is
// per record; cpu-s/M is user and system time of the whole process.
func BenchmarkApply(b *testing.B) {
	for _, hosts := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("users=%d", hosts), func(b *testing.B) { benchmarkApply(b, hosts) })
	}
}

func benchmarkApply(b *testing.B, hosts int) {
	const perMessage, perCheckpoint = 24, 65536
	m, err := New(b.Context(), Config{Store: &nullStore{}, Journal: &modelJournal{}})
	if err != nil {
		b.Fatal(err)
	}
	now := epoch
	apply := func(kind acct.EntryKind, session uint64, data []byte) uint64 {
		e := acct.Entry{Position: m.position + 1, Kind: kind, Time: now.UnixNano(), Session: session, Data: data}
		if err := m.Apply(b.Context(), e); err != nil {
			b.Fatal(err)
		}
		return e.Position
	}
	settings := testSettings
	settings.Interval = 5 * time.Minute
	apply(acct.EntryConfig, 0, must(settings.AppendBinary(nil)))
	list := make([]users.Binding, hosts)
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range list {
		list[i] = users.Binding{Prefix: netip.PrefixFrom(addr(i), 32), User: fmt.Sprint("user", i)}
	}
	apply(acct.EntryUsers, 0, users.AppendList(nil, "file", list))
	session := apply(acct.EntryOpen, 0, must(SessionInfo{Transport: ipfix.TCP, Exporter: "router"}.AppendBinary(nil)))

	enc := ipfix.NewEncoder(1, 0)
	if err := enc.AddTemplate(benchTemplate); err != nil {
		b.Fatal(err)
	}
	apply(acct.EntryMessage, session, enc.Flush(uint32(now.Unix())))
	// Messages are made from one by writing other numbers into it.
	for i := range perMessage {
		err := enc.AddRecord(benchTemplate, now, now, addr(i), netip.MustParseAddr("203.0.113.1"), 40000, 443, 6, 0, 1, 2, 1000, 10, 1)
		if err != nil {
			b.Fatal(err)
		}
	}
	msg := enc.Flush(uint32(now.Unix()))
	size := benchTemplate.MinLength()
	data := msg[ipfix.HeaderLength+4:]
	n, sequence := uint32(0), uint32(0)
	b.ReportAllocs()
	before := cpu()
	records := 0
	for b.Loop() {
		if records%perMessage == 0 {
			now = now.Add(24 * time.Microsecond) // a million records a second
			binary.BigEndian.PutUint32(msg[8:], sequence)
			sequence += perMessage
			for i := range perMessage {
				n = n*1664525 + 1013904223
				r := data[i*size:]
				binary.BigEndian.PutUint64(r[8:], uint64(now.UnixMilli()))
				user := [4]byte(addr(int(n>>8) % hosts).AsSlice())
				if i%2 == 0 {
					copy(r[16:], user[:])
				} else {
					copy(r[16:], []byte{203, 0, 113, 1})
					copy(r[20:], user[:])
				}
				binary.BigEndian.PutUint32(r[30:], n) // an interface
			}
			apply(acct.EntryMessage, session, msg)
			if m.position%perCheckpoint == 0 {
				if err := m.Checkpoint(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		}
		records++
	}
	b.ReportMetric((cpu()-before).Seconds()/float64(records)*1e6, "cpu-s/M")
	if s := m.Stats(); s.Records < uint64(records) || s.NoCounter+s.Broken > 0 || s.Suspended > 0 {
		b.Fatalf("%+v", s)
	}
}

// cpu returns the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
