package sim

// A Bug is a mistake that is planted to see that it is found.
type Bug uint8

const (
	None            Bug = iota
	NoIdentities        // a checkpoint lacks the identities of the records that it covers
	NoPosition          // a checkpoint lacks the position of the window of identities, and the counters beside it
	LostMark            // that a record may have been sent is not durable
	EarlyTrim           // the journal is trimmed up to the checkpoint, whatever still needs it
	UntimelyTrim        // the journal is trimmed before the checkpoint is committed
	AckBeforeSync       // exporters are told that their Messages are durable before they are
	ReadBeforeSync      // the pipeline reads entries that are not durable
	StaleSessions       // a checkpoint lacks the sessions that changed
	NoDoubts            // a checkpoint lacks what bindings contradict
	OneSpace            // address spaces are not told apart
	AckBeforeOwner      // a collector that passes on has its exporter told that a Message is durable before the owner has it
	CountedTwice        // what another collector passes on is no duplicate of what came directly
	ConflictSettled     // a request that contradicts one before is answered as its duplicate
)

var bugNames = [...]string{
	"none", "no identities", "no position", "lost mark", "early trim", "untimely trim",
	"acknowledgement before sync", "read before sync", "stale sessions", "no doubts", "one space",
	"acknowledgement before the owner", "counted twice", "conflict settled",
}

// A Situation is a set of what some worlds have and others do not.
type Situation uint8

const (
	Crashes         Situation = 1 << iota // the bridge hardly gets up
	LateBindings                          // they are corrected
	SharedAddresses                       // by ports, and there are several address spaces
	Relay                                 // another collector passes on what it collects
	Requests                              // an AAA client sends flows
	Orders                                // an operator decides and corrects
)

func (b Bug) String() string { return bugNames[b] }

// Bugs are all that can be planted.
func Bugs() []Bug {
	var all []Bug
	for b := None + 1; int(b) < len(bugNames); b++ {
		all = append(all, b)
	}
	return all
}
