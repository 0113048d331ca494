package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/internal/certtest"
)

func TestAnEmptyFileIsTheDefault(t *testing.T) {
	for _, content := range []string{"", "# nothing\n", "users:\n", "{}\n"} {
		got, err := config.Parse("x.yaml", []byte(content))
		if err != nil || !reflect.DeepEqual(got, config.Default()) {
			t.Errorf("%q: %+v (%v), want the default", content, got, err)
		}
	}
}

func TestProblemsNameFileLineKeyAndWhatWouldBeRight(t *testing.T) {
	for _, row := range []struct{ name, content, want string }{
		{"unknown key", "data: x\ndatum: y\n", `x.yaml:2: datum: is not a key: here are accounting, archive, collectingProcess, creditControl, data,`},
		{"unknown key below", "users:\n  file: [a]\n", `x.yaml:2: users.file: is not a key: here are correct, correctMemory, fallback, files,`},
		{"key given twice", "data: x\ndata: y\n", `x.yaml:2: can't be read as YAML: mapping key "data" already defined`},
		{"broken YAML", "users: [a\n", `x.yaml:1: can't be read as YAML: `},
		{"two documents", "data: x\n---\ndata: y\n", "several YAML documents"},
		{"list for a word", "data: [x]\n", "x.yaml:1: data: is sequence: a single value is expected"},
		{"word for a list", "users:\n  files: x\n", "x.yaml:2: users.files: is string: a list is expected, such as [\"x\"]"},
		{"word for keys", "users: x\n", "x.yaml:1: users: is string: the keys correct, correctMemory, fallback, files,"},
		{"no duration", "accounting:\n  linger: 5\n", `x.yaml:2: accounting.linger: "5" is not a duration: write it like 30s, 5m or 24h`},
		{"negative duration", "accounting:\n  linger: -5s\n", `x.yaml:2: accounting.linger: "-5s" is not a duration`},
		{"no number", "delivery:\n  window: many\n", `x.yaml:2: delivery.window: "many" is not a whole number`},
		{"no truth", "server:\n  plaintext: perhaps\n", `x.yaml:2: server.plaintext: "perhaps" is neither true nor false`},
		{"number out of range", "delivery:\n\n  window: 0\n", "x.yaml:3: delivery.window: 0 is out of range: 1 to 65536"},
		{"no address", "status:\n  listen: localhost\n", `x.yaml:2: status.listen: "localhost" is not an address and port: write it like 127.0.0.1:4739`},
		{"no level", "log:\n  level: loud\n", `x.yaml:2: log.level: "loud" is not one of debug, info, warn, error`},
		{"no mode", "accounting:\n  mode: aaa\n", `x.yaml:2: accounting.mode: "aaa" is not one of asm, aaa-client`},
		{"no port", "accounting:\n  classes:\n    - name: a\n      ports: [70000]\n", `x.yaml:4: accounting.classes[0].ports[0]: "70000" is not a port`},
		{"host bits", "accounting:\n  classes:\n    - name: a\n      prefixes: [10.0.0.1/8]\n", `x.yaml:4: accounting.classes[0].prefixes[0]: "10.0.0.1/8" has host bits set: write 10.0.0.0/8`},
		{"class without a name", "accounting:\n  classes:\n    - dscp: [46]\n", "x.yaml:3: accounting.classes[0].name: is missing"},
		{"two classes of one name", "accounting:\n  classes:\n    - name: a\n    - name: a\n", `x.yaml:4: accounting.classes[1].name: "a" is another class's name`},
		{"DSCP out of range", "accounting:\n  classes:\n    - name: a\n      dscp: [64]\n", "accounting.classes[0].dscp[0]: 64 is out of range: 0 to 63"},
		{"unreadable users file", "users:\n  files: [nowhere.csv]\n", "x.yaml:2: users.files[0]: can't be read: open nowhere.csv"},
		{"open to the world without exporters", "collectingProcess:\n  udpCollectors: ['0.0.0.0:4739']\n", "x.yaml:2: collectingProcess.udpCollectors[0]: 0.0.0.0:4739 can be reached from other hosts"},
		{"an address of two exporters", "collectingProcess:\n  exporters:\n    - {name: a, prefixes: [192.0.2.1]}\n    - {name: b, prefixes: [192.0.2.1/32]}\n", `x.yaml:4: collectingProcess.exporters[1].prefixes[0]: 192.0.2.1/32 belongs to exporter "a"`},
		{"TLS without a certificate", "collectingProcess:\n  tlsCollectors: ['127.0.0.1:4740']\n", "x.yaml:1: collectingProcess.tls.certificate: is missing: name the PEM file of what exporters know us by, as tlsCollectors and dtlsCollectors need it"},
		{"half of tls", "collectingProcess:\n  tls:\n    ca: /dev/null\n", "x.yaml:2: collectingProcess.tls.key: is missing: name the PEM file of the certificate's private key, as the other keys of tls are given"},
		{"unreadable key", "collectingProcess:\n  tls:\n    key: nowhere.pem\n", "x.yaml:3: collectingProcess.tls.key: can't be read: open nowhere.pem"},
		{"TLS open to the world without exporters", "collectingProcess:\n  dtlsCollectors: ['0.0.0.0:4740']\n", "x.yaml:2: collectingProcess.dtlsCollectors[0]: 0.0.0.0:4740 can be reached from other hosts"},
		{"exporter by certificate on plain transports only", "collectingProcess:\n  exporters:\n    - {name: a, certificateNames: [a.example]}\n", "x.yaml:3: collectingProcess.exporters[0].certificateNames: is of no use without tlsCollectors and dtlsCollectors"},
		{"no element", "users:\n  inBand: ['user name']\n", `x.yaml:2: users.inBand[0]: "user name" is no Information Element`},
		{"RADIUS client without a secret", "users:\n  radius:\n    clients:\n      - {name: a, prefixes: [192.0.2.1]}\n", "x.yaml:4: users.radius.clients[0].secret: is missing: name a file"},
		{"RADIUS secret in two places", "users: {radius: {clients: [{name: a, prefixes: [192.0.2.1], secret: {file: /dev/null, env: A}}]}}\n", "users.radius.clients[0].secret.env: A is one place of the secret, file is another"},
		{"empty RADIUS secret", "users: {radius: {clients: [{name: a, prefixes: [192.0.2.1], secret: {file: /dev/null}}]}}\n", "users.radius.clients[0].secret.file: can't be used: /dev/null is empty"},
		{"RADIUS secret that is not set", "users: {radius: {clients: [{name: a, prefixes: [192.0.2.1], secret: {env: TOLLBRIDGE_TEST_UNSET}}]}}\n", "users.radius.clients[0].secret.env: can't be used: environment variable TOLLBRIDGE_TEST_UNSET is not set"},
		{"RADIUS client that nobody is", "users: {radius: {clients: [{name: a, secret: {env: PATH}}]}}\n", "users.radius.clients[0].prefixes: is missing"},
		{"RADIUS client of another's name", "users: {radius: {clients: [{name: a, prefixes: [192.0.2.1], secret: {env: PATH}}, {name: a, prefixes: [192.0.2.1], secret: {env: PATH}}]}}\n", `users.radius.clients[1].name: "a" is another client's name`},
		{"a RADIUS client's name that could be a NAS's", "users: {radius: {clients: [{name: a/b, prefixes: [192.0.2.1], secret: {env: PATH}}]}}\n", `users.radius.clients[0].name: "a/b" has a / or more than 63 octets`},
		{"RADIUS clients without a listener", "users: {radius: {listen: [], clients: [{name: a, prefixes: [192.0.2.1], secret: {env: PATH}}]}}\n", "users.radius.listen: is empty: clients would have nowhere to send to"},
		{"RADIUS sessions that end too soon", "users: {radius: {idle: 1s}}\n", "users.radius.idle: 1s is too short: at least 1m"},
		{"RADIUS in mode aaa-client", "accounting: {mode: aaa-client}\nusers: {radius: {clients: [{name: a, prefixes: [192.0.2.1], secret: {env: PATH}}]}}\n", "users.radius.clients: is of no use with accounting.mode aaa-client"},
		{"database without a name", "users:\n  sql:\n    - {connect: host=/run, query: SELECT 1}\n", "x.yaml:3: users.sql[0].name: is missing"},
		{"database nowhere", "users:\n  sql:\n    - {name: a, query: SELECT 1}\n", "x.yaml:3: users.sql[0].connect: is missing"},
		{"database without a query", "users:\n  sql:\n    - {name: a, connect: host=/run}\n", "x.yaml:3: users.sql[0].query: is missing"},
		{"database asked too often", "users:\n  sql:\n    - {name: a, connect: host=/run, query: SELECT 1, interval: 1ms}\n", "x.yaml:3: users.sql[0].interval: 1ms is too short"},
		{"two databases of one name", "users: {sql: [{name: a, connect: host=/run, query: SELECT 1}, {name: a, connect: host=/run, query: SELECT 1}]}\n", `users.sql[1].name: "a" is another database's name`},
		{"lease file without a name", "users:\n  leases:\n    - {user: [duid]}\n", "x.yaml:3: users.leases[0].file: is missing"},
		{"a lease file twice", "users: {leases: [{file: a}, {file: a}]}\n", "users.leases[1].file: a is there twice"},
		{"leases in mode aaa-client", "accounting: {mode: aaa-client}\nusers: {leases: [{file: a}]}\n", "users.leases: is of no use with accounting.mode aaa-client"},
		{"unreadable password", "users: {sql: [{name: a, connect: host=/run, query: SELECT 1, password: {file: nowhere}}]}\n", "users.sql[0].password.file: can't be used: open nowhere"},
		{"negative sampling", "collectingProcess:\n  exporters:\n    - name: a\n      prefixes: [192.0.2.1]\n      sampling: -1\n", "x.yaml:5: collectingProcess.exporters[0].sampling: -1 is out of range"},
		{"plain listener that no exporter may use", "collectingProcess:\n  exporters:\n    - {name: a, certificateNames: [a.example]}\n", "collectingProcess.udpCollectors[0]: nobody could send to it: no exporter has prefixes"},
		{"exporter by address on TLS only", "collectingProcess:\n  udpCollectors: []\n  tcpCollectors: []\n  tlsCollectors: ['127.0.0.1:4740']\n  exporters:\n    - {name: a, prefixes: [192.0.2.1]}\n", "x.yaml:6: collectingProcess.exporters[0].prefixes: is of no use without udpCollectors, tcpCollectors and sctpCollectors"},
		{"a certificate name of two exporters", "collectingProcess:\n  exporters:\n    - {name: a, certificateNames: [e.example]}\n    - {name: b, certificateNames: [E.example.]}\n", `x.yaml:4: collectingProcess.exporters[1].certificateNames[0]: E.example. belongs to exporter "a"`},
		{"no certificate name", "collectingProcess:\n  exporters:\n    - {name: a, certificateNames: ['edge 1']}\n", `collectingProcess.exporters[0].certificateNames[0]: "edge 1" is not a name of a certificate`},
		{"exporter known by nothing", "collectingProcess:\n  exporters:\n    - {name: a}\n", "x.yaml:3: collectingProcess.exporters[0].prefixes: is missing, and so is certificateNames"},
		{"peer in the clear", "delivery:\n  peers:\n    - address: 192.0.2.1:3868\n", "x.yaml:3: delivery.peers[0].address: 192.0.2.1:3868 is another host"},
		{"peer both ways", "delivery:\n  peers:\n    - {address: '192.0.2.1:5868', host: a.example, tls: true, plaintext: true}\n", "delivery.peers[0].plaintext: contradicts tls"},
		{"TLS to nobody in particular", "delivery:\n  peers:\n    - {address: '192.0.2.1:5868', tls: true}\n", "x.yaml:3: delivery.peers[0].host: is missing: the certificate"},
		{"peer over TLS without files", "delivery:\n  peers:\n    - {address: '192.0.2.1:5868', host: a.example, tls: true}\n", "delivery.tls.ca: is missing: name the PEM file of who may vouch for peers, as a peer has tls: true"},
		{"two peers of one host", "delivery:\n  peers:\n    - {address: '127.0.0.1:1', host: a.example}\n    - {address: '127.0.0.1:2', host: A.example}\n", "x.yaml:4: delivery.peers[1].host: A.example is another peer's host"},
		{"a realm's peer that is none", "delivery:\n  peers:\n    - {address: '127.0.0.1:1', host: a.example}\n  realms:\n    - {realms: [x.example], peers: [b.example]}\n", `x.yaml:5: delivery.realms[0].peers[0]: "b.example" is the host of none`},
		{"a realm twice", "delivery:\n  peers:\n    - {address: '127.0.0.1:1'}\n  realms:\n    - {realms: [x.example]}\n    - {realms: [X.example]}\n", "x.yaml:6: delivery.realms[1].realms[0]: X.example is in another entry too"},
		{"a peer's profile that is none", "delivery:\n  peers:\n    - {address: '127.0.0.1:1', host: a.example}\n    - {address: '127.0.0.1:2', host: b.example, profile: r}\n  profiles: [{name: p}, {name: q}]\n", `x.yaml:4: delivery.peers[1].profile: "r" is the name of none of delivery.profiles`},
		{"a realm whose peers differ", "delivery:\n  peers:\n    - {address: '127.0.0.1:1', host: a.example, profile: p}\n    - {address: '127.0.0.1:2', host: b.example, profile: q}\n  profiles: [{name: p}, {name: q}]\n  realms:\n    - {realms: [x.example, y.example]}\n", `x.yaml:4: delivery.peers[1].profile: is "q", but that of delivery.peers[0] is "p", and what one of them got of delivery.realms[0] (x.example, y.example) goes to the other unchanged when that takes over: give both the same, or name a profile there`},
		{"a realm one of whose peers names no profile", "delivery:\n  peers:\n    - {address: '127.0.0.1:1', host: a.example, profile: p}\n    - {address: '127.0.0.1:2', host: b.example}\n  profiles: [{name: p}, {name: q}]\n  realms:\n    - {realms: [x.example], peers: [a.example, b.example]}\n", `x.yaml:4: delivery.peers[1].profile: is base accounting (it names none), but that of delivery.peers[0] is "p", and what one of them got of delivery.realms[0] (x.example)`},
		{"peers of unnamed realms that differ", "delivery:\n  peers:\n    - {address: '127.0.0.1:1', host: a.example}\n    - {address: '127.0.0.1:2', host: b.example, profile: q}\n  profiles: [{name: p}, {name: q}]\n  profile: p\n", `x.yaml:4: delivery.peers[1].profile: is "q", but that of delivery.peers[0] is "p" (of delivery.profile), and what one of them got of the realms that delivery.realms does not have`},
		{"peers that are all partners, for unnamed realms", "delivery:\n  peers:\n    - {address: '127.0.0.1:1', host: a.example, profile: p}\n    - {address: '127.0.0.1:2', host: b.example, profile: q}\n  profiles: [{name: p}, {name: q}]\n  realms: [{realms: [x.example], peers: [a.example]}, {realms: [y.example], peers: [b.example]}]\n", `x.yaml:4: delivery.peers[1].profile: is "q", but that of delivery.peers[0] is "p", and what one of them got of the realms that delivery.realms does not have goes to the other unchanged when that takes over: give both the same, or leave only those out`},
		{"a success that is none", "delivery:\n  resultCodes:\n    - {code: 2001, fate: wait}\n", "x.yaml:3: delivery.resultCodes[0].fate: 2001 means success"},
		{"no fate", "delivery:\n  resultCodes:\n    - {code: 5001, fate: drop}\n", `x.yaml:3: delivery.resultCodes[0].fate: "drop" is not one of settle, wait, reroute, quarantine`},
		{"one node, two connections to a peer", "delivery:\n  peers: [{address: '127.0.0.1:3868', host: dra.isp.example}]\ncreditControl:\n  peers: [{address: '127.0.0.1:3869', host: DRA.isp.example}]\n", "x.yaml:4: creditControl.peers[0]: is one of delivery.peers too"},
		{"one node of two spellings", "identity:\n  originHost: bridge.isp.example\nserver:\n  originHost: Bridge.ISP.example\n", "x.yaml:4: server.originHost: \"Bridge.ISP.example\" is identity.originHost too"},
		{"one node, whom anybody may ask", "identity:\n  originHost: bridge.isp.example\ndelivery:\n  peers:\n    - {address: '127.0.0.1:3868', host: aaa.home.example}\nserver:\n  originHost: bridge.isp.example\n", "x.yaml:6: server.clients: is missing, with relays and accessServers"},
		{"one node, a peer of no name", "identity:\n  originHost: bridge.isp.example\ndelivery:\n  peers:\n    - {address: '127.0.0.1:3868'}\nserver:\n  originHost: bridge.isp.example\n  clients: [aaa.home.example]\n", "x.yaml:5: delivery.peers[0].host: is missing: server.originHost is identity.originHost"},
		{"a credit-control client of the bridge's name", "identity:\n  originHost: bridge.isp.example\ndelivery:\n  peers: [{address: '127.0.0.1:3868'}]\ncreditControl:\n  originHost: Bridge.ISP.example\n  peers: [{address: '127.0.0.1:3868'}]\n", "x.yaml:7: creditControl.peers[0]: is one of delivery.peers too"},
		{"a credit-control client of the server's name", "server:\n  originHost: aaa.isp.example\ncreditControl:\n  originHost: AAA.isp.example\n  peers: [{address: '127.0.0.1:3869'}]\n", "x.yaml:4: creditControl.originHost: \"AAA.isp.example\" is server.originHost too"},
		{"a filter without a change", "creditControl:\n  peers: [{address: '127.0.0.1:3869'}]\n  filterId: portal\n", "x.yaml:3: creditControl.filterId: and atZero: change go together"},
		{"a change that nobody could make", "creditControl:\n  peers: [{address: '127.0.0.1:3869'}]\n  atZero: change\n  filterId: portal\n", "x.yaml:3: creditControl.atZero: is change, but none of users.radius.clients"},
		{"one node that hears nobody over TLS", "identity:\n  originHost: a.isp.example\ndelivery:\n  peers: [{address: '127.0.0.1:3868', host: b.isp.example, tls: true}]\nserver:\n  originHost: a.isp.example\n  clients: [b.isp.example]\n", "server.tls: is missing: server.originHost is identity.originHost"},
		{"sessions that nobody could end, without credit control", "creditControl:\n  atZero: disconnect\n", "x.yaml:2: creditControl.atZero: is disconnect, but none of users.radius.clients"},
		{"TLS over SCTP", "delivery:\n  peers: [{address: '127.0.0.1:3868', host: aaa.isp.example, sctp: true, tls: true}]\n", "x.yaml:2: delivery.peers[0].tls: is over TCP alone"},
		{"server on SCTP open to the world", "server:\n  sctpListen: ['0.0.0.0:3868']\n", "x.yaml:2: server.sctpListen[0]: 0.0.0.0:3868 can be reached from other hosts"},
		{"bounds of intervals", "accounting:\n  minInterimInterval: 1h\n  maxInterimInterval: 1m\n", "x.yaml:3: accounting.maxInterimInterval: 1m0s is too short: at least 1h0m0s"},
		{"part of a second in answers", "server:\n  interimInterval: 10ms\n", "x.yaml:2: server.interimInterval: 10ms is not of whole seconds"},
		{"nowhere to deliver to", "server:\n  listen: []\n", "delivery.peers: is empty and so is server.listen"},
		{"users in mode aaa-client", "accounting: {mode: aaa-client}\nusers: {files: [/dev/null]}\n", "x.yaml:2: users.files: is of no use with accounting.mode aaa-client"},
		{"no DiameterIdentity", "identity:\n  originHost: bridge\n", `x.yaml:2: identity.originHost: "bridge" is not a DiameterIdentity`},
		{"no linger", "accounting:\n  linger: 0s\n", "x.yaml:2: accounting.linger: 0s is too short: at least 1s"},
		{"part of a second", "accounting:\n  interimInterval: 1500ms\n", "x.yaml:2: accounting.interimInterval: 1.5s is not of whole seconds"},
		{"a record too small", "accounting:\n  maxRecord: 2047\n", "x.yaml:2: accounting.maxRecord: 2047 is out of range: 2048 to"},
		{"an address that YAML reads as a mapping", "collectingProcess: {udpCollectors: [127.0.0.1:1]}\n", "is mapping: a single value is expected; quote it if it holds a colon"},
		{"server on TLS without a certificate", "server:\n  tlsListen: ['127.0.0.1:5868']\n", "x.yaml:1: server.tls.certificate: is missing: name the PEM file of what clients and relays know us by, as the addresses of tlsListen need it"},
		{"server on TLS open to the world", "server:\n  tlsListen: ['0.0.0.0:5868']\n", "x.yaml:2: server.tlsListen[0]: 0.0.0.0:5868 can be reached from other hosts, but server.clients, relays and accessServers name none"},
		{"relay without realms", "server:\n  relays:\n    - {host: r.example}\n", "x.yaml:3: server.relays[0].realms: is missing"},
		{"relay that is a client", "server:\n  clients: [r.example]\n  relays:\n    - {host: r.example, realms: [p.example]}\n", `server.relays[0].host: "r.example" is one of server.clients too`},
		{"forwarded to itself", "server:\n  forward: [far.example]\n", "x.yaml:2: server.forward: has nowhere to go"},
		{"flows in a circle", "accounting: {mode: aaa-client}\nserver:\n  flows: pipeline\n", "x.yaml:3: server.flows: would go in a circle"},
		{"no way of flows", "server:\n  flows: keep\n", `x.yaml:2: server.flows: "keep" is not one of store, pipeline`},
		{"partner without a directory", "delivery:\n  files:\n    - {realm: home.example, every: 15m}\n", "x.yaml:3: delivery.files[0].dir: is missing"},
		{"file too often", "delivery:\n  files:\n    - {realm: home.example, dir: /tmp, every: 1ms}\n", "x.yaml:3: delivery.files[0].every: 1ms is too short"},
		{"watchdog below 6 s (RFC 3539, 3.4.1)", "delivery:\n  watchdog: 5s\n", "x.yaml:2: delivery.watchdog: 5s is too short: at least 6s"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := config.Parse("x.yaml", []byte(row.content))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error:\n%v\nwant:\n%s", err, row.want)
			}
		})
	}
}

