package aaaclient

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
	"tollbridge/internal/peertest"
)

// An erlang is the Erlang/OTP accounting server.
type erlang struct {
	t             *testing.T
	port, control string
	file          string
}

func startErlang(t *testing.T, dir, run string) erlang {
	ports := peertest.FreePorts(t, 2)
	e := erlang{t, ports[0], ports[1], filepath.Join(run, "acr.jsonl")}
	peertest.Start(t, filepath.Join(dir, "erlang.sh"), run, nil, e.port, e.file, e.control)
	return e
}

// tell sends a command to the control port.
func (e erlang) tell(command string) string {
	e.t.Helper()
	nc, err := net.Dial("tcp", "127.0.0.1:"+e.control)
	if err != nil {
		e.t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprintln(nc, command)
	line, err := bufio.NewReader(nc).ReadString('\n')
	if err != nil || strings.Contains(line, "unknown") {
		e.t.Fatalf("%s: %s%v", command, line, err)
	}
	return line
}

// An erlangACR is a line of its output.
type erlangACR struct {
	SID    string `json:"sid"`
	Num    uint32
	Type   uint32
	T      bool
	E2E    uint32 `json:"e2e"`
	Result uint32
	AVPs   [][]any `json:"avps"`
}

// accounted reads what it accounted for, without duplicates, once n records are
// there; it writes them up to 200 ms late. Copies must be equal.
func (e erlang) accounted(n int) map[storeKey]acct.Record {
	e.t.Helper()
	deadline, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(e.file)
		if err != nil && !os.IsNotExist(err) {
			e.t.Fatal(err)
		}
		got, contents := map[storeKey]acct.Record{}, map[storeKey][32]byte{}
		for line := range strings.Lines(string(b)) {
			if !strings.HasSuffix(line, "\n") {
				break
			}
			var a erlangACR
			if err := json.Unmarshal([]byte(line), &a); err != nil {
				e.t.Fatalf("%s: %v", line, err)
			}
			var avps []byte
			for _, v := range a.AVPs {
				data, err := hex.DecodeString(v[3].(string))
				if err != nil {
					e.t.Fatal(err)
				}
				avps = avp.Append(avps, uint32(v[0].(float64)), uint32(v[1].(float64)), 0, data)
			}
			record, err := dict.For(0).ParseRecord(avps)
			if err != nil {
				e.t.Fatalf("%s/%d does not decode: %v", a.SID, a.Num, err)
			}
			k := storeKey{a.SID, a.Num}
			if content, again := contents[k]; again && content != dict.ContentDigest(avps) {
				e.t.Errorf("%s/%d came again with other content", a.SID, a.Num)
			}
			if a.Result == avp.ResultSuccess {
				got[k], contents[k] = record, dict.ContentDigest(avps)
			}
		}
		if len(got) >= n {
			return got
		}
		select {
		case <-deadline.Done():
			e.t.Fatalf("%d records of %d arrived", len(got), n)
		case <-tick.C:
		}
	}
}

// TestRealPeers delivers to the Erlang/OTP accounting server, at once and
// through freeDiameter as a relay, well behaved and not.
func TestRealPeers(t *testing.T) {
	peertest.Need(t, "escript", "freeDiameterd", "openssl", "tshark")
	dir := peertest.Scripts(t)
	run := t.TempDir()
	certs := filepath.Join(run, "certs")
	if err := os.Mkdir(certs, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(dir, "mkcerts.sh"), certs).CombinedOutput(); err != nil {
		t.Fatalf("mkcerts.sh: %v\n%s", err, out)
	}
	server := startErlang(t, dir, run)
	relay := peertest.FreePorts(t, 2)
	peertest.Start(t, filepath.Join(dir, "freediameter.sh"), run, []string{"PORT=" + relay[0], "SEC=" + relay[1], "HOMEPORT=" + server.port, "CERTS=" + certs})

	epoch := 0
	for _, way := range []struct {
		name, port, host string
		misbehave        []string
	}{
		{"Erlang", server.port, "acct.home.example", []string{"", "lose 5", "silent 5", "result 3004 5", "result 5012 3", "drop 20"}},
		{"freeDiameter", relay[0], "relay.visited.example", []string{"", "lose 5", "silent 5", "result 3004 5", "drop 20"}},
	} {
		for _, command := range way.misbehave {
			t.Run(way.name+" "+cmp.Or(command, "well behaved"), func(t *testing.T) {
				server.t = t
				server.tell("reset")
				if err := os.Truncate(server.file, 0); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				if command != "" {
					server.tell(command)
				}
				epoch++
				outbox := newOutbox()
				want := map[storeKey]acct.Record{}
				for _, r := range records(20, 10) {
					r.SessionID += fmt.Sprintf(";%d", epoch)
					r.Realm = "home.example"
					want[storeKey{r.SessionID, r.Number}] = r
					outbox.add(r)
				}
				capture := newCapture(t, way.port)
				cfg := client(outbox, "127.0.0.1:"+way.port)
				cfg.Dial = capture.dial
				cfg.Peers[0].Host = way.host
				cfg.Window, cfg.Timeout, cfg.Connect = 32, time.Second, 200*time.Millisecond
				cfg.RetryMin, cfg.RetryMax = 100*time.Millisecond, time.Second
				c, stop := runClient(t, cfg)
				settled(t, outbox, c)
				stop()
				outbox.check(t, acct.Acknowledged)
				stats := c.Stats()
				if resent := strings.HasPrefix(command, "lose") || strings.HasPrefix(command, "silent"); resent && stats.Resent == 0 {
					t.Errorf("stats %+v", stats)
				}
				if strings.HasPrefix(command, "result") && stats.Retried == 0 {
					t.Errorf("stats %+v", stats)
				}
				var sum, truth uint64
				got := server.accounted(len(want))
				for k, r := range want {
					g, ok := got[k]
					if !ok || g.Usage != r.Usage || g.User != r.User || g.Type != r.Type || !g.Start.Equal(r.Start) {
						t.Errorf("%v arrived as %+v, want %+v", k, g, r)
					}
					sum += g.Usage.InputOctets + g.Usage.OutputOctets
					truth += r.Usage.InputOctets + r.Usage.OutputOctets
				}
				if len(got) != len(want) || sum != truth {
					t.Errorf("%d records and %d octets arrived, want %d and %d", len(got), sum, len(want), truth)
				}
				if command == "" || strings.HasPrefix(command, "drop") {
					capture.judge()
				}
				t.Logf("%+v; erlang: %s", stats, server.tell("stats"))
			})
		}
	}
}
