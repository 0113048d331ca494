package config

import (
	"fmt"
	"strings"
	"time"
)

// correctable is for how long asm remembers bindings that are over.
const correctable = 24 * time.Hour

// checkBilling reports what can't be cut, told apart or named so.
func (c *Config) checkBilling(report func(key, format string, args ...any)) {
	oneOf := func(key, value string, allowed ...string) {
		for _, a := range allowed {
			if value == a {
				return
			}
		}
		report(key, "%q is not one of %s", value, strings.Join(allowed, ", "))
	}
	zone := func(key, name string) {
		if _, err := time.LoadLocation(name); err != nil || name == "Local" {
			report(key, "%q is no time zone: write an IANA name such as Europe/Berlin", name)
		}
	}
	a := &c.Accounting
	oneOf("users.split", c.Users.Split, "end", "proportional")
	if c.Users.Correct > correctable {
		report("users.correct", "%s is too long: at most %s, as bindings that are over are forgotten then", c.Users.Correct, correctable)
	}
	if c.Users.CorrectMemory < 1<<20 {
		report("users.correctMemory", "%d octets are too few: at least 1MiB", c.Users.CorrectMemory)
	}
	if c.Users.Tolerance > time.Hour {
		report("users.tolerance", "%s is too long: at most 1h", c.Users.Tolerance)
	}
	oneOf("accounting.layer", a.Layer, "network", "link")
	zone("accounting.timeZone", a.TimeZone)
	if a.BillingDay > 0 && a.TimeZone == "" {
		report("accounting.billingDay", "needs accounting.timeZone: a day begins somewhere")
	}
	seen := map[string]bool{}
	for i, r := range a.Realms {
		key := fmt.Sprintf("accounting.realms[%d]", i)
		if r.Realm == "" || seen[r.Realm] {
			report(key+".realm", "%q is missing or another's: name each realm once", r.Realm)
		}
		seen[r.Realm] = true
		zone(key+".timeZone", r.TimeZone)
		if n := r.OperatorName; n != "" && (len(n) < 2 || !strings.ContainsRune("0123", rune(n[0]))) {
			report(key+".operatorName", "%q lacks its namespace: write such as 1visited.example for a realm (RFC 5580, Section 4.1)", n)
		}
	}
	for i, class := range a.Classes {
		oneOf(fmt.Sprintf("accounting.classes[%d].direction", i), class.Direction, "", "input", "output")
	}
	for i, e := range c.CollectingProcess.Exporters {
		key := fmt.Sprintf("collectingProcess.exporters[%d].vrf", i)
		if e.VRF.Element == "" && len(e.VRF.Names) == 0 {
			continue
		}
		if !element.MatchString(e.VRF.Element) {
			report(key+".element", "%q is no Information Element: write its name such as ingressVRFID, or enterprise and number such as 637:93", e.VRF.Element)
		}
		values := map[string]bool{}
		for j, n := range e.VRF.Names {
			if n.Value == "" || n.Name == "" || values[n.Value] {
				report(fmt.Sprintf("%s.names[%d]", key, j), "want a value, each once, and its name")
			}
			values[n.Value] = true
		}
	}
}