// The records of a realm are written by the profile that the realm names, else
// by the one that its peers name, else by delivery.profile. Realms of no entry
// go to the peers of no entry, and where there are none not to those that have
// a profile of their own.
func TestProfileOfRealm(t *testing.T) {
	const peers = "{address: '127.0.0.1:1', host: a.example}, {address: '127.0.0.1:2', host: b.example, profile: p}, {address: '127.0.0.1:3', host: c.example, profile: q}"
	for _, row := range []struct {
		name, peers, delivery string
		realm, others         string // profiles
		othersPeers           []int
	}{
		{"nobody names one", "{address: '127.0.0.1:1', host: a.example}", "realms: [{realms: [x.example]}]", "", "", []int{0}},
		{"delivery names it", "{address: '127.0.0.1:1', host: a.example}", "profile: p, realms: [{realms: [x.example]}]", "p", "p", []int{0}},
		{"there are no peers", "", "profile: p", "p", "p", nil},
		{"the realm's peer names it", peers, "profile: r, realms: [{realms: [x.example], peers: [B.example]}, {realms: [y.example], peers: [c.example]}]", "p", "r", []int{0}},
		{"the realm names it, whatever its peers do", peers, "realms: [{realms: [x.example], profile: r}]", "r", "", []int{0}},
		{"a peer of no entry names it", peers, "realms: [{realms: [x.example], peers: [a.example]}, {realms: [y.example], peers: [b.example]}]", "", "q", []int{2}},
		{"no peer is left: those of delivery.profile", peers, "profile: q, realms: [{realms: [x.example], peers: [b.example]}, {realms: [y.example], profile: r}]", "p", "q", []int{0, 2}},
		{"no peer is left: all who agree", "{address: '127.0.0.1:1', host: a.example, profile: p}, {address: '127.0.0.1:2', host: b.example, profile: p}", "realms: [{realms: [x.example]}]", "p", "p", []int{0, 1}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, err := config.Parse("x.yaml", []byte("delivery: {profiles: [{name: p}, {name: q}, {name: r}], peers: ["+row.peers+"], "+row.delivery+"}\n"))
			if err != nil {
				t.Fatal(err)
			}
			d, realm := &c.Delivery, config.Realm{Realms: []string{"x.example"}}
			if len(d.Realms) > 0 {
				realm = d.Realms[0]
			}
			if got := d.ProfileOf(realm); got != row.realm {
				t.Errorf("the realm's records are written by %q, want %q", got, row.realm)
			}
			if got, peers := d.DefaultProfile(), d.DefaultPeers(); got != row.others || !slices.Equal(peers, row.othersPeers) {
				t.Errorf("other realms' records are written by %q for %v, want %q for %v", got, peers, row.others, row.othersPeers)
			}
		})
	}
}

