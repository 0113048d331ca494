package acct

import (
	"fmt"

	"tollbridge/internal/octets"
)

// A RequestTask says what the pipeline does with an Accounting-Request. The
// numbers are stored.
type RequestTask uint8

const (
	RequestFlows   RequestTask = 1 // account the flow record that it carries
	RequestForward RequestTask = 2 // deliver it to its Destination-Realm as it is
	RequestBinding RequestTask = 3 // note who holds which addresses: it is journaled as an EntryBinding, not as a request
)

// A Request is the data of an EntryRequest: an Accounting-Request that was
// answered once the entry was durable.
type Request struct {
	Task RequestTask
	Peer string // DiameterIdentity of the node that it came from, over however many more
	AVPs []byte // as they came
}

// requestVersion is the first octet of an encoded Request.
const requestVersion = 1

// AppendBinary appends what ParseRequest reads. It returns no error.
func (r Request) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, requestVersion, byte(r.Task))
	b = octets.AppendString(b, r.Peer)
	return append(b, r.AVPs...), nil
}

// ParseRequest reads what AppendBinary wrote. The AVPs belong to data and have
// not been checked. Errors match ErrCorrupt.
func ParseRequest(data []byte) (Request, error) {
	d := newDecoder(data)
	version := d.Octet()
	r := Request{Task: RequestTask(d.Octet()), Peer: d.Text()}
	if r.AVPs = d.Rest(); d.Err() == nil && (version != requestVersion || r.Task < RequestFlows || r.Task > RequestForward) {
		d.Fail()
	}
	if err := d.Err(); err != nil {
		return Request{}, fmt.Errorf("acct: decode request: %w", err)
	}
	return r, nil
}
