package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport says which packages of ours each package may import; arrows point
// down only (docs/architecture.md). A package that is not here is an error.
var mayImport = map[string][]string{
	"asm/acct":      {"internal/octets"},
	"ipfix":         {},
	"ipfix/ack":     {"ipfix"},
	"ipfix/collect": {"ipfix", "ipfix/ack", "internal/sctp"},
	"ipfix/export":  {"ipfix", "ipfix/ack", "ipfix/export/backlog", "internal/sctp"},

	"ipfix/export/backlog": {"internal/durable"},

	"aaaclient/credit": {"aaaclient/peer", "asm/acct", "dict/avp"},

	"ipfix/file":        {"ipfix"},
	"dedup":             {"internal/memory", "internal/octets"},
	"dict/avp":          {},
	"dict":              {"ipfix", "asm/acct", "dict/avp"},
	"meter":             {"ipfix", "meter/pcap"},
	"meter/pcap":        {},
	"asm/charges":       {"asm/acct", "asm/users", "internal/octets"},
	"asm/classes":       {},
	"asm/nat":           {"asm/users", "ipfix"},
	"asm/positions":     {"internal/octets", "ipfix/ack"},
	"asm/sampling":      {"ipfix", "internal/octets"},
	"asm/totals":        {"asm/acct", "dedup", "internal/octets"},
	"asm/users":         {"internal/memory"},
	"asm/users/nasreq":  {"asm/users", "dict/avp"},
	"asm/users/dhcp":    {"asm/users"},
	"asm/users/radius":  {"asm/users", "internal/crashpoint"},
	"asm/users/sql":     {"asm/users"},
	"asm":               {"ipfix", "ipfix/ack", "dict", "dedup", "asm/acct", "asm/charges", "asm/classes", "asm/nat", "asm/positions", "asm/sampling", "asm/totals", "asm/users", "internal/octets"},
	"spool":             {"asm/acct", "internal/crashpoint", "internal/octets", "spool/journal"},
	"spool/journal":     {"asm/acct", "internal/crashpoint", "internal/durable"},
	"spool/archive":     {"asm/acct", "internal/durable", "spool"},
	"aaaclient/cdrfile": {"asm/acct", "internal/durable"},
	"aaaclient/peer":    {"dict/avp", "internal/sctp"},
	"aaaclient":         {"asm/acct", "dict", "dict/avp", "aaaclient/peer", "internal/crashpoint"},
	"asm/aaaserver":     {"asm/acct", "dict", "dict/avp", "aaaclient/peer"},

	"internal/certtest":     {},
	"internal/crashpoint":   {},
	"internal/durable":      {},
	"internal/memory":       {},
	"internal/iegen":        {},
	"internal/octets":       {},
	"internal/peertest":     {},
	"internal/pgtest":       {"internal/peertest"},
	"internal/powerloss":    {},
	"internal/sctp":         {},
	"internal/sim":          {"ipfix", "ipfix/ack", "asm", "asm/acct", "asm/classes", "dedup", "asm/users", "dict", "dict/avp", "spool", "aaaclient", "aaaclient/peer"},
	"internal/wiretest":     {},
	"internal/terminaltest": {},

	"cmd/tollbridge/demodata":           {},
	"cmd/tollbridge/internal/auditcmd":  {"asm", "asm/acct", "cmd/tollbridge/internal/entry", "cmd/tollbridge/internal/listing", "cmd/tollbridge/internal/state", "cmd/tollbridge/internal/terminal", "spool"},
	"cmd/tollbridge/internal/config":    {},
	"cmd/tollbridge/internal/control":   {"asm/acct"},
	"cmd/tollbridge/internal/entry":     {"asm", "asm/acct", "asm/users", "cmd/tollbridge/internal/flowtext", "cmd/tollbridge/internal/listing", "ipfix", "ipfix/file", "spool", "spool/archive"},
	"cmd/tollbridge/internal/flowfiles": {"cmd/tollbridge/internal/flowtext", "cmd/tollbridge/internal/listing", "cmd/tollbridge/internal/terminal", "ipfix", "ipfix/file", "meter/pcap"},
	"cmd/tollbridge/internal/flowtext":  {"ipfix"},
	"cmd/tollbridge/internal/listing":   {"asm/acct"},
	"cmd/tollbridge/internal/terminal":  {},
	"cmd/tollbridge/internal/userscmd":  {"asm", "asm/acct", "asm/users", "cmd/tollbridge/internal/config", "cmd/tollbridge/internal/control", "cmd/tollbridge/internal/listing", "cmd/tollbridge/internal/profile", "cmd/tollbridge/internal/reconcile", "cmd/tollbridge/internal/state", "cmd/tollbridge/internal/terminal", "dict", "spool"},
	"cmd/tollbridge/internal/profile":   {"aaaclient", "cmd/tollbridge/internal/config", "dict", "spool"},
	"cmd/tollbridge/internal/reconcile": {"asm/acct", "cmd/tollbridge/internal/listing", "cmd/tollbridge/internal/profile", "dict", "dict/avp", "spool", "spool/archive"},
	"cmd/tollbridge/internal/replay":    {"asm", "asm/acct", "cmd/tollbridge/internal/listing", "spool", "spool/archive"},
	"cmd/tollbridge/internal/spoolcmd":  {"asm", "asm/acct", "cmd/tollbridge/internal/config", "cmd/tollbridge/internal/control", "cmd/tollbridge/internal/entry", "cmd/tollbridge/internal/listing", "cmd/tollbridge/internal/state", "cmd/tollbridge/internal/terminal", "dict/avp", "spool", "spool/archive"},
	"cmd/tollbridge/internal/state":     {"cmd/tollbridge/internal/config", "cmd/tollbridge/internal/listing", "spool"},
}

