package avp

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// messages returns the messages of testdata/*.hex by name: hexadecimal
// octets, with comments from a # to the end of the line.
func messages(tb testing.TB) map[string][]byte {
	tb.Helper()
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no testdata/*.hex (%v)", err)
	}
	all := make(map[string][]byte)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		var digits strings.Builder
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(line, "#")
			digits.WriteString(strings.Join(strings.Fields(line), ""))
		}
		b, err := hex.DecodeString(digits.String())
		if err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		all[strings.TrimSuffix(filepath.Base(name), ".hex")] = b
	}
	return all
}
