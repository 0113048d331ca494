package ipfix

import (
	"errors"
	"testing"
)

// Each SCTP stream has sequence numbers of its own (3.1), while Templates hold
// for all streams (8).
func TestSequencePerStream(t *testing.T) {
	s := NewSession(SCTP)
	data := wireSet(256, make([]byte, 12)) // 3 records
	for i, step := range []struct {
		stream   uint16
		sequence uint32
		sets     [][]byte
		lost     uint64
	}{
		{0, 0, [][]byte{wireSet(2, wire(256, 1, 1, 4))}, 0},
		{1, 1000, [][]byte{data}, 0},
		{0, 0, [][]byte{data}, 0},
		{2, 50, [][]byte{data}, 0},
		{1, 1003, [][]byte{data}, 0},
		{0, 3, [][]byte{data}, 0},
		{2, 56, [][]byte{data}, 3},
		{1, 1007, [][]byte{data}, 1},
	} {
		r, err := s.DecodeStream(wireMessage(step.sequence, step.sets...), step.stream, nil)
		if err != nil || r.Lost != step.lost || r.Restarted || r.Unknown > 0 {
			t.Errorf("message %d: %+v, %v", i, r, err)
		}
		b, _ := s.AppendBinary(nil)
		if err := s.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStreamLimit(t *testing.T) {
	s := NewSession(SCTP)
	s.Limits.Streams = 2
	for stream, want := range []error{nil, nil, nil, ErrLimit} {
		before, _ := s.AppendBinary(nil)
		_, err := s.DecodeStream(wireMessage(0), uint16(stream), nil)
		if !errors.Is(err, want) {
			t.Errorf("stream %d: %v", stream, err)
		}
		if after, _ := s.AppendBinary(nil); want != nil && string(after) != string(before) {
			t.Error("the session is changed")
		}
	}
	// A malformed Message opens no stream (9.1).
	s = NewSession(SCTP)
	if _, err := s.DecodeStream(wireMessage(0, wire(256, 3)), 5, nil); err == nil || s.streams != 0 {
		t.Errorf("%v, %d streams", err, s.streams)
	}
}
