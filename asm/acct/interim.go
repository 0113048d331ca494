package acct

import (
	"encoding/binary"
	"fmt"
	"math"
)

// An InterimInterval is the Acct-Interim-Interval that the answer to a record
// of a session asks for (RFC 6733, Section 9.8.2).
type InterimInterval struct {
	SessionID string
	Seconds   uint32 // NoInterim for an interval of 0
}

// NoInterim stands for an Acct-Interim-Interval of 0, which asks for no INTERIM
// records at all: they come as seldom as may be.
const NoInterim = math.MaxUint32

// AppendInterimIntervals appends the data of an EntryInterim.
func AppendInterimIntervals(b []byte, list []InterimInterval) []byte {
	for _, i := range list {
		b = appendString(b, i.SessionID)
		b = binary.AppendUvarint(b, uint64(i.Seconds))
	}
	return b
}

// ParseInterimIntervals reads what AppendInterimIntervals wrote. Errors match
// ErrCorrupt.
func ParseInterimIntervals(data []byte) ([]InterimInterval, error) {
	var list []InterimInterval
	d := decoder{b: data}
	for len(d.b) > 0 {
		i := InterimInterval{SessionID: d.string()}
		seconds := d.uvarint()
		if i.Seconds = uint32(seconds); i.SessionID == "" || seconds == 0 || seconds > NoInterim {
			d.fail()
		}
		list = append(list, i)
	}
	if d.err != nil {
		return nil, fmt.Errorf("acct: decode interim intervals: %w", d.err)
	}
	return list, nil
}
