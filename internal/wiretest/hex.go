// Package wiretest has the octets that tests decode, and captures for other
// programs to decode. For tests only.
package wiretest

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Hex returns the octets of every testdata/*.hex, by the file's name without
// its ending. There must be one.
func Hex(tb testing.TB) map[string][]byte {
	tb.Helper()
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no testdata/*.hex (%v)", err)
	}
	all := make(map[string][]byte)
	for _, name := range files {
		all[strings.TrimSuffix(filepath.Base(name), ".hex")] = ReadHex(tb, name)
	}
	return all
}

// ReadHex returns the octets of one file: hexadecimal digits with white space
// anywhere, and comments from a # to the end of the line.
func ReadHex(tb testing.TB, name string) []byte {
	tb.Helper()
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
	return b
}
