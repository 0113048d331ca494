package sql

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// connection reads how to reach a database: a URL or keywords and values, as
// PostgreSQL's own programs take them. A database on another host must show a
// certificate of its name (sslmode=verify-full) unless it is said otherwise.
func connection(s string, password []byte) (*pgx.ConnConfig, error) {
	if hasOption(s, "password") {
		return nil, errors.New("holds a password: keep it in a file or the environment instead")
	}
	cfg, err := pgx.ParseConfig(s)
	if err != nil {
		return nil, err
	}
	if !hasOption(s, "sslmode") && os.Getenv("PGSSLMODE") == "" && leavesHost(cfg) {
		if cfg, err = pgx.ParseConfig(withVerifyFull(s)); err != nil {
			return nil, fmt.Errorf("with sslmode=verify-full: %w", err)
		}
	}
	if len(password) > 0 {
		cfg.Password = string(password)
	}
	// Every value comes as text, in a form that does not depend on the server.
	cfg.RuntimeParams["timezone"] = "UTC"
	cfg.RuntimeParams["datestyle"] = "ISO"
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "tollbridge"
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec // no prepared statement outlives a query, for poolers
	return cfg, nil
}

// hasOption reports whether a connection string sets an option itself.
func hasOption(s, name string) bool {
	if u, ok := connectionURL(s); ok {
		_, password := u.User.Password()
		return u.Query().Has(name) || name == "password" && password
	}
	return regexp.MustCompile(`(^|\s)` + name + `\s*=`).MatchString(s)
}

func connectionURL(s string) (*url.URL, bool) {
	if !strings.HasPrefix(s, "postgres://") && !strings.HasPrefix(s, "postgresql://") {
		return nil, false
	}
	u, err := url.Parse(s)
	return u, err == nil
}

func withVerifyFull(s string) string {
	u, ok := connectionURL(s)
	if !ok {
		return s + " sslmode=verify-full"
	}
	q := u.Query()
	q.Set("sslmode", "verify-full")
	u.RawQuery = q.Encode()
	return u.String()
}

// leavesHost reports whether any of the servers is on another host.
func leavesHost(cfg *pgx.ConnConfig) bool {
	hosts := []string{cfg.Host}
	for _, f := range cfg.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, h := range hosts {
		a, err := netip.ParseAddr(h)
		if !strings.HasPrefix(h, "/") && h != "localhost" && (err != nil || !a.IsLoopback()) {
			return true
		}
	}
	return false
}
