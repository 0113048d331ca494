package dhcp

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollbridge/asm/users"
	"tollbridge/internal/peertest"
)

// Kea and ISC dhcpd give leases to clients in network namespaces, and write the
// files that tell of them: who got which address or prefix, and gave it back.
func TestServers(t *testing.T) {
	const mac = "02:00:00:00:00:0a"
	duid := "00:03:00:01:" + mac
	dhclient := func(how string) []string {
		return strings.Fields("dhclient " + how + " -cf /dev/null -lf DIR/client -pf DIR/client.pid -sf DIR/script wan")
	}
	for _, c := range []struct {
		name, file string
		config     string
		server     []string // DIR stands for the folder of all files
		client     []string
		release    []string // nil for the client's own way, at SIGTERM
		user       Identity
		want       string // of the user
		within     string
	}{{
		name: "Kea DHCPv4, udhcpc", file: "kea-leases4.csv",
		config: `{"Dhcp4": {"interfaces-config": {"interfaces": ["lan"], "dhcp-socket-type": "raw"}, "valid-lifetime": 600,
			"lease-database": {"type": "memfile", "name": "DIR/kea-leases4.csv", "lfc-interval": 0},
			"subnet4": [{"id": 1, "subnet": "192.0.2.0/24", "interface": "lan", "pools": [{"pool": "192.0.2.16/28"}]}]}}`,
		server: []string{"kea-dhcp4", "-c", "DIR/config"},
		client: []string{"udhcpc", "-i", "wan", "-f", "-R", "-t", "60", "-T", "1", "-s", "DIR/script"},
		user:   HWAddress, want: mac, within: "192.0.2.16/28",
	}, {
		name: "Kea DHCPv6, a delegated prefix, dhclient", file: "kea-leases6.csv",
		config: `{"Dhcp6": {"interfaces-config": {"interfaces": ["lan"]}, "valid-lifetime": 600, "preferred-lifetime": 300,
			"server-id": {"type": "LL", "persist": false}, "lease-database": {"type": "memfile", "name": "DIR/kea-leases6.csv", "lfc-interval": 0},
			"subnet6": [{"id": 1, "subnet": "2001:db8::/48", "interface": "lan",
				"pd-pools": [{"prefix": "2001:db8:100::", "prefix-len": 40, "delegated-len": 56}]}]}}`,
		server:  []string{"kea-dhcp6", "-c", "DIR/config"},
		client:  dhclient("-6 -P -D LL -1 -d"),
		release: dhclient("-6 -P -D LL -r"),
		user:    DUID, want: duid, within: "2001:db8:100::/40",
	}, {
		name: "ISC dhcpd, dhclient", file: "dhcpd.leases",
		config:  "default-lease-time 600; max-lease-time 600; subnet 192.0.2.0 netmask 255.255.255.0 { range 192.0.2.16 192.0.2.31; }\n",
		server:  []string{"dhcpd", "-4", "-f", "-cf", "DIR/config", "-lf", "DIR/dhcpd.leases", "-pf", "DIR/server.pid", "lan"},
		client:  dhclient("-4 -1 -d"),
		release: dhclient("-4 -r"),
		user:    HWAddress, want: mac, within: "192.0.2.16/28",
	}, {
		name: "ISC dhcpd, DHCPv6, a delegated prefix, dhclient", file: "dhcpd6.leases",
		config: "default-lease-time 600; max-lease-time 600;\n" +
			"subnet6 2001:db8::/48 { prefix6 2001:db8:0:100:: 2001:db8:0:ff00:: /56; }\n",
		server:  []string{"dhcpd", "-6", "-f", "-cf", "DIR/config", "-lf", "DIR/dhcpd6.leases", "-pf", "DIR/server.pid", "lan"},
		client:  dhclient("-6 -P -D LL -1 -d"),
		release: dhclient("-6 -P -D LL -r"),
		user:    DUID, want: duid, within: "2001:db8::/48",
	}} {
		t.Run(c.name, func(t *testing.T) {
			peertest.Need(t, "ip", c.server[0], c.client[0])
			dir := t.TempDir()
			write := func(name, content string, mode os.FileMode) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(content, "DIR", dir)), mode); err != nil {
					t.Fatal(err)
				}
			}
			write("config", c.config, 0o600)
			write("script", `#!/bin/sh
address=$ip$new_ip_address
[ -z "$address" ] || ip address add "$address/24" dev wan
case "$1$reason" in bound|BOUND*) : > DIR/bound ;; esac
`, 0o700)
			if c.server[0] == "dhcpd" {
				write(c.file, "", 0o600) // dhcpd wants one to be there
			}
			lan, wan := newNetwork(t, mac)
			in := func(ns string, args []string) *exec.Cmd {
				cmd := exec.Command("ip", append([]string{"netns", "exec", ns}, strings.Split(strings.ReplaceAll(strings.Join(args, "\x00"), "DIR", dir), "\x00")...)...)
				cmd.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+dir, "KEA_LOCKFILE_DIR="+dir)
				return cmd
			}
			run(t, in(lan, c.server))
			client := run(t, in(wan, c.client))

			j := new(leaseJournal)
			source, err := New(Config{Journal: j, File: filepath.Join(dir, c.file), User: []Identity{c.user}})
			if err != nil {
				t.Fatal(err)
			}
			begun := j.wait(t, source, users.Update)
			if begun.User != c.want || len(begun.Prefixes) != 1 || !netip.MustParsePrefix(c.within).Contains(begun.Prefixes[0].Addr()) || begun.Timeout != 10*time.Minute {
				t.Errorf("%+v, want %s with a prefix in %s for 10 minutes", begun, c.want, c.within)
			}
			if want := 56; c.user == DUID && begun.Prefixes[0].Bits() != want {
				t.Errorf("prefix %v, want a /%d", begun.Prefixes[0], want)
			}
			// A client that has not taken the lease yet has nothing to give back.
			wait(t, "the client is not bound", func() bool {
				_, err := os.Stat(filepath.Join(dir, "bound"))
				stored, _ := os.ReadFile(filepath.Join(dir, "client")) // udhcpc has none
				return err == nil && (c.release == nil || strings.Contains(string(stored), "{"))
			})
			if c.release == nil {
				client.Process.Signal(syscall.SIGTERM) //nolint:errcheck // wait tells
			} else if out, err := in(wan, c.release).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", c.release, err, out)
			}
			if ended := j.wait(t, source, users.End); ended.ID != begun.ID {
				t.Errorf("%+v ends, not %s", ended, begun.ID)
			}
			if s := source.Stats(); s.Malformed > 0 || s.Failing {
				t.Errorf("%+v", s)
			}
		})
	}
}

