package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollbridge/dict"
	"tollbridge/dict/avp"
	"tollbridge/internal/peertest"
)

// An erlang is the Erlang/OTP accounting server: acct.home.example.
type erlang struct {
	port, file string
	misbehaves bool // it was told to refuse requests, which then come again
}

func startErlang(t *testing.T) erlang {
	t.Helper()
	return startErlangOf(t, peertest.Scripts(t), nil)
}

// startErlangOf starts it by the scripts in dir, with more arguments.
func startErlangOf(t *testing.T, dir string, env []string, more ...string) erlang {
	t.Helper()
	peertest.Need(t, "escript")
	run := t.TempDir()
	ports := peertest.FreePorts(t, 2)
	e := erlang{port: ports[0], file: filepath.Join(run, "acr.jsonl")}
	peertest.Start(t, filepath.Join(dir, "erlang.sh"), run, env, append([]string{e.port, e.file, ports[1]}, more...)...)
	return e
}

// startNASREQ starts it as a server of accounting coupled to NASREQ,
// application 1, with Erlang/OTP's dictionary of RFC 4005 for it.
func startNASREQ(t *testing.T) erlang {
	t.Helper()
	dir := t.TempDir()
	for name, changes := range map[string][]string{
		"erlang.sh": nil,
		"erlang-acct.escript": {
			"diameter_gen_acct_rfc6733", peertest.NASREQ, // the dictionary of a server that was told "base"
			"{'Acct-Application-Id', [3]}", "{'Acct-Application-Id', [1]}", "'Acct-Application-Id' => 3", "'Acct-Application-Id' => 1",
		},
	} {
		b, err := os.ReadFile(filepath.Join(peertest.Scripts(t), name))
		if err != nil {
			t.Fatal(err)
		}
		for ; len(changes) > 0; changes = changes[2:] {
			if !bytes.Contains(b, []byte(changes[0])) {
				t.Fatalf("%s has no %q", name, changes[0])
			}
			b = bytes.ReplaceAll(b, []byte(changes[0]), []byte(changes[1]))
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return startErlangOf(t, dir, peertest.Dictionaries(t, peertest.NASREQ), "acct.home.example", "home.example", "base")
}

func (e erlang) address() string { return "127.0.0.1:" + e.port }

// charges returns what it has accounted for, each Session-Id and number once,
// when n of them are there; it writes them with some delay. Copies must be
// equal, and no request may have been refused.
func (e erlang) charges(t *testing.T, n int) []charge {
	t.Helper()
	var all []charge
	if !until(t, func() bool { all = e.read(t); return len(all) >= n }) {
		t.Fatalf("%d accounting records of %d arrived", len(all), n)
	}
	if len(all) > n {
		t.Errorf("%d accounting records arrived, but %d are acknowledged", len(all), n)
	}
	return all
}

func (e erlang) read(t *testing.T) []charge {
	t.Helper()
	b, err := os.ReadFile(e.file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	type key struct {
		session string
		number  uint32
	}
	var all []charge
	contents := map[key][32]byte{}
	for line := range strings.Lines(string(b)) {
		if !strings.HasSuffix(line, "\n") {
			break // still being written
		}
		var a struct {
			SID    string `json:"sid"`
			Result uint32 `json:"result"`
			AVPs   [][]any
		}
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		avps := joined(t, a.AVPs)
		r, err := dict.For(0).ParseRecord(avps)
		if err != nil {
			t.Fatalf("a record of %s does not decode: %v", a.SID, err)
		}
		if a.Result != avp.ResultSuccess && !e.misbehaves {
			t.Errorf("%s/%d was answered with %d", r.SessionID, r.Number, a.Result)
		}
		k, content := key{r.SessionID, r.Number}, dict.ContentDigest(avps)
		if before, again := contents[k]; !again {
			all = append(all, charge{r.SessionID, r.Number, r.Type.String(), r.User, r.Usage, r.Flow})
		} else if before != content {
			t.Errorf("%s/%d came again with other content", r.SessionID, r.Number)
		}
		contents[k] = content
	}
	return all
}

// joined returns AVPs that come as [code, vendor, M, hex].
func joined(t *testing.T, list [][]any) (avps []byte) {
	t.Helper()
	for _, v := range list {
		data, err := hex.DecodeString(v[3].(string))
		if err != nil {
			t.Fatal(err)
		}
		avps = avp.Append(avps, uint32(v[0].(float64)), uint32(v[1].(float64)), 0, data)
	}
	return avps
}

// acknowledged is how many records of a spool are settled, which all must be.
func acknowledged(t *testing.T, data string) int {
	t.Helper()
	var stats struct{ Records map[string]int }
	show(t, &stats, "spool", "stats", "--data", data)
	for state, n := range stats.Records {
		if state != "acknowledged" && n != 0 {
			t.Errorf("%d records are %s", n, state)
		}
	}
	return stats.Records["acknowledged"]
}
