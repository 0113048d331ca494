package acct

import (
	"errors"
	"slices"
	"testing"
)

func FuzzInterimIntervals(f *testing.F) {
	f.Add(AppendInterimIntervals(nil, []InterimInterval{{"asm.example;7;1", 300}, {"asm.example;7;2", NoInterim}}))
	f.Add([]byte{1, 'a', 0})
	f.Add([]byte{0, 1})
	f.Add([]byte{200, 'a'})
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseInterimIntervals(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error %v does not match ErrCorrupt", err)
			}
			return
		}
		again, err := ParseInterimIntervals(AppendInterimIntervals(nil, list))
		if err != nil || !slices.Equal(again, list) {
			t.Fatalf("%v became %v (%v)", list, again, err)
		}
	})
}
