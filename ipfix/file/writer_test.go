package file_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
)

var details = file.Details{
	Exporter: netip.MustParseAddrPort("192.0.2.1:4000"), Collector: netip.MustParseAddrPort("192.0.2.2:4739"), Protocol: 17,
}

func TestWriterAdds(t *testing.T) {
	var octets uint64
	for i := range 4 {
		octets += uint64(300*i + 3)
	}
	at := func(b []byte) time.Time { return time.UnixMilli(int64(binary.BigEndian.Uint64(b))).UTC() }
	for _, row := range []struct {
		name   string
		config file.Config
		sums   int // Messages with a checksum
	}{
		{"nothing", file.Config{}, 0},
		{"checksums (RFC 5655, 8.1.1)", file.Config{Checksums: true}, 4},
		{"time window (8.1.2)", file.Config{Window: true}, 0},
		{"session details (8.1.3)", file.Config{Details: details}, 0},
		{"all", file.Config{Checksums: true, Window: true, Details: details}, 6},
	} {
		// The highest Template ID is where the Writer would put its own.
		for _, id := range []uint16{256, 65535} {
			t.Run(row.name, func(t *testing.T) {
				got, lost, checksums, options := sums(t, write(t, row.config, messages(t, 7, id, 4)))
				if got != octets || lost != 0 || checksums != row.sums {
					t.Errorf("octets %d, lost %d, checksums %d; want %d, 0, %d", got, lost, checksums, octets, row.sums)
				}
				if row.config.Window {
					if start, end := at(options[ipfix.MinFlowStartMilliseconds]), at(options[ipfix.MaxFlowEndMilliseconds]); !start.Equal(begin) || !end.Equal(begin.Add(11_500*time.Millisecond)) {
						t.Errorf("window %v to %v", start, end)
					}
				}
				if row.config.Details.Protocol != 0 {
					from := netip.AddrFrom4([4]byte(options[ipfix.ExporterIPv4Address]))
					if from != details.Exporter.Addr() || options[ipfix.ExportTransportProtocol][0] != 17 || options[ipfix.ExportProtocolVersion][0] != 10 {
						t.Errorf("details %v", options)
					}
				}
			})
		}
	}
}

// A loss before the file stays one, and no other appears.
func TestWriterKeepsGaps(t *testing.T) {
	msgs := messages(t, 1, 256, 10)
	msgs = slices.Delete(msgs, 4, 6)
	if _, lost, _, _ := sums(t, write(t, file.Config{Checksums: true, Window: true, Details: details}, msgs)); lost != 6 {
		t.Errorf("lost %d, want 6", lost)
	}
}

// An exporter may take the Template ID of ours later, or withdraw all.
func TestWriterGivesWay(t *testing.T) {
	e := ipfix.NewEncoder(1, 0)
	var msgs [][]byte
	flush := func() { msgs = append(msgs, bytes.Clone(e.Flush(1))) }
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	first, second := flows(t, 256), flows(t, 65535)
	check(e.AddTemplate(first))
	check(e.AddRecord(first, begin, begin, 1, ""))
	flush()
	check(e.AddTemplate(second))
	check(e.AddRecord(second, begin, begin, 10, ""))
	flush()
	check(e.WithdrawAll(true))
	flush()
	check(e.AddRecord(second, begin, begin, 100, ""))
	flush()
	octets, lost, checksums, _ := sums(t, write(t, file.Config{Checksums: true}, msgs))
	if octets != 111 || lost != 0 || checksums != 4 {
		t.Errorf("octets %d, lost %d, checksums %d", octets, lost, checksums)
	}
}

func TestWriterLongMessage(t *testing.T) {
	e := ipfix.NewEncoder(1, 0)
	tmpl := flows(t, 256)
	if err := e.AddTemplate(tmpl); err != nil {
		t.Fatal(err)
	}
	for {
		err := e.AddRecord(tmpl, begin, begin, 1, "u")
		if errors.Is(err, ipfix.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	n := uint64(e.Records())
	octets, lost, checksums, _ := sums(t, write(t, file.Config{Checksums: true}, [][]byte{e.Flush(1)}))
	if octets != n || lost != 0 || checksums != 0 {
		t.Errorf("octets %d, lost %d, checksums %d", octets, lost, checksums)
	}
}

func TestWriterRefuses(t *testing.T) {
	bad := file.Details{Exporter: details.Exporter, Collector: netip.MustParseAddrPort("[2001:db8::1]:4739")}
	if _, err := file.NewWriter(&bytes.Buffer{}, file.Config{Details: bad}); !errors.Is(err, file.ErrConfig) {
		t.Errorf("error %v, want ErrConfig", err)
	}
	var b bytes.Buffer
	w, err := file.NewWriter(&b, file.Config{})
	if err != nil {
		t.Fatal(err)
	}
	msg := messages(t, 1, 256, 1)[0]
	if err := w.Write(msg[:len(msg)-1]); !errors.Is(err, ipfix.ErrLength) || b.Len() > 0 {
		t.Errorf("error %v after %d octets, want ErrLength", err, b.Len())
	}
	if err := w.Write(append([]byte{0, 5, 0, 1}, make([]byte, 68)...)); !errors.Is(err, ipfix.ErrVersion) {
		t.Errorf("error %v, want ErrVersion", err)
	}
	if err := w.Close(); err != nil || b.Len() > 0 {
		t.Errorf("error %v, %d octets", err, b.Len())
	}
}

func TestWriterFails(t *testing.T) {
	w, err := file.NewWriter(failing{}, file.Config{})
	if err != nil {
		t.Fatal(err)
	}
	msg := messages(t, 1, 256, 1)[0]
	for range 2 {
		if err := w.Write(msg); !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("error %v, want the file's", err)
		}
	}
	if err := w.Close(); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("error %v of Close, want the file's", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 3, iotest.ErrTimeout }
