// Package crashpoint names the moments at which a test may kill the process.
// In an ordinary build At is empty and costs nothing. A build with the tag
// crashpoints reads TOLLBRIDGE_CRASH=point:n from the environment and sends
// itself SIGKILL on the nth pass of that point, so that a test can prove what
// survives there.
package crashpoint

// The points that there are.
const (
	JournalCommitted    = "journal committed"    // a group is durable, nobody has been told
	CheckpointWritten   = "checkpoint written"   // inside the transaction, before its COMMIT
	CheckpointCommitted = "checkpoint committed" // durable, nobody has been told
	Trimming            = "trimming"             // between two steps of a trim of the journal
	SettleWritten       = "settle written"       // inside the transaction, before its COMMIT
	Salvaging           = "salvaging"            // a table of a damaged database is saved, others are not
	SalvageWhole        = "salvage whole"        // the new database is whole, its name is still the damaged one's
	JournalTaking       = "journal taking"       // an earlier version's journal is copied, the copy has not its name yet
	JournalTaken        = "journal taken"        // the copy counts, the old one has its name still
	RequestSent         = "acr sent"             // an Accounting-Request has left, its answer has not come
	BindingDurable      = "binding durable"      // a binding's event is durable, its source has not been told
)
