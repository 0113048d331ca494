package config

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// element is how people write an Information Element: by its name, its number,
// or the enterprise's number and its own.
var element = regexp.MustCompile(`^([a-z][A-Za-z0-9]*|([0-9]{1,10}:)?[0-9]{1,5})$`)

// check reports what each key allows on its own but the whole does not.
func (c *Config) check(report func(key, format string, args ...any)) {
	if c.Data == "" {
		report("data", "is empty: name the state directory")
	}
	checkIdentity := func(key, s string) { checkIdentity(report, key, s) }
	checkIdentity("identity.originHost", c.Identity.OriginHost)
	checkIdentity("identity.originRealm", c.Identity.OriginRealm)
	checkIdentity("delivery.destinationRealm", c.Delivery.DestinationRealm)
	checkIdentity("server.originHost", c.Server.OriginHost)
	c.checkNode(report)

	c.CollectingProcess.check(report)
	c.Forward.check(report, c.CollectingProcess.TLS)
	if c.CollectingProcess.listeners() == 0 && !c.Server.Listens() {
		report("collectingProcess", "has no udpCollectors, tcpCollectors, tlsCollectors, dtlsCollectors or sctpCollectors, and server.listen is empty: nothing could ever come in")
	}

	for i, f := range c.Users.Files {
		if file, err := os.Open(f); err != nil {
			report(fmt.Sprintf("users.files[%d]", i), "can't be read: %v", err)
		} else {
			file.Close()
		}
	}
	if c.Accounting.Mode == "aaa-client" && len(c.Users.Files) > 0 {
		report("users.files", "is of no use with accounting.mode aaa-client, which leaves the users to the AAA server: remove one of the two")
	}

	c.Users.RADIUS.check(report)
	c.Users.checkSQL(report)
	c.Users.checkLeases(report)
	if c.Accounting.Mode == "aaa-client" && len(c.Users.Leases) > 0 {
		report("users.leases", "is of no use with accounting.mode aaa-client, which leaves the users to the AAA server: remove one of the two")
	}
	if c.Accounting.Mode == "aaa-client" && len(c.Users.SQL) > 0 {
		report("users.sql", "is of no use with accounting.mode aaa-client, which leaves the users to the AAA server: remove one of the two")
	}
	if c.Accounting.Mode == "aaa-client" && len(c.Users.RADIUS.Clients) > 0 {
		report("users.radius.clients", "is of no use with accounting.mode aaa-client, which leaves the users to the AAA server: remove one of the two")
	}

	atLeast := func(key string, d, least time.Duration) {
		if d < least {
			report(key, "%s is too short: at least %s", d, least)
		}
	}
	for i, e := range c.Users.InBand {
		if !element.MatchString(e) {
			report(fmt.Sprintf("users.inBand[%d]", i), "%q is no Information Element: write its name such as userName, or enterprise and number such as 637:93", e)
		}
	}
	if c.Accounting.Mode == "aaa-client" && len(c.Users.InBand) > 0 {
		report("users.inBand", "is of no use with accounting.mode aaa-client, which leaves the users to the AAA server: remove one of the two")
	}
	atLeast("users.inBandIdle", c.Users.InBandIdle, time.Second)
	atLeast("users.tolerance", c.Users.Tolerance, 0)
	atLeast("users.correct", c.Users.Correct, 0)
	c.checkBilling(report)
	atLeast("users.reload", c.Users.Reload, 100*time.Millisecond)
	atLeast("users.wait", c.Users.Wait, time.Second)
	atLeast("accounting.linger", c.Accounting.Linger, time.Second)
	atLeast("accounting.clockTolerance", c.Accounting.ClockTolerance, time.Second)
	atLeast("accounting.interimInterval", c.Accounting.InterimInterval, time.Second)
	atLeast("accounting.minInterimInterval", c.Accounting.MinInterim, time.Second)
	atLeast("accounting.maxInterimInterval", c.Accounting.MaxInterim, c.Accounting.MinInterim)
	atLeast("server.interimInterval", c.Server.InterimInterval, 0)
	atLeast("accounting.maxSessionAge", c.Accounting.MaxSessionAge, c.Accounting.InterimInterval)
	atLeast("accounting.dedupWindow", c.Accounting.DedupWindow, time.Minute)
	atLeast("delivery.timeout", c.Delivery.Timeout, 100*time.Millisecond)
	atLeast("delivery.reconnect", c.Delivery.Reconnect, 100*time.Millisecond)
	atLeast("forward.reconnect", c.Forward.Reconnect, 100*time.Millisecond)
	if c.Forward.MaxReconnect != 0 {
		atLeast("forward.maxReconnect", c.Forward.MaxReconnect, c.Forward.Reconnect)
	}
	atLeast("delivery.watchdog", c.Delivery.Watchdog, 6*time.Second) // RFC 3539, Section 3.4.1
	if d := c.Delivery.Drain; d < 0 || d > maxDrain {
		report("delivery.drain", "%s is out of range: 0s to %s", d, maxDrain)
	}
	atLeast("spool.checkpoint", c.Spool.Checkpoint, 10*time.Millisecond)
	if c.Spool.Lease != 0 {
		atLeast("spool.lease", c.Spool.Lease, time.Second)
	}

	atLeast("archive.interval", c.Archive.Interval, time.Second)
	atLeast("spool.audit", c.Spool.Audit, time.Second)
	mark := func(key string, n Octets) {
		if n > 0 && n < 1<<20 {
			report(key, "%d octets are too few: at least 1MiB, or 0 for no mark", n)
		}
	}
	mark("spool.maxJournal", c.Spool.MaxJournal)
	mark("spool.maxOutbox", c.Spool.MaxOutbox)
	mark("archive.holdAt", c.Archive.HoldAt)

	within := func(key string, n, least, most int) {
		if n < least || n > most {
			report(key, "%d is out of range: %d to %d", n, least, most)
		}
	}
	if c.CollectingProcess.TemplateLifetime != 0 {
		atLeast("collectingProcess.templateLifetime", c.CollectingProcess.TemplateLifetime, time.Second)
	}
	atLeast("collectingProcess.idleTimeout", c.CollectingProcess.IdleTimeout, time.Second)
	within("collectingProcess.maxSessions", c.CollectingProcess.MaxSessions, 1, 4096)
	within("collectingProcess.maxConnections", c.CollectingProcess.MaxConnections, 1, 1024)
	within("collectingProcess.maxHandshakes", c.CollectingProcess.MaxHandshakes, 1, 4096)
	within("accounting.maxIdentities", c.Accounting.MaxIdentities, 10_000, 1_000_000_000)
	within("accounting.maxTotals", c.Accounting.MaxTotals, 1024, 100_000_000)
	for i, e := range c.CollectingProcess.Exporters {
		within(fmt.Sprintf("collectingProcess.exporters[%d].sampling", i), e.Sampling, 0, 1<<32-1)
		switch e.Account {
		case "", "all", "ingress", "egress", "none":
		default:
			report(fmt.Sprintf("collectingProcess.exporters[%d].account", i), "%q is none of all, ingress, egress, none", e.Account)
		}
		for j, n := range e.Interfaces {
			within(fmt.Sprintf("collectingProcess.exporters[%d].interfaces[%d]", i, j), n, 0, 1<<32-1)
		}
		if strings.HasPrefix(e.Name, "(") {
			report(fmt.Sprintf("collectingProcess.exporters[%d].name", i), "%q begins with a parenthesis, as the books of corrections do: choose another", e.Name)
		}
	}
	for key, d := range map[string]time.Duration{
		"accounting.interimInterval": c.Accounting.InterimInterval, "server.interimInterval": c.Server.InterimInterval,
	} {
		if d%time.Second != 0 {
			report(key, "%s is not of whole seconds", d)
		}
	}
	within("accounting.billingDay", c.Accounting.BillingDay, 0, 31)
	within("accounting.maxRecord", c.Accounting.MaxRecord, 2048, 1<<24-4096)
	within("delivery.window", c.Delivery.Window, 1, 65536)
	within("delivery.vendorId", c.Delivery.VendorID, 1, 1<<32-1)

	classes := map[string]bool{}
	for i, class := range c.Accounting.Classes {
		key := fmt.Sprintf("accounting.classes[%d]", i)
		if class.Name == "" {
			report(key+".name", "is missing: accounting records name a class by it")
		}
		if classes[class.Name] {
			report(key+".name", "%q is another class's name", class.Name)
		}
		classes[class.Name] = true
		for j, n := range class.DSCP {
			within(fmt.Sprintf("%s.dscp[%d]", key, j), n, 0, 63)
		}
		for j, n := range class.Protocols {
			within(fmt.Sprintf("%s.protocols[%d]", key, j), n, 0, 255)
		}
	}

	c.Delivery.check(report, checkIdentity)
	c.CreditControl.check(report, checkIdentity, c.Identity.OriginHost, c.Server.OriginHost, &c.Delivery, c.Users.RADIUS.Clients, c.Server.AccessServers, classes)
	if c.Embedded() && len(c.Server.Listen) == 0 {
		report("delivery.peers", "is empty and so is server.listen: accounting records would have nowhere to go")
	}
	c.checkServer(report)
	if a := c.Status.Listen; a.IsValid() && !a.Addr().IsLoopback() {
		report("status.listen", "%s can be reached from other hosts: the status endpoints listen on loopback only", a)
	}
}
