package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/internal/certtest"
)

// secureConfig is a configuration that collects over TLS and DTLS alone, from
// the one who has a certificate of meter.isp.example.
func secureConfig(t *testing.T, ca *certtest.Authority) config.Config {
	t.Helper()
	ours := ca.Write(ca.Issue("collector.isp.example"))
	c, err := config.Parse("test.yaml", []byte(strings.NewReplacer(
		"DATA", filepath.Join(t.TempDir(), "state"), "CERTIFICATE", ours.Certificate, "KEY", ours.Key, "AUTHORITY", ours.CA,
	).Replace(`
data: DATA
collectingProcess:
  udpCollectors: []
  tcpCollectors: []
  tlsCollectors: ['127.0.0.1:0', '[::1]:0']
  dtlsCollectors: ['127.0.0.1:0']
  tls: {certificate: CERTIFICATE, key: KEY, ca: AUTHORITY}
  exporters:
    - {name: edge, certificateNames: [meter.isp.example]}
server: {listen: ['127.0.0.1:0']}
status: {listen: '127.0.0.1:0'}
`)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// runMeter is "tollbridge meter" within the test.
func runMeter(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := newMeter()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// The meter exports over TLS and DTLS to the daemon, which knows it by its
// certificate; whoever has another is refused.
func TestMeterExportsByCertificate(t *testing.T) {
	ca := certtest.NewAuthority(t)
	b, err := newBridge(secureConfig(t, ca), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	tls4, tls6, dtls := b.tls[0].Addr().String(), b.tls[1].Addr().String(), b.dtls[0].LocalAddr().String()
	go func() { done <- b.Run(ctx) }()

	capture := filepath.Join(t.TempDir(), "traffic.pcap")
	if err := os.WriteFile(capture, demodata.Capture, 0o600); err != nil {
		t.Fatal(err)
	}
	meter := func(name string, args ...string) (string, error) {
		f := ca.Write(ca.Issue(name))
		return runMeter(t, append([]string{"-r", capture, "--cert", f.Certificate, "--key", f.Key, "--ca", f.CA}, args...)...)
	}
	for _, args := range [][]string{
		{"--transport", "tls", "--to", tls4},
		{"--transport", "tls", "--to", "127.0.0.1:1," + tls6},
		{"--transport", "dtls", "--to", dtls},
		{"--transport", "tls", "--to", tls4 + "," + tls6, "--duplicate"},
		{"--transport", "tls", "--to", tls4, "--server-name", "collector.isp.example"},
	} {
		if out, err := meter("meter.isp.example", args...); err != nil || !strings.Contains(out, "flow records") {
			t.Errorf("meter %q: %v\n%s", args, err, out)
		}
	}
	before := b.collector.Stats()
	if before.Exporters["edge"].Messages == 0 || before.Refused != 0 || before.Handshakes != 0 {
		t.Errorf("stats %+v", before)
	}
	if _, err := meter("stranger.isp.example", "--transport", "dtls", "--to", dtls); err == nil {
		t.Error("a stranger exported")
	}
	if out, err := meter("meter.isp.example", "--transport", "sms"); err == nil || !strings.Contains(err.Error(), "is not one of udp, tcp, sctp, tls, dtls") {
		t.Errorf("an unknown transport: %v\n%s", err, out)
	}
	for _, refused := range []struct{ want, args string }{
		{"are for --transport sctp alone", "--transport tls --streams 2 --to " + tls4},
		{"are for --transport sctp alone", "--transport tls --lifetime 1s --to " + tls4},
		{"is for --transport udp and dtls alone", "--transport tls --template-refresh 1m --to " + tls4},
		{"0s is not more than 0", "--transport dtls --template-refresh 0s --to " + dtls},
		{"--reconnect: 0s is not more than 0", "--transport tls --reconnect 0s --to " + tls4},
		{"--max-reconnect: 1s is less than --reconnect, 1m0s", "--transport tls --max-reconnect 1s --to " + tls4},
		{"--connect-timeout: 0s is not more than 0", "--transport tls --connect-timeout 0s --to " + tls4},
	} {
		if out, err := meter("meter.isp.example", strings.Fields(refused.args)...); err == nil || !strings.Contains(out+err.Error(), refused.want) {
			t.Errorf("meter %s: %v\n%s", refused.args, err, out)
		}
	}
	if _, err := runMeter(t, "-r", capture, "--server-name", "x"); err == nil || !strings.Contains(err.Error(), "of no use without") {
		t.Errorf("a server name without TLS: %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s := b.collector.Stats(); s.Refused == 0 || s.Messages != before.Messages {
		t.Errorf("stats %+v after a stranger, before %+v", s, before)
	}
}
