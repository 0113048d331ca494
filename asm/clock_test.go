package asm

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
)

// The offset of an exporter's clock is the least of a minute, and a large one
// is logged, whether it is behind or ahead.
func TestExporterClock(t *testing.T) {
	var log bytes.Buffer
	b := mapped(t, testSettings)
	b.m.log = slog.New(slog.NewTextHandler(&log, nil))
	right := b.open(ipfix.TCP, "right", "198.51.100.1:999")
	wrong := b.open(ipfix.TCP, "wrong", "198.51.100.2:999")
	ahead := b.open(ipfix.TCP, "ahead", "198.51.100.3:999")
	for i := range 130 {
		for _, x := range []struct {
			session uint64
			behind  time.Duration
		}{{right, time.Duration(200+i%7*100) * time.Millisecond}, {wrong, 90*time.Second + time.Duration(i%5)*time.Second},
			{ahead, -20*time.Second + time.Duration(i%3)*time.Second}} {
			e := ipfix.NewEncoder(1, 0)
			if err := e.AddTemplate(plainTemplate); err != nil {
				t.Fatal(err)
			}
			msg := e.Flush(uint32(b.clock.Unix()))
			entry := b.j.add(acct.EntryMessage, b.clock.Add(x.behind), x.session, msg)
			if err := b.m.Apply(t.Context(), entry); err != nil {
				t.Fatal(err)
			}
		}
		b.clock = b.clock.Add(time.Second)
	}
	clocks := b.m.Stats().Clocks
	if len(clocks) != 3 || clocks[0].Exporter != "ahead" || clocks[0].Offset != -20*time.Second ||
		clocks[1].Exporter != "right" || clocks[1].Offset != 200*time.Millisecond ||
		clocks[2].Exporter != "wrong" || clocks[2].Offset != 90*time.Second {
		t.Errorf("%+v", clocks)
	}
	if text := log.String(); !strings.Contains(text, "exporter=wrong behind=1m30s") || !strings.Contains(text, "exporter=ahead behind=-20s") || strings.Contains(text, "exporter=right behind") {
		t.Errorf("log:\n%s", text)
	}
}
