package sql

import (
	"strings"
	"testing"
)

func TestConnection(t *testing.T) {
	t.Setenv("PGSSLMODE", "")
	t.Setenv("PGHOST", "")
	for _, c := range []struct {
		connect  string
		verified string // name that the certificate must have; "" for none
	}{
		{"postgres://tb@127.0.0.1/crm?sslmode=disable", ""},
		{"postgres://tb@db.isp.example/crm", "db.isp.example"},
		{"postgresql://tb@db.isp.example:5433/crm?application_name=x", "db.isp.example"},
		{"host=db.isp.example user=tb dbname=crm", "db.isp.example"},
		{"host=/run/postgresql,db.isp.example user=tb", "db.isp.example"},
		{"host=db.isp.example user=tb sslmode=disable", ""},
		{"host=/run/postgresql user=tb", ""},
	} {
		cfg, err := connection(c.connect, []byte("hidden"))
		if err != nil {
			t.Errorf("%s: %v", c.connect, err)
			continue
		}
		tls, host := cfg.TLSConfig, cfg.Host
		for _, f := range cfg.Fallbacks {
			if f.TLSConfig != nil {
				tls, host = f.TLSConfig, f.Host
			}
		}
		verified := ""
		if tls != nil && !tls.InsecureSkipVerify {
			verified = tls.ServerName
		}
		if verified != c.verified {
			t.Errorf("%s: %s must show %q, want %q", c.connect, host, verified, c.verified)
		}
		if cfg.Password != "hidden" {
			t.Errorf("%s: password %q", c.connect, cfg.Password)
		}
	}
	for connect, want := range map[string]string{
		"postgres://tb:hidden@127.0.0.1/crm":          "holds a password",
		"postgres://tb@127.0.0.1/crm?password=hidden": "holds a password",
		"host=127.0.0.1 password = hidden":            "holds a password",
		"host=127.0.0.1 port=high":                    "port",
	} {
		if _, err := connection(connect, nil); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: error %v, want one with %q and no password", connect, err, want)
		}
	}
}
