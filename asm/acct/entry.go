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
	EntryMessage EntryKind = 1 // a raw IPFIX Message as it arrived
	EntryOpen    EntryKind = 2 // a Transport Session began; its position is the session's number
	EntryClose   EntryKind = 3 // a Transport Session ended
	EntryUsers   EntryKind = 4 // a source's user bindings, replacing those it gave before
	EntryConfig  EntryKind = 5 // the settings of the pipeline from here on
	EntryTick    EntryKind = 6 // the time, where no other entry tells it
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
	}
	return fmt.Sprintf("EntryKind(%d)", uint8(k))
}

// An Entry is one line of the journal. Whatever can change an accounting
// record is an entry, so the pipeline is a function of the journal.
type Entry struct {
	Position uint64 // 1, 2, 3 ...; 0 is before the first
	Kind     EntryKind
	Time     int64  // arrival, Unix nanoseconds
	Session  uint64 // position of the Transport Session's EntryOpen; 0 for none
	Data     []byte // belongs to the journal; valid until the reader's next call
}