// home says where each outside library lives, tests apart.
var home = map[string][]string{
	"github.com/google/gopacket":     {"meter"},
	"github.com/mattn/go-sqlite3":    {"spool"},
	"github.com/fiorix/go-diameter":  {"dict", "aaaclient", "aaaclient/peer", "asm/aaaserver"},
	"github.com/gaissmai/bart":       {"asm/users"},
	"github.com/goccy/go-yaml":       {"cmd/tollbridge/internal/config", "asm/users"},
	"github.com/ishidawataru/sctp":   {"internal/sctp"},
	"github.com/pion/dtls":           {"ipfix/collect", "ipfix/export"},
	"github.com/prometheus":          {"cmd/tollbridge"},
	"github.com/spf13/cobra":         {"cmd/tollbridge", "cmd/tollbridge/internal/auditcmd", "cmd/tollbridge/internal/flowfiles", "cmd/tollbridge/internal/listing", "cmd/tollbridge/internal/reconcile", "cmd/tollbridge/internal/replay", "cmd/tollbridge/internal/spoolcmd", "cmd/tollbridge/internal/state", "cmd/tollbridge/internal/userscmd"},
	"github.com/schollz/progressbar": {"cmd/tollbridge/internal/flowfiles", "cmd/tollbridge/internal/terminal", "cmd/tollbridge/internal/userscmd"},
	"layeh.com/radius":               {"asm/users/radius"},
	"github.com/jackc/pgx":           {"asm/users/sql"},
	"github.com/klauspost/compress":  {"spool", "spool/archive"},
	"golang.org/x/net":               {"ipfix/collect", "ipfix/export"},
	"golang.org/x/sync":              {"*"},
	"golang.org/x/sys":               {"*"},
	"golang.org/x/term":              {"cmd/tollbridge/internal/terminal"},
}

func TestArrowsPointDown(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "tollbridge/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(words[0], "tollbridge/")
		seen[pkg] = true
		allowed, known := mayImport[pkg]
		if !known && pkg != "cmd/tollbridge" {
			t.Errorf("package %s: say in mayImport what it may import", pkg)
		}
		for _, path := range words[1:] {
			if ours, isOurs := strings.CutPrefix(path, "tollbridge/"); isOurs {
				if pkg != "cmd/tollbridge" && !slices.Contains(allowed, ours) {
					t.Errorf("%s imports %s: that arrow does not point down", pkg, ours)
				}
				continue
			}
			if !strings.Contains(path, ".") {
				continue // the standard library
			}
			lib := slices.IndexFunc(libraries(), func(l string) bool { return path == l || strings.HasPrefix(path, l+"/") })
			if lib < 0 {
				t.Errorf("%s imports %s: say in home where that library lives", pkg, path)
				continue
			}
			if h := home[libraries()[lib]]; h[0] != "*" && !slices.Contains(h, pkg) {
				t.Errorf("%s imports %s, whose home is %s", pkg, path, strings.Join(h, ", "))
			}
		}
	}
	for pkg := range mayImport {
		if !seen[pkg] {
			t.Errorf("mayImport names %s, which does not exist", pkg)
		}
	}
}

// docs/architecture.md names each package, but for those that only tests and
// generators use.
func TestArchitectureNamesPackages(t *testing.T) {
	text, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "## Packages")
	list, _, _ = strings.Cut(list, "\n##")
	var names []string
	for line := range strings.Lines(list) {
		if words := strings.Fields(line); strings.HasPrefix(line, "    ") && len(words) > 1 {
			names = append(names, words[0])
		}
	}
	for pkg := range mayImport {
		if strings.HasSuffix(pkg, "test") || pkg == "internal/iegen" {
			continue
		}
		if !slices.ContainsFunc(names, func(n string) bool { return n == pkg || strings.HasSuffix(pkg, "/"+n) }) {
			t.Errorf("docs/architecture.md does not name %s", pkg)
		}
	}
	for _, n := range names {
		named := n == "cmd/tollbridge"
		for pkg := range mayImport {
			named = named || pkg == n || strings.HasSuffix(pkg, "/"+n)
		}
		if !named {
			t.Errorf("docs/architecture.md names %s, which does not exist", n)
		}
	}
}

func libraries() []string {
	var all []string
	for l := range home {
		all = append(all, l)
	}
	slices.Sort(all)
	return all
}
