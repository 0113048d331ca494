package sim

// A Bug is a mistake that is planted to see that it is found.
type Bug uint8

const (
	None           Bug = iota
	NoIdentities       // a checkpoint lacks the identities of the records that it covers
	NoPosition         // a checkpoint lacks the position of the window of identities, and the counters beside it
	LostMark           // that a record may have been sent is not durable
	EarlyTrim          // the journal is trimmed up to the checkpoint, whatever still needs it
	UntimelyTrim       // the journal is trimmed before the checkpoint is committed
	AckBeforeSync      // exporters are told that their Messages are durable before they are
	ReadBeforeSync     // the pipeline reads entries that are not durable
	StaleSessions      // a checkpoint lacks the sessions that changed
	NoDoubts           // a checkpoint lacks what bindings contradict
	OneSpace           // address spaces are not told apart
)

var bugNames = [...]string{
	"none", "no identities", "no position", "lost mark", "early trim", "untimely trim",
	"acknowledgement before sync", "read before sync", "stale sessions", "no doubts", "one space",
}

func (b Bug) String() string { return bugNames[b] }

// Bugs are all that can be planted.
func Bugs() []Bug {
	var all []Bug
	for b := None + 1; int(b) < len(bugNames); b++ {
		all = append(all, b)
	}
	return all
}
