package acct

// A Batch is a checkpoint: all that the pipeline changed while it worked up
// to Position. It is stored whole or not at all.
type Batch struct {
	Position uint64 // entries up to and including this one are done
	Needed   uint64 // the oldest entry that must stay readable; at most Position+1
	Time     int64  // the pipeline's clock, Unix nanoseconds

	Records    []Record // cut since the last checkpoint, in order
	Sessions   []SessionState
	Ledger     []LedgerRow // amounts to add to the ledger
	Suspended  []Suspended // newly suspended Data Records
	Released   []uint64    // IDs of Suspended that were accounted or rejected after all
	State      []State     // everything else that a restart needs
	Identities []Identities
	Floors     []Floor    // those that rose
	Decisions  []Decision // of operators, carried out since the last checkpoint
}

// A Floor says up to when the identities of an exporter are forgotten: those
// of buckets that start below it.
type Floor struct {
	Exporter string
	Bucket   int64 // Unix seconds
}

// A Decision is what an operator ordered and what came of it.
type Decision struct {
	Position uint64 // of its entry in the journal
	At       int64  // arrival of that, Unix nanoseconds
	By       string // who ordered it
	What     string // "release", "reject", "adjust"
	Reason   string // why, in the operator's words
	On       string // what it was about, for people
	Count    Count  // what it applied to
}

// A SessionState is a user session as it stands at the checkpoint.
type SessionState struct {
	ID        uint64 // the pipeline's own number of the session
	SessionID string
	User      string
	Ended     bool    // its STOP has been cut: the row goes
	State     []byte  // the pipeline's encoding
	Usage     Usage   // cumulative, for listings
	Number    uint32  // of the latest record cut
	Started   int64   // Unix seconds
	Stopped   int64   // when its STOP was cut, Unix seconds; 0 while it is open. Kept on for late flows
	Open      []Share // usage not yet cut into a record
}

// A LedgerRow holds amounts of one exporter, Observation Domain and interval.
//
//	received + mirrored = accounted + duplicate + suspended + rejected + skipped
//
// In a Batch the amounts are increments. Suspended and the undecoded counts
// also fall, so they come as what is added and what is taken away.
type LedgerRow struct {
	LedgerKey
	Received  Count
	Mirrored  Count
	Accounted Count
	Duplicate Count
	Suspended Count // added
	Resumed   Count // taken out of suspense
	Rejected  Count
	Skipped   Count
	Estimated Count  // of Accounted, scaled from sampled packets, or to be
	Unscaled  uint64 // Data Records that count as they came, as nothing was said of the sampler that they name

	UndecodedMessages uint64 // messages that held a Data Set without its Template
	UndecodedOctets   uint64 // octets of those Data Sets
	DecodedMessages   uint64 // of the above, decoded later
	DecodedOctets     uint64

	Lost      uint64 // Data Records missing by sequence numbers: an estimate
	LostFound uint64 // of the above, came late after all

	// What Lost is worth. The rest of it is exact.
	LostEstimated uint64 // of Lost, where sequence numbers count something else than Data Records
	LostSuspect   uint64 // of Lost, where they disagreed with what came
	Restarts      uint64 // how often they began anew, so that nothing is known of a loss
}

// A Suspended Data Record waits for a user or a decision.
type Suspended struct {
	ID       uint64 // ascending
	Key      LedgerKey
	Count    Count
	Reason   string // "unmapped", "below floor", "ahead of clock"
	Since    int64  // Unix nanoseconds, on the pipeline's clock
	FlowEnd  int64  // Unix milliseconds
	Source   string // the flow's addresses and ports, for people
	Position uint64 // the journal entry it came in
	Flow     []byte // the pipeline's encoding
}

// StatePipeline is the Kind of the one State that no checkpoint can be resumed
// without: what was read again would not be known.
const StatePipeline = "pipeline"

// A State is a named value of the pipeline: templates of a Transport Session,
// user bindings, settings. A nil Value deletes it.
type State struct {
	Kind  string
	Key   string
	Value []byte
}

// Identities are record identities of an exporter first seen since the last
// checkpoint, whose time falls into one bucket, as the pipeline encodes them:
// those of several checkpoints can be put together.
type Identities struct {
	Exporter string
	Bucket   int64 // start of the bucket, Unix seconds
	Data     []byte
}

// A Checkpoint is where the pipeline resumes. Zero in an empty spool.
type Checkpoint struct {
	Position      uint64
	Time          int64
	Epoch         uint32   // high half of Session-Ids; rises when a spool is restored from a backup
	HashKey       [16]byte // of this spool's record identities; random, kept secret
	NextSuspended uint64   // the next free Suspended.ID
	Sessions      []SessionState
	State         []State
}
