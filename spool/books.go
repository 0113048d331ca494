package spool

import (
	"fmt"
	"time"

	"tollbridge/asm/acct"
)

// Books are the ledger with all that must balance against it, as of one
// moment.
type Books struct {
	Balanced bool     `json:"balanced"`
	Problems []string `json:"problems,omitempty"` // what does not balance, naming the row
	Total    Sums     `json:"total"`              // of exporters' data
	Credits  Sums     `json:"credits"`            // corrections that take usage away
	Debits   Sums     `json:"debits"`             // corrections that add usage
	Rows     []Row    `json:"rows"`               // by exporter, domain and interval
}

// A Row is one exporter, Observation Domain and interval of arrival.
type Row struct {
	Exporter string    `json:"exporter"`
	Domain   uint32    `json:"domain"`
	Interval time.Time `json:"interval"` // its start
	Sums
}

// Sums are the amounts of a row, or of all rows:
//
//	received + mirrored = accounted + duplicate + suspended + rejected + skipped
//	accounted           = open + pending + acknowledged + quarantined
//
// Estimated is the part of Accounted that was scaled from sampled packets.
// Suspended is summed from what is in suspense, Open from the sessions, Pending
// and Quarantined from the records in the outbox; all else is the ledger's.
type Sums struct {
	Received     acct.Count `json:"received"`
	Mirrored     acct.Count `json:"mirrored"`
	Accounted    acct.Count `json:"accounted"`
	Duplicate    acct.Count `json:"duplicate"`
	Suspended    acct.Count `json:"suspended"`
	Rejected     acct.Count `json:"rejected"`
	Skipped      acct.Count `json:"skipped"`
	Open         acct.Count `json:"open"`
	Pending      acct.Count `json:"pending"`
	Acknowledged acct.Count `json:"acknowledged"`
	Quarantined  acct.Count `json:"quarantined"`
	Estimated    acct.Count `json:"estimated"`
	Unscaled     Unscaled   `json:"unscaled"`
	Undecoded    Undecoded  `json:"undecoded"`
	Lost         Lost       `json:"lost"`
}

// Unscaled are the Data Records, duplicates included, that name a sampler of
// which nothing was said. They count as they came, and are in Estimated.
type Unscaled struct {
	Records uint64 `json:"records"`
}

// Undecoded are the Data Sets whose Template has not come yet.
type Undecoded struct {
	Messages uint64 `json:"messages"`
	Octets   uint64 `json:"octets"`
}

// Lost are the Data Records that the sequence numbers miss, outside of what
// balances.
type Lost struct {
	Records uint64 `json:"records"`
	// Restarts is how often the numbers began anew: then nothing is known of
	// what was lost before.
	Restarts   uint64     `json:"restarts"`
	Confidence Confidence `json:"confidence"`
}

// A Confidence says what a number of lost Data Records is worth.
type Confidence uint8

const (
	// Exact: the sequence numbers count Data Records.
	Exact Confidence = iota
	// Estimated: some count something else, such as Messages.
	Estimated
	// Suspect: some disagreed with what came, as those of an exporter that
	// counts in a way of its own.
	Suspect
	// Unknown: some began anew, so more may be lost.
	Unknown
)

func (c Confidence) String() string {
	switch c {
	case Exact:
		return "exact"
	case Estimated:
		return "estimated"
	case Suspect:
		return "suspect"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("Confidence(%d)", uint8(c))
}

// MarshalText returns the word of String.
func (c Confidence) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText returns.
func (c *Confidence) UnmarshalText(b []byte) error {
	for v := Exact; v <= Unknown; v++ {
		if v.String() == string(b) {
			*c = v
			return nil
		}
	}
	return fmt.Errorf("spool: %q is no confidence", b)
}

// lost returns what is known of the loss in a row of the ledger.
func (a *amount) lost() Lost {
	l := Lost{Records: a.Lost - min(a.Lost, a.LostFound), Restarts: a.Restarts}
	switch {
	case a.Restarts > 0:
		l.Confidence = Unknown
	case l.Records > 0 && a.LostSuspect > 0:
		l.Confidence = Suspect
	case l.Records > 0 && a.LostEstimated > 0:
		l.Confidence = Estimated
	}
	return l
}

func (s *Sums) add(d *Sums) {
	for _, p := range [][2]*acct.Count{
		{&s.Received, &d.Received}, {&s.Mirrored, &d.Mirrored}, {&s.Accounted, &d.Accounted},
		{&s.Duplicate, &d.Duplicate}, {&s.Suspended, &d.Suspended}, {&s.Rejected, &d.Rejected},
		{&s.Skipped, &d.Skipped}, {&s.Open, &d.Open}, {&s.Pending, &d.Pending},
		{&s.Acknowledged, &d.Acknowledged}, {&s.Quarantined, &d.Quarantined}, {&s.Estimated, &d.Estimated},
	} {
		*p[0] = p[0].Plus(*p[1])
	}
	s.Unscaled.Records += d.Unscaled.Records
	s.Undecoded.Messages += d.Undecoded.Messages
	s.Undecoded.Octets += d.Undecoded.Octets
	s.Lost.Records += d.Lost.Records
	s.Lost.Restarts += d.Lost.Restarts
	s.Lost.Confidence = max(s.Lost.Confidence, d.Lost.Confidence)
}

func (r Row) key() acct.LedgerKey {
	return acct.LedgerKey{Exporter: r.Exporter, Domain: r.Domain, Interval: r.Interval.Unix()}
}

// A Selection chooses rows of the books. The zero Selection chooses all.
type Selection struct {
	Since, Until time.Time // rows whose interval begins at or after Since and before Until; zero for any
	Exporter     string    // "" for any
}

// Has reports whether s chooses the row of k.
func (s Selection) Has(k acct.LedgerKey) bool {
	return (s.Since.IsZero() || k.Interval >= s.Since.Unix()) &&
		(s.Until.IsZero() || k.Interval < s.Until.Unix()) &&
		(s.Exporter == "" || s.Exporter == k.Exporter)
}
