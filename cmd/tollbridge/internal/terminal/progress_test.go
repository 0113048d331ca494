package terminal_test

import (
	"bytes"
	"strings"
	"testing"

	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/internal/terminaltest"
)

// A terminal is shown how far reading has come, a pipe or file nothing.
func TestProgress(t *testing.T) {
	var pipe bytes.Buffer
	bar := terminal.NewProgress(&pipe, "flows.ipfix", 100)
	bar.Set64(50) //nolint:errcheck // shows below
	bar.Finish()  //nolint:errcheck // likewise
	if pipe.Len() > 0 {
		t.Errorf("a pipe was shown %q", pipe.String())
	}

	ours, tty := terminaltest.Open(t)
	bar = terminal.NewProgress(tty, "flows.ipfix", 100)
	bar.Set64(50) //nolint:errcheck // shows below
	b := make([]byte, 4096)
	n, err := ours.Read(b)
	if err != nil || !strings.Contains(string(b[:n]), "flows.ipfix") {
		t.Errorf("a terminal was shown %q, %v", b[:n], err)
	}
}
