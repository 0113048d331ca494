// Package config is the configuration file of the tollbridge command: its
// keys, their defaults, and what makes a file wrong. Names follow RFC 5470,
// RFC 6728 and RFC 6733.
package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"time"
)

// A Config is a whole configuration. Default gives what an absent key means.
type Config struct {
	Data              string            `yaml:"data"`
	Identity          Identity          `yaml:"identity"`
	CollectingProcess CollectingProcess `yaml:"collectingProcess"`
	Users             Users             `yaml:"users"`
	Accounting        Accounting        `yaml:"accounting"`
	Delivery          Delivery          `yaml:"delivery"`
	CreditControl     CreditControl     `yaml:"creditControl"`
	Server            Server            `yaml:"server"`
	Forward           Forward           `yaml:"forward"`
	Spool             Spool             `yaml:"spool"`
	Archive           Archive           `yaml:"archive"`
	Status            Status            `yaml:"status"`
	Log               Log               `yaml:"log"`
}

// Identity is who we are to Diameter peers (RFC 6733, Section 6.3).
type Identity struct {
	OriginHost  string `yaml:"originHost"`
	OriginRealm string `yaml:"originRealm"`
}

// CollectingProcess is where IPFIX comes in (RFC 6728, Section 4.5).
type CollectingProcess struct {
	UDPCollectors  []netip.AddrPort `yaml:"udpCollectors"`
	TCPCollectors  []netip.AddrPort `yaml:"tcpCollectors"`
	TLSCollectors  []netip.AddrPort `yaml:"tlsCollectors"`
	DTLSCollectors []netip.AddrPort `yaml:"dtlsCollectors"`
	SCTPCollectors []netip.AddrPort `yaml:"sctpCollectors"`
	TLS            TLS              `yaml:"tls"`
	LookUpNames    bool             `yaml:"lookUpNames"` // of exporters' certificates, which must have their address
	Exporters      []Exporter       `yaml:"exporters"`
	Acknowledge    bool             `yaml:"acknowledge"`

	TemplateLifetime time.Duration `yaml:"templateLifetime"` // over UDP and DTLS; 0 is for ever
	IdleTimeout      time.Duration `yaml:"idleTimeout"`      // of UDP sessions and DTLS associations
	MaxSessions      int           `yaml:"maxSessions"`      // of these, of an exporter
	MaxConnections   int           `yaml:"maxConnections"`   // of an exporter, over TCP, TLS and SCTP
	MaxHandshakes    int           `yaml:"maxHandshakes"`    // of TLS and DTLS, under way
}

// TLS is who we are over TLS and DTLS, and whose word we take for who others
// are (RFC 7011, Section 11.3). Its files are in PEM.
type TLS struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	CA          string `yaml:"ca"`
}

// Load reads the files.
func (t TLS) Load() (tls.Certificate, *x509.CertPool, error) {
	certificate, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	ca, err := os.ReadFile(t.CA)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return tls.Certificate{}, nil, fmt.Errorf("%s has no certificate in PEM", t.CA)
	}
	return certificate, pool, nil
}

// An Exporter is one that may send to us. With none named, every address is
// an exporter of its own, by the name of its address.
type Exporter struct {
	Name             string   `yaml:"name"`
	Prefixes         []Prefix `yaml:"prefixes"`         // over UDP, TCP and SCTP
	CertificateNames []string `yaml:"certificateNames"` // over TLS and DTLS
	Forwards         bool     `yaml:"forwards"`         // it is a collector that passes on what others exported
	Sampling         int      `yaml:"sampling"`         // 0 leaves it to what the exporter says
	Aliases          []string `yaml:"aliases"`          // names it had before, the oldest first
	Account          string   `yaml:"account"`          // all, ingress, egress or none; "" is all
	Interfaces       []int    `yaml:"interfaces"`       // that flows are accounted at; none for all
	VRF              VRF      `yaml:"vrf"`
}

// Users says whose addresses are whose.
type Users struct {
	Files    []string      `yaml:"files"`
	Reload   time.Duration `yaml:"reload"`
	Fallback string        `yaml:"fallback"`
	Wait     time.Duration `yaml:"wait"`

	Networks  []Prefix      `yaml:"networks"`
	Split     string        `yaml:"split"`
	Tolerance time.Duration `yaml:"tolerance"`

	Correct       time.Duration `yaml:"correct"`
	CorrectMemory Octets        `yaml:"correctMemory"`

	InBand     []string      `yaml:"inBand"`
	InBandIdle time.Duration `yaml:"inBandIdle"`

	RADIUS RADIUS   `yaml:"radius"`
	SQL    []SQL    `yaml:"sql"`
	Leases []Leases `yaml:"leases"`
}

