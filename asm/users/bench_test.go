package users

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/gaissmai/bart"
)

// threadTime returns the processor time of the calling thread: what a lookup
// costs, whatever else runs on the machine.
func threadTime(b *testing.B) time.Duration {
	const clockThreadCPUTime = 3
	var ts syscall.Timespec
	if _, _, err := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockThreadCPUTime, uintptr(unsafe.Pointer(&ts)), 0); err != 0 {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// BenchmarkLookup asks a Table of a million bindings whose random addresses
// are, in batches as the pipeline does and one by one, and in turns with it two
// that know no time: a Go map and bart. Each reports the nanoseconds of
// processor time that a lookup takes; "read" is what reading one random place
// of as much memory takes when the next one depends on it, which is the
// measure of the machine.
//
//	go test ./asm/users -run xxx -bench Lookup -benchtime 300x
func BenchmarkLookup(b *testing.B) {
	for _, kind := range []string{"IPv4 hosts", "IPv6 hosts", "IPv6 56"} {
		b.Run(kind, func(b *testing.B) { benchmarkLookup(b, kind) })
	}
}

func benchmarkLookup(b *testing.B, kind string) {
	const million = 1 << 20
	bs := someBindings(kind, million)
	var table Table
	table.Replace("a", bs, 1)
	plain := make(map[netip.Addr]*Holder, million)
	var tree bart.Table[*Holder]
	for _, h := range table.Holders("a") {
		plain[h.Prefix().Addr()] = h
		tree.Insert(h.Prefix(), h)
	}
	next := make([]uint32, 1<<24) // a cycle through 64 MiB
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range next {
		next[i] = uint32(i)
	}
	for i := len(next) - 1; i > 0; i-- {
		j := rng.IntN(i)
		next[i], next[j] = next[j], next[i]
	}

	const n = 64 * 64
	addrs := make([]netip.Addr, n)
	ats := slices.Repeat([]int64{time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC).UnixMilli()}, n)
	holders := make([]*Holder, n)
	place := uint32(0)
	contenders := []struct {
		name   string
		lookup func()
		spent  time.Duration
	}{
		{name: "batch", lookup: func() {
			for i := 0; i < n; i += 64 {
				table.LookupBatch(addrs[i:i+64], ats[i:i+64], holders[i:i+64])
			}
		}},
		{name: "single", lookup: func() {
			for i, a := range addrs {
				holders[i] = table.Lookup(a, ats[i])
			}
		}},
		{name: "map", lookup: func() {
			for i, a := range addrs {
				holders[i] = plain[a]
			}
		}},
		{name: "bart", lookup: func() {
			for i, a := range addrs {
				holders[i], _ = tree.Lookup(a)
			}
		}},
		{name: "read", lookup: func() {
			for range n {
				place = next[place]
			}
		}},
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC()
	rounds := 0
	for b.Loop() {
		rounds++
		for i := range contenders {
			c := &contenders[i]
			for i := range addrs { // others than the one before has brought into the caches
				addrs[i] = bs[rng.IntN(million)].Prefix.Addr()
			}
			before := threadTime(b)
			c.lookup()
			c.spent += threadTime(b) - before
			if c.name != "read" && slices.Contains(holders, nil) {
				b.Fatalf("%s: nobody", c.name)
			}
			clear(holders)
		}
	}
	for _, c := range contenders {
		b.ReportMetric(float64(c.spent.Nanoseconds())/float64(rounds*n), c.name+"-cpu-ns")
	}
	b.ReportMetric(0, "ns/op")
	runtime.KeepAlive(place)
}

// BenchmarkMillion has a million bindings, of a list or of user sessions, in a
// Table, and brings them back from what a checkpoint has of them: octets that
// each takes, and seconds of processor time for all.
//
//	go test ./asm/users -run xxx -bench Million -benchtime 1x
func BenchmarkMillion(b *testing.B) {
	const million = 1_000_000
	for _, kind := range []string{"IPv4 hosts", "IPv6 hosts", "sessions"} {
		b.Run(kind, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var each, seconds float64
			for b.Loop() {
				var stored [][]byte
				if kind == "sessions" {
					someSessions(b, million, func(_ string, value []byte) { stored = append(stored, value) })
				} else {
					stored = append(stored, someList(b, kind, million).AppendSource(nil, "file"))
				}
				before, began, table := heap(), threadTime(b), new(Table)
				for _, value := range stored {
					restore := table.RestoreSource
					if kind == "sessions" {
						restore = table.RestoreClaim
					}
					if err := restore(value); err != nil {
						b.Fatal(err)
					}
				}
				seconds = (threadTime(b) - began).Seconds()
				each = float64(heap()-before) / million
				runtime.KeepAlive(stored)
				runtime.KeepAlive(table)
			}
			b.ReportMetric(each, "octets/binding")
			b.ReportMetric(seconds, "restore-cpu-s")
			b.ReportMetric(0, "ns/op")
			if each > 250 {
				b.Errorf("%.0f octets for each of a million bindings, want at most 250", each)
			}
		})
	}
}
