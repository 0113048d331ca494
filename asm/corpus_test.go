package asm

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
	"tollbridge/meter/pcap"
)

const corpus = "../../shared/corpus"

// readCorpus gives the Messages of a file of the corpus to visit.
func readCorpus(t *testing.T, name string, visit func(ipfix.Transport, []byte)) {
	t.Helper()
	f, err := os.Open(filepath.Join(corpus, name))
	if err != nil {
		t.Skip("no captures of real exporters here")
	}
	defer f.Close()
	if filepath.Ext(name) != ".pcap" {
		for r := file.NewReader(f); ; {
			m, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			visit(ipfix.TCP, m.Octets)
		}
	}
	capture := file.NewCapture(file.CaptureConfig{Message: func(m file.Message) error {
		visit(m.Session.Transport, m.Octets)
		return nil
	}})
	packets := make([]pcap.Packet, 32)
	for r, number := pcap.NewReader(f), int64(0); ; {
		n, err := r.Read(packets)
		for _, p := range packets[:n] {
			number++
			if _, at, err := p.Link.Network(p.Data); err == nil {
				if err := capture.Packet(number, time.Unix(0, p.Time), p.Data[at:]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Two probes metered the same capture and exported it as NetFlow 5, NetFlow 9
// and IPFIX, softflowd with deltas, YAF with totals, in one direction and in
// both: it comes to the same.
func TestCorpusAmounts(t *testing.T) {
	for _, c := range []struct {
		name      string
		received  acct.Count
		estimated bool
	}{
		{"generated/softflowd-v10-tcp.pcap", count(41, 21606, 157), false},
		{"generated/softflowd-v10-udp-uniflow.pcap", count(41, 21606, 157), false},
		{"generated/softflowd-v10-udp-biflow.pcap", count(40, 21606, 157), false},
		{"generated/softflowd-v5-udp.pcap", count(30, 17670, 118), false},        // it has no IPv6,
		{"generated/softflowd-v9-udp-sampled.pcap", count(12, 31760, 200), true}, // one packet in ten,
		{"generated/yaf3-plain-nometa_mixed.ipfix", count(41, 21606, 157), false},
		{"generated/yaf3-biflow-dpi_mixed.ipfix", count(41, 21606, 157), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := testSettings
			settings.Fallback, settings.Wait = "all", time.Second
			settings.DedupWindow = 24 * time.Hour
			b := newBridge(t, settings)
			sessions := map[ipfix.Transport]uint64{}
			readCorpus(t, c.name, func(transport ipfix.Transport, msg []byte) {
				s, ok := sessions[transport]
				if !ok {
					s = b.open(transport, "probe", "198.51.100.1:999")
					sessions[transport] = s
				}
				b.add(acct.EntryMessage, s, msg)
				b.checkpoint()
				b.restart()
			})
			b.after(5 * time.Minute)
			sum := b.checkpoint()
			if sum.Received != c.received || sum.Accounted != c.received {
				t.Errorf("received %+v, accounted %+v, want %+v", sum.Received, sum.Accounted, c.received)
			}
			if got := sum.Estimated == sum.Accounted; got != c.estimated {
				t.Errorf("estimated %+v of %+v", sum.Estimated, sum.Accounted)
			}
		})
	}
}