// Accounting turns flow records into accounting records.
type Accounting struct {
	Mode            Mode          `yaml:"mode"`
	InterimInterval time.Duration `yaml:"interimInterval"`
	MinInterim      time.Duration `yaml:"minInterimInterval"`
	MaxInterim      time.Duration `yaml:"maxInterimInterval"`
	Linger          time.Duration `yaml:"linger"`
	MaxSessionAge   time.Duration `yaml:"maxSessionAge"`
	DedupWindow     time.Duration `yaml:"dedupWindow"`
	MaxIdentities   int           `yaml:"maxIdentities"`
	CompareJournal  Octets        `yaml:"compareJournal"`
	MaxTotals       int           `yaml:"maxTotals"`
	ClockTolerance  time.Duration `yaml:"clockTolerance"`
	MaxRecord       int           `yaml:"maxRecord"`
	Layer           string        `yaml:"layer"`
	TimeZone        string        `yaml:"timeZone"`
	BillingDay      int           `yaml:"billingDay"`
	Realms          []UserRealm   `yaml:"realms"`
	Classes         []Class       `yaml:"classes"`
}

// A UserRealm is what is particular to the records of one realm's users.
type UserRealm struct {
	Realm        string `yaml:"realm"`
	TimeZone     string `yaml:"timeZone"`
	OperatorName string `yaml:"operatorName"`
	Agreement    string `yaml:"agreement"`
}

// A VRF says which element of an exporter's records tells address spaces apart.
type VRF struct {
	Element string    `yaml:"element"`
	Names   []VRFName `yaml:"names"`
}

// A VRFName is what users files call the address space of one value.
type VRFName struct {
	Value string `yaml:"value"`
	Name  string `yaml:"name"`
}

// A Class is a kind of traffic that is accounted by itself. A flow belongs to
// the first class whose every given condition it meets.
type Class struct {
	Name      string   `yaml:"name"`
	Prefixes  []Prefix `yaml:"prefixes"`
	DSCP      []int    `yaml:"dscp"`
	Protocols []int    `yaml:"protocols"`
	Ports     []Ports  `yaml:"ports"`
	Direction string   `yaml:"direction"`
	Multicast bool     `yaml:"multicast"`
	Internal  bool     `yaml:"internal"`
	ZeroRated bool     `yaml:"zeroRated"`
}

// Server is the Diameter entrance with the accounting application behind it.
type Server struct {
	Listen     []netip.AddrPort `yaml:"listen"`
	SCTPListen []netip.AddrPort `yaml:"sctpListen"`
	TLSListen  []netip.AddrPort `yaml:"tlsListen"`
	TLS        TLS              `yaml:"tls"`
	OriginHost string           `yaml:"originHost"`
	Clients    []string         `yaml:"clients"`
	Relays     []Relay          `yaml:"relays"`

	AccessServers []string `yaml:"accessServers"`

	Realms    []string `yaml:"realms"`
	Forward   []string `yaml:"forward"`
	Flows     Flows    `yaml:"flows"`
	Plaintext bool     `yaml:"plaintext"`

	InterimInterval time.Duration `yaml:"interimInterval"` // 0 asks for none
}

// A Relay hands over the requests of other nodes: an agent, or a partner's
// server.
type Relay struct {
	Host   string   `yaml:"host"`
	Realms []string `yaml:"realms"`
}

// Forward makes the daemon pass on what it collects to one that accounts.
type Forward struct {
	To           []string      `yaml:"to"` // host and port, the preferred first; none accounts here
	Acknowledge  Acknowledge   `yaml:"acknowledge"`
	MaxSpool     Octets        `yaml:"maxSpool"`
	Plaintext    bool          `yaml:"plaintext"`
	Reconnect    time.Duration `yaml:"reconnect"`
	MaxReconnect time.Duration `yaml:"maxReconnect"` // 0: ten times reconnect
}