// Files for TLS that can be read may still be of no use.
func TestTLSFiles(t *testing.T) {
	ca := certtest.NewAuthority(t)
	ours, other := ca.Write(ca.Issue("collector.isp.example")), ca.Write(ca.Issue("collector.isp.example"))
	for _, row := range []struct {
		name string
		tls  certtest.Files
		want string // "" accepts
	}{
		{"whole", ours, ""},
		{"key of another certificate", certtest.Files{Certificate: ours.Certificate, Key: other.Key, CA: ours.CA}, "collectingProcess.tls.certificate: can't be used: tls: private key does not match public key"},
		{"no certificate in the file", certtest.Files{Certificate: ours.Key, Key: ours.Key, CA: ours.CA}, "collectingProcess.tls.certificate: can't be used"},
		{"no authority in the file", certtest.Files{Certificate: ours.Certificate, Key: ours.Key, CA: ours.Key}, "collectingProcess.tls.ca: can't be used"},
	} {
		t.Run(row.name, func(t *testing.T) {
			content := fmt.Sprintf("collectingProcess:\n  tlsCollectors: ['0.0.0.0:4740']\n  udpCollectors: []\n  tcpCollectors: []\n  exporters:\n    - {name: a, certificateNames: [a.example]}\n  tls: {certificate: %q, key: %q, ca: %q}\n",
				row.tls.Certificate, row.tls.Key, row.tls.CA)
			_, err := config.Parse("x.yaml", []byte(content))
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("error:\n%v\nwant:\n%s", err, row.want)
			}
		})
	}
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	_, err := config.Parse("x.yaml", []byte("datum: y\nlog:\n  level: loud\ndelivery:\n  window: x\n"))
	if got := strings.Count(err.Error(), "x.yaml:"); got != 3 {
		t.Errorf("%d problems, want 3:\n%v", got, err)
	}
}

