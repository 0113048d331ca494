package collect

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tollbridge/ipfix"
)

func TestLogDue(t *testing.T) {
	var lines, total uint64
	for n := uint64(1); n <= 12345; n++ {
		if standsFor, due := logDue(n); due {
			lines++
			total += standsFor
		}
	}
	if lines != 5 || total != 10000 {
		t.Errorf("%d lines for %d events, want 5 for 10000", lines, total)
	}
	if _, due := logDue(1<<64 - 1); due {
		t.Error("the largest count is logged")
	}
}

// A flood of malformed Messages is logged per exporter and cause, each line
// saying how many it stands for.
func TestMalformedIsLoggedNowAndThen(t *testing.T) {
	var out bytes.Buffer
	p := newProcess(t, Config{Journal: counting{}, Log: slog.New(slog.NewTextHandler(&out, nil))})
	for _, host := range []string{"192.0.2.1", "192.0.2.2"} {
		e := p.exporters.acquire(netip.MustParseAddr(host))
		for range 2500 {
			p.malformed(e, netip.AddrPortFrom(netip.MustParseAddr(host), 4739), ipfix.ErrVersion)
			p.malformed(e, netip.AddrPortFrom(netip.MustParseAddr(host), 4739), errTruncated)
		}
	}
	if got := strings.Count(out.String(), "\n"); got != 2*2*4 {
		t.Errorf("%d lines, want 16", got)
	}
	for _, want := range []string{"exporter=192.0.2.2", "cause=version", "cause=truncated", "messages=1\n", "messages=9\n", "messages=90\n", "messages=900\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line has %q", want)
		}
	}
}

func TestDropsAreLoggedNowAndThen(t *testing.T) {
	var out bytes.Buffer
	p := newProcess(t, Config{Journal: counting{}, Log: slog.New(slog.NewTextHandler(&out, nil))})
	for n := range uint64(2500) {
		p.logDrops(netip.AddrPort{}, n, n+1)
	}
	if got := strings.Count(out.String(), "\n"); got != 4 {
		t.Errorf("%d lines, want 4: %s", got, &out)
	}
}

// A flood of sessions is logged within a ration, and the next line in a later
// minute tells how much was left out. A configured exporter has a ration of its
// own.
func TestSessionsAreLoggedWithinARation(t *testing.T) {
	flood := netip.MustParseAddr("192.0.2.1")
	for _, row := range []struct {
		name      string
		exporters []Exporter
		withheld  string
	}{
		{"configured", []Exporter{
			{Name: "flood", Prefixes: []netip.Prefix{netip.PrefixFrom(flood, 32)}},
			{Name: "honest", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")}},
		}, "withheld=940"},
		{"anyone", nil, "withheld=941"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var out bytes.Buffer
			now := time.Unix(6_000_000, 0)
			p := newProcess(t, Config{
				Journal: counting{}, Exporters: row.exporters, Now: func() time.Time { return now },
				Log: slog.New(slog.NewTextHandler(&out, nil)),
			})
			e, honest := p.exporters.acquire(flood), p.exporters.acquire(netip.MustParseAddr("192.0.2.2"))
			open := func(e *exporter) {
				if _, err := p.open(now, e, Session{}); err != nil {
					t.Fatal(err)
				}
			}
			for range 1000 {
				open(e)
			}
			open(honest)
			lines := linesPerMinute
			if row.exporters != nil {
				lines++
			}
			if got := strings.Count(out.String(), "\n"); got != lines {
				t.Errorf("%d lines, want %d", got, lines)
			}
			now = now.Add(time.Minute)
			out.Reset()
			open(e)
			open(e)
			if got := out.String(); strings.Count(got, row.withheld) != 1 || strings.Count(got, "\n") != 2 {
				t.Errorf("want one line with %s in %s", row.withheld, got)
			}
		})
	}
}
