package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"
)

// RADIUS is the accounting server that a NAS tells of its sessions (RFC 2866).
// It listens once it has a client.
type RADIUS struct {
	Listen     []netip.AddrPort `yaml:"listen"`
	Clients    []RADIUSClient   `yaml:"clients"`
	User       []string         `yaml:"user"`
	Attributes []string         `yaml:"attributes"`
	Realm      bool             `yaml:"realm"`

	Idle           time.Duration `yaml:"idle"`
	ClockTolerance time.Duration `yaml:"clockTolerance"`
	MaxDelay       time.Duration `yaml:"maxDelay"`
}

// A RADIUSClient is a NAS or proxy that may send.
type RADIUSClient struct {
	Name                        string         `yaml:"name"`
	Prefixes                    []Prefix       `yaml:"prefixes"`
	Secret                      Secret         `yaml:"secret"`
	RequireMessageAuthenticator bool           `yaml:"requireMessageAuthenticator"`
	Disconnect                  netip.AddrPort `yaml:"disconnect"` // where it takes Disconnect-Requests
}

// A Secret is where a secret is kept: not in the configuration.
type Secret struct {
	File string `yaml:"file"` // its content, without white space around it
	Env  string `yaml:"env"`  // a variable of the daemon's environment
}

// Load reads the secret, which must not be empty.
func (s Secret) Load() ([]byte, error) {
	if s.Env != "" {
		value, found := os.LookupEnv(s.Env)
		if !found || value == "" {
			return nil, fmt.Errorf("environment variable %s is not set", s.Env)
		}
		return []byte(value), nil
	}
	content, err := os.ReadFile(s.File)
	if err != nil {
		return nil, err
	}
	if content = bytes.TrimSpace(content); len(content) == 0 {
		return nil, fmt.Errorf("%s is empty", s.File)
	}
	return content, nil
}

// check reports why s can't be read, under key or what is below it. It tells
// nothing of the secret itself.
func (s Secret) check(report func(key, format string, args ...any), key string) {
	switch {
	case s.File == "" && s.Env == "":
		report(key, "is missing: name a file that holds it with %s.file, or a variable of the environment with %s.env", key, key)
		return
	case s.File != "" && s.Env != "":
		report(key+".env", "%s is one place of the secret, file is another: remove one of the two", s.Env)
		return
	}
	if _, err := s.Load(); err != nil {
		below := ".file"
		if s.Env != "" {
			below = ".env"
		}
		report(key+below, "can't be used: %v", err)
	}
}

func (r *RADIUS) check(report func(key, format string, args ...any)) {
	const key = "users.radius"
	if len(r.Clients) > 0 && len(r.Listen) == 0 {
		report(key+".listen", "is empty: clients would have nowhere to send to")
	}
	names, owner := map[string]bool{}, map[netip.Prefix]string{}
	for i, c := range r.Clients {
		key := fmt.Sprintf("%s.clients[%d]", key, i)
		switch {
		case c.Name == "":
			report(key+".name", "is missing: sessions of its NAS are known by it")
		case strings.Contains(c.Name, "/") || len(c.Name) > 63:
			report(key+".name", "%q has a / or more than 63 octets: write a name such as bng-1", c.Name)
		case names[c.Name]:
			report(key+".name", "%q is another client's name", c.Name)
		}
		names[c.Name] = true
		if len(c.Prefixes) == 0 {
			report(key+".prefixes", "is missing: a client is known by the addresses that it sends from")
		}
		for j, p := range c.Prefixes {
			if o, taken := owner[p.Prefix]; taken {
				report(fmt.Sprintf("%s.prefixes[%d]", key, j), "%s belongs to client %q", p, o)
			}
			owner[p.Prefix] = c.Name
		}
		c.Secret.check(report, key+".secret")
	}
	for _, d := range []struct {
		key string
		d   time.Duration
	}{{".clockTolerance", r.ClockTolerance}, {".maxDelay", r.MaxDelay}} {
		if d.d < time.Second {
			report(key+d.key, "%s is too short: at least 1s", d.d)
		}
	}
	if r.Idle > 0 && r.Idle < time.Minute {
		report(key+".idle", "%s is too short: at least 1m, and longer than NAS leave between two Interim-Updates", r.Idle)
	}
}
