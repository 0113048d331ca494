package ipfix

import (
	"bytes"
	"errors"
	"testing"
)

func TestCheckpoint(t *testing.T) {
	for name, all := range seeds(t) {
		s := NewSession(UDP)
		for _, msg := range all {
			if _, err := s.Decode(msg, nil); err != nil {
				t.Fatal(err)
			}
		}
		b, err := s.AppendBinary([]byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		b = b[len("before"):]
		again := NewSession(UDP)
		if err := again.UnmarshalBinary(b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, want := range s.Templates() {
			got := again.Template(want.Domain, want.ID)
			if got == nil || got.Fingerprint() != want.Fingerprint() || got.Scope != want.Scope || got.Domain != want.Domain {
				t.Errorf("%s: template %d is %+v", name, want.ID, got)
			}
		}
		if again.templates != s.templates || again.fields != s.fields {
			t.Errorf("%s: %d templates of %d fields", name, again.templates, again.fields)
		}
		if b2, _ := again.AppendBinary(nil); !bytes.Equal(b, b2) {
			t.Errorf("%s: %x\nwant %x", name, b2, b)
		}
		// A state cut off anywhere is corrupt, and changes nothing.
		for n := range b {
			if err := again.UnmarshalBinary(b[:n]); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s: %d octets of %d: %v", name, n, len(b), err)
			}
		}
		if err := again.UnmarshalBinary(append(b, 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: an octet too many: %v", name, err)
		}
		if b2, _ := again.AppendBinary(nil); !bytes.Equal(b, b2) {
			t.Errorf("%s: an error changed the session", name)
		}
	}
}