// Spool is what is kept on disk, and when it is written.
type Spool struct {
	Checkpoint  time.Duration `yaml:"checkpoint"`
	Lease       time.Duration `yaml:"lease"` // 0: no standby
	KeepSettled time.Duration `yaml:"keepSettled"`
	Audit       time.Duration `yaml:"audit"`
	MaxJournal  Octets        `yaml:"maxJournal"`
	MaxOutbox   Octets        `yaml:"maxOutbox"`
	KeepJournal time.Duration `yaml:"keepJournal"`
	KeepOctets  Octets        `yaml:"keepOctets"`
	MinFree     Octets        `yaml:"minFree"`
}

// Archive is where settled records and messages go.
type Archive struct {
	Dir       string        `yaml:"dir"` // "" for none
	Interval  time.Duration `yaml:"interval"`
	Keep      time.Duration `yaml:"keep"`
	MaxOctets Octets        `yaml:"maxOctets"`
	HoldAt    Octets        `yaml:"holdAt"`
}

// Status is the HTTP address of /livez, /readyz and /metrics.
type Status struct {
	Listen netip.AddrPort `yaml:"listen"`
}

// Log says what is logged to standard error, and how.
type Log struct {
	Level  Level  `yaml:"level"`
	Format Format `yaml:"format"`
}

// Default returns the configuration of an empty file: collect on loopback,
// deliver to the embedded accounting application.
func Default() Config {
	return Config{
		Data:     "./tollbridge-data",
		Identity: Identity{OriginHost: "bridge.tollbridge.example", OriginRealm: "tollbridge.example"},
		CollectingProcess: CollectingProcess{
			UDPCollectors: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:4739")},
			TCPCollectors: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:4739")},
			Acknowledge:   true,

			IdleTimeout: 30 * time.Minute, MaxSessions: 256, MaxConnections: 16, MaxHandshakes: 64,
		},
		Users: Users{
			Reload: 5 * time.Second, Wait: time.Hour, InBandIdle: time.Hour,
			Split: "end", Tolerance: 2 * time.Second, CorrectMemory: 64 << 20,
			RADIUS: RADIUS{
				Listen:         []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1813")},
				ClockTolerance: 5 * time.Minute, MaxDelay: 24 * time.Hour,
			},
		},
		Accounting: Accounting{
			Mode:            "asm",
			InterimInterval: 5 * time.Minute,
			MinInterim:      time.Minute,
			MaxInterim:      24 * time.Hour,
			Linger:          6 * time.Minute,
			MaxSessionAge:   24 * time.Hour,
			DedupWindow:     time.Hour,
			MaxIdentities:   50_000_000,
			CompareJournal:  4 << 30,
			MaxTotals:       262_144,
			ClockTolerance:  5 * time.Minute,
			MaxRecord:       16384,
			Layer:           "network",
		},
		Delivery: Delivery{
			DestinationRealm: "tollbridge.example",
			Window:           256,
			Timeout:          10 * time.Second,
			Reconnect:        30 * time.Second,
			Watchdog:         30 * time.Second,
			Drain:            10 * time.Second,
			VendorID:         32473,
		},
		CreditControl: CreditControl{DestinationRealm: "tollbridge.example", ServiceContext: "32251@3gpp.org", RatingGroup: 1, Threshold: 80, AtZero: "report"},
		Server: Server{
			Listen:     []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:3868")},
			OriginHost: "aaa.tollbridge.example",
			Flows:      FlowsStore,
		},
		Forward: Forward{Acknowledge: "owner", MaxSpool: 4 << 30, Reconnect: 5 * time.Second},
		Spool: Spool{
			Checkpoint: 2 * time.Second, KeepSettled: 24 * time.Hour, Audit: time.Minute,
			MaxJournal: 50 << 30, MaxOutbox: 50 << 30, MinFree: 64 << 20,
			KeepJournal: time.Hour, KeepOctets: 1 << 30,
		},
		Archive: Archive{Interval: 5 * time.Minute, Keep: 90 * 24 * time.Hour},
		Status:  Status{Listen: netip.MustParseAddrPort("127.0.0.1:9739")},
		Log:     Log{Level: "info", Format: "text"},
	}
}

// Listens reports whether there is a Diameter entrance.
func (s *Server) Listens() bool { return len(s.Listen)+len(s.SCTPListen)+len(s.TLSListen) > 0 }

// Embedded reports whether records are delivered to the accounting
// application of this very process.
func (c *Config) Embedded() bool { return len(c.Delivery.Peers) == 0 }
