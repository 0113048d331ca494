package ipfix

import (
	"bytes"
	"path/filepath"
	"testing"

	"tollbridge/internal/wiretest"
)

// messages returns the Messages of a file of commented hexadecimal in
// testdata, which are told apart by their lengths.
func messages(tb testing.TB, name string) [][]byte {
	tb.Helper()
	b := wiretest.ReadHex(tb, filepath.Join("testdata", name))
	var all [][]byte
	for len(b) > 0 {
		n, err := MessageLength(b)
		if err != nil {
			tb.Fatalf("%s: message %d: %v, %d octets are left", name, len(all), err, len(b))
		}
		all = append(all, b[:n])
		b = b[n:]
	}
	return all
}

// seeds returns the Messages of every testdata/*.hex, by file.
func seeds(tb testing.TB) map[string][][]byte {
	tb.Helper()
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no testdata/*.hex (%v)", err)
	}
	all := make(map[string][][]byte)
	for _, f := range files {
		all[filepath.Base(f)] = messages(tb, filepath.Base(f))
	}
	return all
}

func TestSeedsAreValid(t *testing.T) {
	for name, all := range seeds(t) {
		s := NewSession(TCP)
		for i, msg := range all {
			if err := Validate(msg); err != nil {
				t.Errorf("%s: message %d: %v", name, i, err)
			}
			if _, err := s.Decode(msg, nil); err != nil {
				t.Errorf("%s: message %d: %v", name, i, err)
			}
		}
	}
}

// decodeAll decodes a Message and returns copies of its records' fields.
func decodeAll(tb testing.TB, s *Session, msg []byte) (Result, [][][]byte) {
	tb.Helper()
	var records [][][]byte
	r, err := s.Decode(msg, func(set DataSet) {
		for record, ok := set.Next(); ok; record, ok = set.Next() {
			var fields [][]byte
			for i := range set.Template.Fields {
				fields = append(fields, bytes.Clone(record.Field(i)))
			}
			records = append(records, fields)
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return r, records
}
