package export_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tollbridge/ipfix"
	"tollbridge/ipfix/collect"
	"tollbridge/ipfix/export"
	"tollbridge/ipfix/export/backlog"
)

// A disk that has room for a Message, and none for the report of those that go
// for it, has the Message in the spool once; what goes is told, and counted, when
// there is room.
func TestReportWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tollbridge-test", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("skipped: no small file system can be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	const segment, page = 64 << 10, 4 << 10
	ln := listenTCP(t, "127.0.0.1:0") // nobody accepts yet
	process := func(b *backlog.Backlog) *export.Process {
		p, err := export.New(export.Config{
			Transport: ipfix.TCP, Address: ln.Addr().String(), DropWhenFull: true,
			Acknowledged: &export.Acknowledged{Backlog: b},
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	keep := func(p *export.Process, i uint64) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := p.Keep(ctx, counter, record(i)); err != nil {
			t.Fatal(err)
		}
	}
	// Which Message leaves less of a page than a report takes?
	n, full := uint64(0), int64(0)
	dry := t.TempDir()
	b := openBacklog(t, dry, backlog.Config{MaxOctets: 2 << 20, Segment: segment})
	for p := process(b); full == 0; n++ {
		keep(p, n)
		names, err := filepath.Glob(filepath.Join(dry, "*.segment"))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		info, err := os.Stat(names[len(names)-1])
		if err != nil {
			t.Fatal(err)
		}
		if octets := b.Stats().Octets; octets > 520<<10 && info.Size()%page > page-60 {
			full = octets
		}
	}

	b = openBacklog(t, filepath.Join(dir, "spool"), backlog.Config{MaxOctets: full, Segment: segment})
	p := process(b)
	for i := range n - 1 {
		keep(p, i)
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, page))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	before := b.Stats()
	keep(p, n-1)
	if st := b.Stats(); st.Position != before.Position+1 || st.Segments != before.Segments || p.Stats().LostRecords != 0 {
		t.Errorf("one Message more: %+v after %+v; %+v", st, before, p.Stats())
	}
	if err := errors.Join(filler.Close(), os.Remove(filler.Name())); err != nil {
		t.Fatal(err)
	}
	keep(p, n)
	if st := b.Stats(); st.Position != before.Position+3 { // two Messages and a report
		t.Errorf("%+v after %+v", st, before)
	}

	s := newStore()
	collector, err := collect.New(collect.Config{Journal: s, Acknowledge: s})
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error { return collector.ServeTCP(ctx, ln) })
	background(t, p.Run)
	closing, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Close(closing); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := s.lostLocked()
	if got := uint64(len(s.seen)) + lost; got != n+1 || lost == 0 || s.resent != 0 || s.fault != "" {
		t.Errorf("%d records came and %d are told to be lost, of %d; %d came again; fault %q", len(s.seen), lost, n+1, s.resent, s.fault)
	}
	if st := p.Stats(); st.LostRecords != lost {
		t.Errorf("stats say %d lost, told are %d", st.LostRecords, lost)
	}
}
