package export_test

import (
	"testing"
	"time"

	"tollbridge/internal/certtest"
	"tollbridge/ipfix"
	"tollbridge/ipfix/export"
)

func TestDTLS(t *testing.T) {
	for _, tt := range []struct {
		host    string
		longest int
	}{{"127.0.0.1:0", 1400 - 37}, {"[::1]:0", 1232 - 37}} {
		t.Run(tt.host, func(t *testing.T) {
			ca, d := certtest.NewAuthority(t), newDecoder()
			address, _, _ := collecting(t, ipfix.DTLS, tt.host, d, ca, "collector.isp.example")
			p := start(t, export.Config{Transport: ipfix.DTLS, Address: address, TLS: clientTLS(ca)})
			const n = 2000
			exportNumbers(t, p, 0, n)
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.await(t, n)
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.exactly(t, n)
			nearly(t, d, tt.longest)
			if s := p.Stats(); s.Records != n || s.TemplateMessages != 2 || s.LostMessages != 0 || s.Broken != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestDTLSRefusesCollector(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  func(ca *certtest.Authority) *export.TLS
		log  string
	}{
		{"wrong name", func(ca *certtest.Authority) *export.TLS {
			c := clientTLS(ca)
			c.ServerName = "elsewhere.isp.example"
			return c
		}, "not elsewhere.isp.example"},
		{"wrong authority", func(ca *certtest.Authority) *export.TLS {
			c := clientTLS(certtest.NewAuthority(t))
			c.Certificate = ca.Issue("meter.isp.example")
			return c
		}, "unknown authority"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ca, log := certtest.NewAuthority(t), newLog()
			address, collector, _ := collecting(t, ipfix.DTLS, "127.0.0.1:0", newDecoder(), ca, "collector.isp.example")
			p := start(t, export.Config{Transport: ipfix.DTLS, Address: address, TLS: tt.cfg(ca), Log: log.logger()})
			exportNumbers(t, p, 0, 10)
			log.await(t, "connecting failed", "transport=dtls", tt.log)
			if s := p.Stats(); s.Failures != 1 || s.Records != 0 {
				t.Errorf("stats %+v", s)
			}
			if s := collector.Stats(); s.Messages != 0 {
				t.Errorf("the collector's stats %+v", s)
			}
		})
	}
}

// An association is renewed with the Templates: a Collecting Process that lost
// its end could not tell.
func TestDTLSIsRenewed(t *testing.T) {
	ca, d := certtest.NewAuthority(t), newDecoder()
	address, _, stop := collecting(t, ipfix.DTLS, "127.0.0.1:0", d, ca, "collector.isp.example")
	p := start(t, export.Config{
		Transport: ipfix.DTLS, Address: address, TLS: clientTLS(ca),
		TemplateRefresh: 10 * time.Millisecond, Reconnect: time.Millisecond, Linger: time.Millisecond,
	})
	var n uint64
	for p.Stats().Connections < 3 {
		exportNumbers(t, p, n, n+1)
		n++
		d.await(t, int(n))
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	d.exactly(t, n)
	if s := p.Stats(); s.Broken != 0 || len(d.sessions) < 2 {
		t.Errorf("%d sessions, stats %+v", len(d.sessions), s)
	}
}

// A Collecting Process that stops tells so, and one that is gone is noticed.
func TestDTLSFailover(t *testing.T) {
	ca, primary, backup, log := certtest.NewAuthority(t), newDecoder(), newDecoder(), newLog()
	primaryAt, _, stop := collecting(t, ipfix.DTLS, "127.0.0.1:0", primary, ca, "collector.isp.example")
	backupAt, _, _ := collecting(t, ipfix.DTLS, "127.0.0.1:0", backup, ca, "collector.isp.example")
	p := start(t, export.Config{
		Transport: ipfix.DTLS, Address: primaryAt, Backups: []string{backupAt}, TLS: clientTLS(ca),
		Reconnect: 10 * time.Millisecond, Linger: time.Millisecond, Log: log.logger(),
	})
	exportNumbers(t, p, 0, 100)
	primary.await(t, 100)
	stop()
	log.await(t, "msg=connected", "collector="+backupAt)
	exportNumbers(t, p, 100, 200)
	backup.await(t, 100)
	_, _, _ = collecting(t, ipfix.DTLS, primaryAt, primary, ca, "collector.isp.example")
	log.await(t, "moving to a preferred collecting process", "from="+backupAt)
	exportNumbers(t, p, 200, 300)
	primary.await(t, 200)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	union(t, 300, primary, backup)
}
