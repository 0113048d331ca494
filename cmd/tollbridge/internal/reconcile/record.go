// Package reconcile compares what two sides have of the same accounting
// records: whoever sent them and whoever received them, or a file of either.
//
// Both sides are sorted by Session-Id and number, on disk where they don't fit
// into memory, and then read once side by side. So millions of sessions take
// as much memory as one.
package reconcile

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"tollbridge/asm/acct"
)

// A Record is an accounting record as far as two sides must agree on it.
type Record struct {
	SessionID string          `json:"session_id"`
	Number    uint32          `json:"number"`
	Type      acct.RecordType `json:"-"`
	User      string          `json:"user"`
	acct.Usage
	Credit bool   `json:"credit,omitempty"` // it takes usage away: a correction
	State  string `json:"state,omitempty"`  // what the side says of it: "acknowledged", "conflict"; need not agree
}

// key orders records.
func (r *Record) compare(o *Record) int {
	return cmp.Or(strings.Compare(r.SessionID, o.SessionID), cmp.Compare(r.Number, o.Number))
}

// same reports whether two records of one key say the same, r ours and o theirs.
func (r *Record) same(o *Record, known func(ours, theirs string) bool) bool {
	return r.Type == o.Type && r.Credit == o.Credit && r.Usage == o.Usage && (r.User == o.User || known(r.User, o.User))
}

// octets is about what r takes in memory.
func (r *Record) octets() int { return 120 + len(r.SessionID) + len(r.User) }

// creditBit is set in the octet of a record's type on disk if it is a credit.
const creditBit = 0x80

// write appends r to a run on disk.
func (r *Record) write(w *bufio.Writer, scratch []byte) ([]byte, error) {
	b := scratch[:0]
	for _, s := range []string{r.SessionID, r.User, r.State} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	kind := byte(r.Type)
	if r.Credit {
		kind |= creditBit
	}
	b = append(b, kind)
	for _, v := range []uint64{uint64(r.Number), r.InputOctets, r.OutputOctets, r.InputPackets, r.OutputPackets} {
		b = binary.AppendUvarint(b, v)
	}
	_, err := w.Write(b)
	return b, err
}

// read reads what write wrote. It returns io.EOF at the end.
func (r *Record) read(in *bufio.Reader) error {
	*r = Record{}
	for i, s := range []*string{&r.SessionID, &r.User, &r.State} {
		n, err := binary.ReadUvarint(in)
		if err != nil {
			if i == 0 && err == io.EOF {
				return io.EOF
			}
			return fmt.Errorf("reconcile: read a sorted run: %w", err)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(in, b); err != nil {
			return fmt.Errorf("reconcile: read a sorted run: %w", err)
		}
		*s = string(b)
	}
	t, err := in.ReadByte()
	r.Type, r.Credit = acct.RecordType(t&^creditBit), t&creditBit != 0
	var number uint64
	for _, v := range []*uint64{&number, &r.InputOctets, &r.OutputOctets, &r.InputPackets, &r.OutputPackets} {
		if err == nil {
			*v, err = binary.ReadUvarint(in)
		}
	}
	r.Number = uint32(number)
	if err != nil {
		return fmt.Errorf("reconcile: read a sorted run: %w", err)
	}
	return nil
}
