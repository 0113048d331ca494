package config

import (
	"fmt"
	"strings"
	"time"
)

// A SQL is a PostgreSQL database that has user bindings.
type SQL struct {
	Name     string        `yaml:"name"`
	Connect  string        `yaml:"connect"`
	Password Secret        `yaml:"password"`
	Query    string        `yaml:"query"`
	Interval time.Duration `yaml:"interval"` // 0 means 1m
	Channel  string        `yaml:"channel"`
}

// checkSQL reports what is wrong with the databases of c.
func (c *Users) checkSQL(report func(key, format string, args ...any)) {
	names := map[string]bool{}
	for i, s := range c.SQL {
		key := fmt.Sprintf("users.sql[%d]", i)
		switch {
		case s.Name == "":
			report(key+".name", "is missing: its bindings are kept under it")
		case len(s.Name) > 63:
			report(key+".name", "%q has more than 63 octets", s.Name)
		case names[s.Name]:
			report(key+".name", "%q is another database's name", s.Name)
		}
		names[s.Name] = true
		if s.Connect == "" {
			report(key+".connect", "is missing: write it like postgres://tollbridge@db.isp.example/crm")
		}
		if strings.TrimSpace(s.Query) == "" {
			report(key+".query", `is missing: write a SELECT whose columns are prefix, "user" and others of a users file`)
		}
		if s.Interval != 0 && s.Interval < time.Second {
			report(key+".interval", "%s is too short: at least 1s", s.Interval)
		}
		if s.Password != (Secret{}) {
			s.Password.check(report, key+".password")
		}
	}
}
