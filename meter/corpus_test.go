package meter_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tollbridge/meter"
	"tollbridge/meter/pcap"
)

const corpus = "../../shared/corpus"

// TestCorpus compares totals of captures that other probes are tested with to
// those of tshark: frames, IP packets, and octets by the outermost IP header.
func TestCorpus(t *testing.T) {
	requireCorpus(t)
	for name, want := range map[string][3]uint64{
		"arp.pcap":                 {45, 0, 0},
		"bstats.pcap":              {417, 417, 37222},
		"dns.pcap":                 {16, 16, 2322},
		"dnssd.pcap":               {17, 17, 4099},
		"http.pcap":                {46, 46, 65524},
		"idpcontent.pcap":          {10, 10, 1170},
		"mixed.pcap":               {205, 157, 21606},
		"mqtt.pcap":                {24, 24, 1572},
		"netbios.pcap":             {20, 20, 1614},
		"ntp.pcap":                 {56, 56, 4256},
		"ovpn.pcap":                {339, 339, 114791},
		"quic_initial-sample.pcap": {1, 1, 1378},
		"rtsp.pcap":                {20, 20, 2672},
		"sip.pcap":                 {50, 50, 22450},
		"smtp.pcap":                {60, 60, 25942},
		"ssdp.pcap":                {103, 103, 35612},
		"tls.pcap":                 {206, 206, 68571},
		"vlan.pcap":                {6, 6, 1020},
		"wg.pcap":                  {628, 628, 103292},
	} {
		t.Run(name, func(t *testing.T) {
			file, err := os.ReadFile(filepath.Join(corpus, "traffic-for-probes", name))
			if err != nil {
				t.Fatal(err)
			}
			_, s := meterFile(t, meter.Config{}, file)
			if got := [3]uint64{s.Packets, s.Metered, s.Octets}; got != want {
				t.Errorf("frames, packets, octets: metered %d, tshark says %d; %+v", got, want, s)
			}
		})
	}
}

// TestCorpusFaults reads every capture there is, the damaged ones too.
func TestCorpusFaults(t *testing.T) {
	requireCorpus(t)
	files, err := filepath.Glob(filepath.Join(corpus, "*", "*.pcap*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures in %s (%v)", corpus, err)
	}
	for _, name := range files {
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var c collector
		m, err := meter.New(meter.Config{Exporter: &c})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.ReadFile(t.Context(), bytes.NewReader(file), nil); err != nil && !errors.Is(err, pcap.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if err := m.Flush(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s := m.Stats(); s.Metered == 0 && s.NotIP == 0 {
			t.Errorf("%s: nothing metered: %+v", name, s)
		}
	}
}

func requireCorpus(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(corpus); err != nil {
		t.Skipf("no corpus of captures at %s", corpus)
	}
}