// newNetwork makes two network namespaces with a link, lan at the server's end
// and wan at the client's.
func newNetwork(t *testing.T, mac string) (lan, wan string) {
	t.Helper()
	if os.Geteuid() != 0 {
		peertest.Missing(t, "network namespaces need root")
	}
	lan, wan = fmt.Sprintf("tb-lan-%d", os.Getpid()), fmt.Sprintf("tb-wan-%d", os.Getpid())
	t.Cleanup(func() {
		for _, ns := range []string{lan, wan} {
			exec.Command("ip", "netns", "del", ns).Run() //nolint:errcheck // it may never have been made
		}
	})
	for _, line := range []string{
		"netns add " + lan,
		"netns add " + wan,
		"-n " + lan + " link add lan type veth peer name wan netns " + wan,
		"-n " + wan + " link set wan address " + mac,
		"-n " + lan + " address add 192.0.2.1/24 dev lan",
		"-n " + lan + " address add 2001:db8::1/64 dev lan nodad",
		"-n " + lan + " link set lo up",
		"-n " + wan + " link set lo up",
		"-n " + lan + " link set lan up",
		"-n " + wan + " link set wan up",
		"-n " + lan + " address add fe80::1/64 dev lan nodad",
		"-n " + wan + " address add fe80::2/64 dev wan nodad",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			peertest.Missing(t, fmt.Sprintf("no network namespaces here: ip %s: %v: %s", line, err, out))
		}
	}
	// A server does not listen on a device that is not running yet, and never
	// looks again.
	for ns, device := range map[string]string{lan: "lan", wan: "wan"} {
		wait(t, device+" is not up", func() bool {
			out, err := exec.Command("ip", "-n", ns, "link", "show", device).Output()
			return err == nil && strings.Contains(string(out), "state UP")
		})
	}
	return lan, wan
}

// run runs a command until the test ends.
func run(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		cmd.Wait() //nolint:errcheck // it is killed
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		<-done
		if t.Failed() {
			t.Logf("%v:\n%s", cmd.Args, out.String())
		}
	})
	return cmd
}

// A leaseJournal keeps the latest event of each kind.
type leaseJournal struct {
	latest map[users.EventKind]users.Event
}

func (j *leaseJournal) Append(e users.Event) (uint64, error) {
	if j.latest == nil {
		j.latest = make(map[users.EventKind]users.Event)
	}
	j.latest[e.Kind] = e
	return 1, nil
}

func (j *leaseJournal) Wait(context.Context, uint64) error { return nil }

// wait looks at the file until it has told of an event of a kind.
func (j *leaseJournal) wait(t *testing.T, s *Source, kind users.EventKind) users.Event {
	t.Helper()
	wait(t, fmt.Sprintf("no %v", kind), func() bool {
		if err := s.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, ok := j.latest[kind]
		return ok
	})
	return j.latest[kind]
}

// wait asks until it is told that something is so, and gives up in a minute.
func wait(t *testing.T, otherwise string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s in a minute", otherwise)
		case <-look.C:
		}
	}
}
