package acct

import (
	"fmt"
	"time"
)

// A DeliveryState is what has become of a record in the outbox. The numbers
// are stored.
type DeliveryState uint8

const (
	Pending      DeliveryState = 0 // not settled yet
	Acknowledged DeliveryState = 1 // a peer answered 2xxx
	Quarantined  DeliveryState = 2 // refused for good; kept with the reason
	Covered      DeliveryState = 3 // was quarantined; a later cumulative record of its session was acknowledged
)

func (s DeliveryState) String() string {
	switch s {
	case Pending:
		return "pending"
	case Acknowledged:
		return "acknowledged"
	case Quarantined:
		return "quarantined"
	case Covered:
		return "covered"
	}
	return fmt.Sprintf("DeliveryState(%d)", uint8(s))
}

// A Delivery is a pending record as the outbox hands it to delivery.
type Delivery struct {
	ID       uint64 // in the outbox, ascending; the records of a session ascend too
	Record   Record // without Shares
	EndToEnd uint32 // End-to-End Identifier of every sending, until an error answer
	MaySent  bool   // a copy may have been sent and was not answered: set the T flag
	Attempts uint32 // error answers so far
}

// A Settlement is the fate of one Delivery.
type Settlement struct {
	ID     uint64
	State  DeliveryState // Pending: an error answer; try again as a new request with a new End-to-End Identifier
	Result uint32        // Result-Code or Experimental-Result-Code; 0 for none
	Peer   string        // who answered
	Reason string        // Error-Message and Failed-AVP of a refusal, for people
	At     time.Time

	// MaySent says of a Pending one that another copy was sent and not answered:
	// the new request is a copy as well.
	MaySent bool

	// Own says that the request carried what the record adds alone, so that its
	// acknowledgement covers no record before it.
	Own bool
}

// A CDR is an accounting record as the accounting application received it.
type CDR struct {
	OriginHost     string
	OriginRealm    string
	SessionID      string
	Number         uint32
	Type           RecordType
	MultiSessionID string
	User           string
	Event          time.Time
	SessionTime    time.Duration
	Usage          Usage
	Corrects       *Correction // the earlier record that this one amends; nil for none
	Retransmitted  bool        // the T flag
	AVPs           []byte      // the request's AVPs as they came
	Content        [32]byte    // digest of the AVPs that make up the record's content
	At             time.Time   // arrival
}

// An Outcome says what storing a CDR came to.
type Outcome uint8

const (
	Stored    Outcome = iota // new
	Duplicate                // the same Session-Id, number and content was there
	Conflict                 // the same Session-Id and number was there with other content; both are kept
)
