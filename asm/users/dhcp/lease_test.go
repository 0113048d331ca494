package dhcp

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/users"
)

// at is a moment of the day of the tests: every time of a lease file is in UTC.
func at(clock string) time.Time {
	t, err := time.Parse("15:04:05", clock)
	if err != nil {
		panic(err)
	}
	return time.Date(2026, 11, 22, t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

func testdata(tb testing.TB, name string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func prefix(s string) netip.Prefix {
	if !strings.Contains(s, "/") {
		a := netip.MustParseAddr(s)
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.MustParsePrefix(s)
}

func parse(f format, content string) (leases []Lease, consumed int, errs []string) {
	consumed = f.parse([]byte(content), func(l Lease) { leases = append(leases, l) }, func(err error) { errs = append(errs, err.Error()) })
	return leases, consumed, errs
}

func TestLeases(t *testing.T) {
	const duid = "\x00\x03\x00\x01\x02\x00\x00\x00\x00"
	for _, c := range []struct {
		file   string
		format format
		want   []Lease
	}{
		{"kea-leases4.csv", new(keaFile), []Lease{
			{Prefix: prefix("192.0.2.10"), HWAddress: "02:00:00:00:00:0a", ClientID: "\x01\x02\x00\x00\x00\x00\x0a", Hostname: "alice-laptop.", Active: true, Start: at("04:00:00"), End: at("05:00:00")},
			{Prefix: prefix("192.0.2.11"), HWAddress: "02:00:00:00:00:0b", CircuitID: "line", RemoteID: "\x02\x00\x00\x00\x00\x01", Active: true, Start: at("04:00:00"), End: at("06:00:00")},
			{Prefix: prefix("192.0.2.12"), HWAddress: "02:00:00:00:00:0c", ClientID: "\xff\x00\x01", Hostname: "a,b", CircuitID: "\xff\x00", Active: true, Start: at("04:00:00"), End: at("05:00:00")},
			{Prefix: prefix("192.0.2.13"), HWAddress: "02:00:00:00:00:0d", Active: true, Start: time.Unix(1795320000-4294967295, 0).UTC()},
			{Prefix: prefix("192.0.2.14"), Start: at("04:00:00")},
			{Prefix: prefix("192.0.2.15"), HWAddress: "02:00:00:00:00:0f", Start: at("04:00:00"), End: at("05:00:00")},
			{Prefix: prefix("192.0.2.10"), HWAddress: "02:00:00:00:00:0a", ClientID: "\x01\x02\x00\x00\x00\x00\x0a", Hostname: "alice-laptop.", Start: at("04:16:40")},
		}},
		{"kea-leases6.csv", new(keaFile), []Lease{
			{Prefix: prefix("2001:db8:1::10"), DUID: duid + "\x0a", IAID: 7, HWAddress: "02:00:00:00:00:0a", Hostname: "host.", CircuitID: "port", RemoteID: "line", Active: true, Start: at("04:00:00"), End: at("05:06:40")},
			{Prefix: prefix("2001:db8:f00::/56"), DUID: duid + "\x0a", IAID: 8, Active: true, Start: at("04:00:00"), End: at("05:06:40")},
		}},
		{"dhcpd.leases", iscFile{}, []Lease{
			{Prefix: prefix("192.0.2.20"), HWAddress: "02:00:00:00:00:14", ClientID: "\x01\x02\x00\x00\x00\x00\x14\"\\", CircuitID: "eth 1/2:7", RemoteID: "\x02\x00\x00\x00\x00\xff", Hostname: "carol", Active: true, Start: at("05:00:00"), End: at("06:00:00")},
			{Prefix: prefix("192.0.2.21"), HWAddress: "02:00:00:00:00:15", Active: true, Start: at("05:00:00")},
			{Prefix: prefix("192.0.2.20"), HWAddress: "02:00:00:00:00:14", ClientID: "\x01\x02\x00\x00\x00\x00\x14\"\\", Start: at("05:00:00"), End: at("05:10:00")},
		}},
		{"dhcpd6.leases", iscFile{}, []Lease{
			{Prefix: prefix("2001:db8:1::20"), DUID: duid + "\x14", IAID: 7, Active: true, Start: at("05:00:00"), End: at("06:00:00")},
			{Prefix: prefix("2001:db8:f00::/56"), DUID: duid + "\x14", IAID: 7, Active: true, Start: at("05:00:00"), End: at("06:00:00")},
		}},
	} {
		t.Run(c.file, func(t *testing.T) {
			content := testdata(t, c.file)
			got, consumed, errs := parse(c.format, content)
			if len(errs) > 0 || consumed != len(strings.TrimRight(content, "\n")) && consumed != len(content) {
				t.Fatalf("%d of %d octets, errors %q", consumed, len(content), errs)
			}
			if len(got) != len(c.want) {
				t.Fatalf("%d leases, want %d", len(got), len(c.want))
			}
			for i := range got {
				if !reflect.DeepEqual(got[i], c.want[i]) {
					t.Errorf("lease %d\n%+v\nwant\n%+v", i, got[i], c.want[i])
				}
			}
		})
	}
}

func TestWhatIsNoLease(t *testing.T) {
	const header = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state\n"
	for _, c := range []struct {
		name    string
		format  format
		content string
		want    string
	}{
		{"a column missing", new(keaFile), "address,hwaddr,expire,state\n", "column valid_lifetime is missing"},
		{"no header", new(keaFile), "192.0.2.1,,,1,1,1,0,0,,0\n", "a line comes before the one that names the columns"},
		{"a field missing", new(keaFile), header + "192.0.2.1,,,1,1,1,0,0,\n", "it has 9 fields, not 10"},
		{"no address", new(keaFile), header + "192.0.2,,,1,1,1,0,0,,0\n", "address: "},
		{"no time", new(keaFile), header + "192.0.2.1,,,1,soon,1,0,0,,0\n", "expire: "},
		{"no client identifier", new(keaFile), header + "192.0.2.1,,xyz,1,1,1,0,0,,0\n", "client_id: "},
		{"lease of no address", iscFile{}, "lease { starts never; }\n", "declared for no address"},
		{"lease of a name", iscFile{}, "lease here { }\n", "lease: "},
		{"lease without a beginning", iscFile{}, "lease 192.0.2.1 { binding state active; }\n", "neither starts nor cltt"},
		{"lease at no time", iscFile{}, "lease 192.0.2.1 { starts 0 yesterday; }\n", "starts: no time"},
		{"association of nobody", iscFile{}, "ia-na \"\\001\" { }\n", "an IAID and a DUID"},
		{"association of no address", iscFile{}, "ia-na \"\\001\\000\\000\\000\\000\" { cltt epoch 1; iaaddr x { } }\n", "x: "},
	} {
		leases, consumed, errs := parse(c.format, c.content)
		if len(leases) > 0 || len(errs) != 1 || !strings.Contains(errs[0], c.want) || consumed < len(c.content)-1 {
			t.Errorf("%s: %d leases, errors %q after %d octets, want %q", c.name, len(leases), errs, consumed, c.want)
		}
	}
}

// FuzzParse reads a file in two parts, as it grows: the leases are the same.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"kea-leases4.csv", "kea-leases6.csv", "dhcpd.leases", "dhcpd6.leases"} {
		content := testdata(f, name)
		f.Add(strings.HasPrefix(name, "kea"), content, uint(len(content)/2))
	}
	f.Fuzz(func(t *testing.T, kea bool, content string, cut uint) {
		reader := func() format {
			if kea {
				return new(keaFile)
			}
			return iscFile{}
		}
		want, all, wantErrs := parse(reader(), content)
		f := reader()
		first, consumed, errs := parse(f, content[:cut%uint(len(content)+1)])
		rest, more, moreErrs := parse(f, content[consumed:])
		if got := append(first, rest...); !reflect.DeepEqual(got, want) || consumed+more != all || len(errs)+len(moreErrs) != len(wantErrs) {
			t.Fatalf("in two parts %+v (%d octets), at once %+v (%d)", got, consumed+more, want, all)
		}
		for i := range want {
			l := &want[i]
			if l.id() == "" || len(l.id()) > users.MaxName || len(l.user([]Identity{RemoteID, HWAddress, DUID})) > users.MaxName {
				t.Fatalf("lease %+v has the id %q", l, l.id())
			}
		}
	})
}
