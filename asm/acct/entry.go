package acct

import (
	"errors"
	"fmt"
)

// ErrNoEntry is matched by the error of reading a journal entry that is not
// there and never will be: it was dropped, or damaged and set aside.
var ErrNoEntry = errors.New("no such journal entry")

// An EntryKind says what a journal entry holds. The numbers are stored.
type EntryKind uint8

const (
	EntryMessage EntryKind = 1  // a raw IPFIX Message as it arrived
	EntryOpen    EntryKind = 2  // a Transport Session began; its position is the session's number
	EntryClose   EntryKind = 3  // a Transport Session ended
	EntryUsers   EntryKind = 4  // a source's user bindings, replacing those it gave before
	EntryConfig  EntryKind = 5  // the settings of the pipeline from here on
	EntryTick    EntryKind = 6  // the time, where no other entry tells it
	EntryBinding EntryKind = 7  // an event of a source's user bindings: one began, changed or ended
	EntryRequest EntryKind = 8  // an Accounting-Request that carries flows
	EntryCommand EntryKind = 9  // what an operator decided: release, reject, adjust
	EntryInterim EntryKind = 10 // Acct-Interim-Intervals that answers asked for
)

func (k EntryKind) String() string {
	switch k {
	case EntryMessage:
		return "message"
	case EntryOpen:
		return "open"
	case EntryClose:
		return "close"
	case EntryUsers:
		return "users"
	case EntryConfig:
		return "config"
	case EntryTick:
		return "tick"
	case EntryBinding:
		return "binding"
	case EntryRequest:
		return "request"
	case EntryCommand:
		return "command"
	case EntryInterim:
		return "interim"
	}
	return fmt.Sprintf("EntryKind(%d)", uint8(k))
}

// An Entry is one line of the journal. Whatever can change an accounting
// record is an entry, so the pipeline is a function of the journal.
type Entry struct {
	Position uint64 // 1, 2, 3 ...; 0 is before the first
	Kind     EntryKind
	Time     int64  // arrival, Unix nanoseconds
	Session  uint64 // position of the Transport Session's EntryOpen, with the SCTP stream of an EntryMessage above: see OfStream; 0 for none
	Data     []byte // belongs to the journal; valid until the reader's next call
}

// streamShift is where the SCTP stream begins in Entry.Session. No journal has
// 2^48 entries.
const streamShift = 48

// OfStream returns the Session of an Entry for a Message that came over an SCTP
// stream of a Transport Session. Stream 0 is the session itself.
func OfStream(session uint64, stream uint16) uint64 {
	return session | uint64(stream)<<streamShift
}

// Stream returns the Transport Session of an EntryMessage, and the SCTP stream
// that it came over; 0 for other transports.
func (e Entry) Stream() (session uint64, stream uint16) {
	return e.Session & (1<<streamShift - 1), uint16(e.Session >> streamShift)
}
