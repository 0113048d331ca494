package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/users"
)

// TestLeases has lease files of Kea tell whose addresses are whose: each user is
// billed what tshark counted.
func TestLeases(t *testing.T) {
	t.Parallel()
	list, err := users.ParseFile(writeUsers(t))
	if err != nil {
		t.Fatal(err)
	}
	v4 := []string{"address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context"}
	v6 := []string{"address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context"}
	begin, end := time.Date(2026, 11, 22, 1, 58, 0, 0, time.UTC).Unix(), time.Now().Add(time.Hour).Unix()
	for i, b := range list.Bindings {
		if a := b.Prefix.Addr(); a.Is4() {
			v4 = append(v4, fmt.Sprintf("%s,02:00:00:00:00:%02x,,%d,%d,1,0,0,%s,0,", a, i, end-begin, end, b.User))
		} else {
			v6 = append(v6, fmt.Sprintf("%s,00:03:00:01:%02x,%d,%d,1,%d,2,1,%d,0,0,%s,,0,", a, i, end-begin, end, end-begin, b.Prefix.Bits(), b.User))
		}
	}
	dir := t.TempDir()
	var sources []string
	for name, lines := range map[string][]string{"kea-leases4.csv": v4, "kea-leases6.csv": v6} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		sources = append(sources, fmt.Sprintf("{file: %s, user: [hostname]}", file))
	}
	d := start(t, setup{
		data: filepath.Join(dir, "state"), tcp: "127.0.0.1:0", server: "127.0.0.1:0",
		sources: "leases: [" + strings.Join(sources, ", ") + "]",
	})
	d.waitMetric(fmt.Sprintf("dhcp_leases{file=%q}", filepath.Join(dir, "kea-leases6.csv")), func(n float64) bool { return int(n) == len(v6)-1 })
	capture, _ := files(t, t.TempDir())
	if out, errOut, status := cli(t, "meter", "-r", capture, "--active-timeout", "3s", "--idle-timeout", "2s", "--to", d.tcp()); status != 0 {
		t.Fatalf("meter: %s%s", out, errOut)
	}
	octets, nobodys := captureOctets(t)
	books := waitBooks(t, d.data, func(s sums) bool { return s.Received.Octets >= octets && s.Suspended.Octets == nobodys })
	if books.Received.Octets != octets || books.Duplicate.Octets != 0 {
		t.Errorf("the books are %+v, want %d octets received", books, octets)
	}
	checkBill(t, bill(charges(t, d.data)))
	d.stop()
}