func TestUnreadableFile(t *testing.T) {
	if _, err := config.Load(filepath.Join(t.TempDir(), "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("error %v, want one that names the file", err)
	}
}

// The example shows every key with its default, and the reference explains
// every key.
func TestEveryKeyIsDocumented(t *testing.T) {
	root := filepath.Join("..", "..", "..", "..")
	example, err := os.ReadFile(filepath.Join(root, "tollbridge.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	reference, err := os.ReadFile(filepath.Join(root, "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys(reflect.TypeFor[config.Config](), "") {
		name := key[strings.LastIndexAny(key, ".]")+1:]
		if !slices.ContainsFunc(strings.Split(string(example), "\n"), func(line string) bool {
			return strings.HasPrefix(strings.TrimLeft(line, " #-"), name+":")
		}) {
			t.Errorf("tollbridge.example.yaml lacks %s", key)
		}
		if !strings.Contains(string(reference), "`"+key+"`") {
			t.Errorf("docs/configuration.md lacks %s", key)
		}
	}
}

func keys(t reflect.Type, prefix string) []string {
	switch {
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && t.Elem().NumField() > 0 && t.Elem().Field(0).Tag.Get("yaml") != "":
		return keys(t.Elem(), prefix+"[]")
	case t.Kind() != reflect.Struct || t.NumField() == 0 || t.Field(0).Tag.Get("yaml") == "":
		return []string{prefix}
	}
	var all []string
	for i := range t.NumField() {
		all = append(all, keys(t.Field(i).Type, strings.TrimPrefix(prefix+"."+t.Field(i).Tag.Get("yaml"), "."))...)
	}
	return all
}

func TestTheExampleIsTheDefault(t *testing.T) {
	t.Chdir(filepath.Join("..", "..", "..", ".."))
	got, err := config.Load("tollbridge.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Compared as text, for which an empty list is like none.
	if got, want := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", config.Default()); got != want {
		t.Errorf("the example is\n%s\nthe default\n%s", got, want)
	}
}

func TestTheExamplesAreValid(t *testing.T) {
	t.Chdir(filepath.Join("..", "..", "..", ".."))
	files, err := filepath.Glob("examples/a*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples (%v)", err)
	}
	for _, f := range files {
		if _, err := config.Load(f); err != nil {
			t.Error(err)
		}
	}
}
