package control

import (
	"net/netip"
	"time"

	"tollbridge/asm/acct"
)

// What commands ask of the daemon, with what goes in and what comes out.
const (
	Decide  = "decide"  // an asm.Command; an acct.Decision
	Adjust  = "adjust"  // an Adjustment; an acct.Decision
	Requeue = "requeue" // IDs of quarantined records; their new ones
	Import  = "import"  // an upload of users.AppendList; an Imported
	Pull    = "pull"    // a PullRequest; a PullResult
)

// An Adjustment says how to correct what a record charged.
type Adjustment struct {
	ID        uint64     `json:"id,omitempty"`         // of the record in the outbox; or 0, and:
	SessionID string     `json:"session_id,omitempty"` // the record's
	Number    uint32     `json:"number"`               // likewise
	Credit    bool       `json:"credit"`
	All       bool       `json:"all,omitempty"` // all of the record's usage
	Usage     acct.Usage `json:"usage"`
	Class     string     `json:"class,omitempty"`    // of the record's, that the usage is of; "" for all of them
	ToClass   string     `json:"to_class,omitempty"` // of what is charged instead; "" for Class
	User      string     `json:"user,omitempty"`     // where the outbox no longer has the record
	To        string     `json:"to,omitempty"`       // the user who is charged what is taken away; "" for nobody
	By        string     `json:"by"`
	Reason    string     `json:"reason"`
}

// ImportPrefix begins the names of imported sources, lest one be taken for the
// daemon's own.
const ImportPrefix = "import:"

// Imported says where the journal has a list of bindings.
type Imported struct{ Position uint64 }

// A PullRequest asks the daemon to have flow caches exported.
type PullRequest struct {
	Of   []netip.Prefix `json:"of"`   // addresses; none for those of User
	User string         `json:"user"` // "" for all
}

// A PullResult says what came of it, once all of it is in the books.
type PullResult struct {
	Exact     time.Time      `json:"exact,omitzero"` // the earliest that an exporter gave; zero if none answered
	Exporters []PullExporter `json:"exporters"`
}

// A PullExporter says what one exporter answered.
type PullExporter struct {
	Exporter string    `json:"exporter"`
	Remote   string    `json:"remote"`
	Time     time.Time `json:"time,omitzero"`
	Problem  string    `json:"problem,omitempty"`
}
