package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tollbridge/ipfix"
	"tollbridge/spool"
)

// Who held what when is told beside a running daemon, and after it; what is
// imported counts for flows, over a restart.
func TestUsersCommands(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	own := file("users.csv", "prefix,user,from,until\n192.0.2.0/24,office,,\n192.0.2.7,ann,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z\n")
	s := setup{data: filepath.Join(dir, "state"), udp: "127.0.0.1:0", users: own, server: "127.0.0.1:0"}
	d := start(t, s)
	imported := file("lines.csv", "prefix,user,from,until,ports\n192.0.2.7,bob,2026-02-01T00:00:00Z,,\n198.51.100.1,cid,,,1024-2047\n")
	if out, errOut, status := cli(t, "users", "import", imported, "--as", "lines", "--data", s.data); status != 0 || !strings.Contains(out, "2 bindings are durable as source import:lines") {
		t.Fatalf("import: status %d, %q %q", status, out, errOut)
	}
	exporter, err := net.Dial("udp", d.udp())
	if err != nil {
		t.Fatal(err)
	}
	defer exporter.Close()
	field := func(id, length uint16) ipfix.FieldSpecifier { return ipfix.FieldSpecifier{ID: id, Length: length} }
	tmpl, err := ipfix.NewTemplate(256, field(ipfix.FlowEndMilliseconds, 8), field(ipfix.SourceIPv4Address, 4), field(ipfix.SourceTransportPort, 2), field(ipfix.OctetDeltaCount, 4))
	if err != nil {
		t.Fatal(err)
	}
	e := ipfix.NewEncoder(1, 0)
	if err := e.AddTemplate(tmpl); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for i, r := range []struct {
		from string
		port int
	}{{"192.0.2.7", 1}, {"192.0.2.8", 1}, {"198.51.100.1", 1500}, {"198.51.100.1", 3000}} {
		if err := e.AddRecord(tmpl, now, netip.MustParseAddr(r.from), r.port, 100+i); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := exporter.Write(e.Flush(uint32(now.Unix()))); err != nil {
		t.Fatal(err)
	}
	waitBooks(t, s.data, func(b sums) bool { return b.Accounted.Octets == 303 && b.Suspended.Octets == 103 })

	type row struct{ Verdict, Prefix, User, Source, State, Why string }
	at := func(args ...string) []row {
		t.Helper()
		var rows []row
		show(t, &rows, append([]string{"users", "at", "--data", s.data}, args...)...)
		return rows
	}
	for _, c := range []struct {
		args []string
		want string // the holder, "" for nobody
		not  string // of the next
	}{
		{[]string{"192.0.2.7", "2026-01-31T00:00:00Z"}, "ann", "bob began 24h0m0s later"},
		{[]string{"192.0.2.7", "2026-02-02T00:00:00Z"}, "bob", "ann ended 24h0m0s before"},
		{[]string{"192.0.2.7"}, "bob", "ann ended"},
		{[]string{"192.0.2.9"}, "office", ""},
		{[]string{"198.51.100.1", "--port", "2047"}, "cid", ""},
		{[]string{"198.51.100.1", "--port", "2048"}, "", "cid has other ports"},
	} {
		rows := at(c.args...)
		if len(rows) > 0 && rows[0].Verdict == "holds" {
			if rows[0].User != c.want {
				t.Errorf("%v: %s holds, want %q", c.args, rows[0].User, c.want)
			}
			rows = rows[1:]
		} else if c.want != "" {
			t.Errorf("%v: nobody holds, want %s", c.args, c.want)
		}
		if c.not != "" && (len(rows) == 0 || !strings.HasPrefix(rows[0].User+" "+rows[0].Why, c.not)) {
			t.Errorf("%v: %+v, want first that %s", c.args, rows, c.not)
		}
	}
	d.stop()
	out, errOut, status := cli(t, "users", "ls", "--data", s.data, "-o", "csv")
	want := "prefix,ports,vrf,user,from,until,source,nas,session,state\n" +
		"192.0.2.0/24,,,office,,,files,,,open\n" +
		"192.0.2.7/32,,,bob,2026-02-01T00:00:00Z,,import:lines,,,open\n" +
		"198.51.100.1/32,1024-2047,,cid,,,import:lines,,,open\n"
	if status != 0 || out != want {
		t.Errorf("ls: status %d, %q\n%s\nwant\n%s", status, errOut, out, want)
	}
	for _, c := range []struct {
		args []string
		want []string // users
	}{
		{[]string{"--within", "192.0.2.0/24"}, []string{"office", "bob"}},
		{[]string{"--within", "192.0.2.0/25"}, []string{"bob"}},
		{[]string{"--within", "192.0.2.7", "--all"}, []string{"ann", "bob"}},
		{[]string{"--limit", "2"}, []string{"office", "bob"}},
		{[]string{"--source", "import:lines", "--limit", "1"}, []string{"bob"}},
		{[]string{"--source", "radius"}, nil},
	} {
		var rows []row
		show(t, &rows, append([]string{"users", "ls", "--data", s.data}, c.args...)...)
		var got []string
		for _, r := range rows {
			got = append(got, r.User)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("ls %v: %v, want %v", c.args, got, c.want)
		}
	}
	if _, errOut, status := cli(t, "users", "ls", "--data", s.data, "--within", "here"); status == 0 || !strings.Contains(errOut, "--within") {
		t.Errorf("ls within nothing: status %d, %q", status, errOut)
	}
	if out, _, _ = cli(t, "users", "show", "ann", "--data", s.data); !strings.Contains(out, "192.0.2.7/32") || !strings.Contains(out, "over") || strings.Count(out, "\n") != 2 {
		t.Errorf("show: %s", out)
	}
	if _, errOut, status = cli(t, "users", "import", imported, "--data", s.data); status == 0 || !strings.Contains(errOut, "no daemon is running") {
		t.Errorf("import without a daemon: status %d, %q", status, errOut)
	}
	check, err := spool.OpenReadOnly(s.data)
	if err != nil {
		t.Fatal(err)
	}
	defer check.Close()
	if books, err := check.Audit(context.Background()); err != nil || !books.Balanced {
		t.Errorf("the books: %v %q", err, books.Problems)
	}
}
