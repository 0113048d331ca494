package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/ipfix"
	"tollbridge/spool"
)

// TestWhatExportersSay has exporters that sample, and such as name their users,
// by the configuration: one's own announcement counts, another's is overruled.
// What is scaled is told to be an estimate in the ledger, by exporter, and in
// the requests that the AAA server has received; a named user is billed, though
// no address is anybody's.
func TestWhatExportersSay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "users.csv")
	if err := os.WriteFile(file, []byte("prefix,user,from,until\n192.0.2.1,ann,,\n192.0.2.2,bob,,\n192.0.2.3,carol,,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := start(t, setup{data: filepath.Join(dir, "aaa"), origin: "unused.aaa.example", server: "127.0.0.1:0"})
	d := start(t, setup{
		data: filepath.Join(dir, "bridge"), users: file, udp: "127.0.0.1:0",
		peers:   []string{peerAt(server.server(), "server.aaa.example")},
		sources: "inBand: ['637:93', userName]",
		collect: `, exporters: [
    {name: announcing, prefixes: [127.0.0.2]},
    {name: overruled, prefixes: [127.0.0.3], sampling: 5},
    {name: all, prefixes: [127.0.0.4], sampling: 1},
    {name: naming, prefixes: [127.0.0.5]}]`,
	})

	field := func(id, length uint16) ipfix.FieldSpecifier { return ipfix.FieldSpecifier{ID: id, Length: length} }
	options, err := ipfix.NewOptionsTemplate(300, 1, field(ipfix.ObservationDomainId, 4), field(ipfix.SamplingInterval, 4))
	if err != nil {
		t.Fatal(err)
	}
	flow := []ipfix.FieldSpecifier{field(ipfix.FlowEndMilliseconds, 8), field(ipfix.SourceIPv4Address, 4), field(ipfix.OctetDeltaCount, 4)}
	nokia := ipfix.FieldSpecifier{Enterprise: 637, ID: 93, Length: ipfix.VariableLength}
	type estimate struct {
		octets    uint64
		estimated bool
	}
	want := map[string]estimate{} // by user
	ledger := map[string]estimate{}
	for _, x := range []struct {
		host, exporter string
		announced      int
		address, user  string
		named          []ipfix.FieldSpecifier
		octets         uint64 // of 100
	}{
		{"127.0.0.2", "announcing", 10, "192.0.2.1", "ann", nil, 1000},
		{"127.0.0.3", "overruled", 10, "192.0.2.2", "bob", nil, 500},
		{"127.0.0.4", "all", 10, "192.0.2.3", "carol", nil, 100},
		{"127.0.0.5", "naming", 0, "198.51.100.1", "dave", []ipfix.FieldSpecifier{field(ipfix.UserName, ipfix.VariableLength)}, 100},
		{"127.0.0.5", "naming", 0, "198.51.100.2", "eve", []ipfix.FieldSpecifier{nokia}, 100},
	} {
		e := ipfix.NewEncoder(1, 0)
		add := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		if x.announced > 0 {
			add(e.AddTemplate(options))
			add(e.AddRecord(options, 1, x.announced))
		}
		tmpl, err := ipfix.NewTemplate(256, slices.Concat(flow, x.named)...)
		add(err)
		add(e.AddTemplate(tmpl))
		values := []any{time.Now(), netip.MustParseAddr(x.address), 100}
		if x.named != nil {
			values = append(values, []byte(x.user))
		}
		add(e.AddRecord(tmpl, values...))
		to, err := net.ResolveUDPAddr("udp", d.udp())
		add(err)
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(x.host)}, to)
		add(err)
		_, err = conn.Write(bytes.Clone(e.Flush(uint32(time.Now().Unix()))))
		add(err)
		conn.Close()
		estimated := x.octets != 100
		want[x.user] = estimate{x.octets, estimated}
		l := ledger[x.exporter]
		ledger[x.exporter] = estimate{l.octets + x.octets, estimated}
	}
	waitBooks(t, d.data, func(b sums) bool { return b.Accounted.Records == uint64(len(want)) && b.Acknowledged == b.Accounted })

	var books struct {
		Rows []struct {
			Exporter             string
			Accounted, Estimated acct.Count
		}
	}
	show(t, &books, "audit", "--data", d.data)
	accounted, estimated := map[string]uint64{}, map[string]uint64{}
	for _, row := range books.Rows {
		accounted[row.Exporter] += row.Accounted.Octets
		estimated[row.Exporter] += row.Estimated.Octets
	}
	for exporter, w := range ledger {
		if n := estimated[exporter]; accounted[exporter] != w.octets || w.estimated && n != w.octets || !w.estimated && n != 0 {
			t.Errorf("of %s the ledger has %d octets, %d of them estimated; want %+v", exporter, accounted[exporter], n, w)
		}
	}
	d.stop()
	server.stop()

	cdrs, err := spool.OpenCDRsReadOnly(server.data)
	if err != nil {
		t.Fatal(err)
	}
	defer cdrs.Close()
	list, err := cdrs.List(t.Context(), spool.CDRFilter{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]estimate{}
	for _, c := range list {
		r, err := dict.For(0).ParseRecord(c.AVPs)
		if err != nil {
			t.Fatalf("%s/%d: %v", c.SessionID, c.Number, err)
		}
		if g := got[r.User]; c.Usage.InputOctets >= g.octets { // cumulative
			got[r.User] = estimate{c.Usage.InputOctets, g.estimated || r.Estimated}
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the AAA server was told %+v, want %+v", got, want)
	}
}
