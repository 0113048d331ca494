package backlog

import (
	"encoding/binary"
	"fmt"
)

// The file of marks has two places for the same:
//
//	turn acknowledged sent checksum
//
// The later one that is whole counts.
const (
	markLength = 8 + 8 + 8 + 4
	markPlaces = 2
)

func (b *Backlog) readMarks() {
	data := make([]byte, markPlaces*markLength)
	_, _ = b.marks.ReadAt(data, 0) // none is as good as unreadable ones
	for i := range markPlaces {
		m := data[i*markLength : (i+1)*markLength]
		turn := binary.BigEndian.Uint64(m)
		if turn <= b.turn || binary.BigEndian.Uint32(m[24:]) != checksum(m[:24]) {
			continue
		}
		b.turn, b.acked, b.sent = turn, binary.BigEndian.Uint64(m[8:]), binary.BigEndian.Uint64(m[16:])
	}
}

func (b *Backlog) writeMarksLocked() error {
	b.turn++
	m := make([]byte, 0, markLength)
	for _, v := range []uint64{b.turn, b.acked, b.sent} {
		m = binary.BigEndian.AppendUint64(m, v)
	}
	m = binary.BigEndian.AppendUint32(m, checksum(m))
	if _, err := b.marks.WriteAt(m, int64(b.turn%markPlaces)*markLength); err != nil {
		return fmt.Errorf("backlog: write how far it is: %w", err)
	}
	return nil
}
