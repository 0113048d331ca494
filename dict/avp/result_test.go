package avp

import (
	"strings"
	"testing"
)

// Each code of RFC 6733, Section 7.1, has a name of its own, and no other has
// one.
func TestResultNames(t *testing.T) {
	defined := map[uint32]uint32{1: 1, 2: 2, 3: 10, 4: 3, 5: 17} // the last of each class
	seen := map[string]uint32{}
	for code := range uint32(7000) {
		name := ResultName(code)
		if want := code%1000 > 0 && code%1000 <= defined[code/1000]; want != (name != "") {
			t.Errorf("%d is %q", code, name)
		}
		if other, twice := seen[name]; name != "" && twice {
			t.Errorf("%d and %d are both %s", other, code, name)
		}
		if name != strings.ToUpper(name) {
			t.Errorf("%d is %q", code, name)
		}
		seen[name] = code
	}
}
