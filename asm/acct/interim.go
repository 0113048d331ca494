package acct

import (
	"encoding/binary"
	"fmt"
	"math"

	"tollbridge/internal/octets"
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
		b = octets.AppendString(b, i.SessionID)
		b = binary.AppendUvarint(b, uint64(i.Seconds))
	}
	return b
}

// ParseInterimIntervals reads what AppendInterimIntervals wrote. Errors match
// ErrCorrupt.
func ParseInterimIntervals(data []byte) ([]InterimInterval, error) {
	var list []InterimInterval
	d := newDecoder(data)
	for d.Len() > 0 {
		i := InterimInterval{SessionID: d.Text()}
		seconds := d.Uvarint()
		if i.Seconds = uint32(seconds); i.SessionID == "" || seconds == 0 || seconds > NoInterim {
			d.Fail()
		}
		list = append(list, i)
	}
	if err := d.Err(); err != nil {
		return nil, fmt.Errorf("acct: decode interim intervals: %w", err)
	}
	return list, nil
}
