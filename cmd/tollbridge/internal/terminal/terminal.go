// Package terminal is how commands talk to people: what went wrong, a line each,
// and how far they have come.
package terminal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Is reports whether w is a terminal.
func Is(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// ErrTold is the error of a command that has already said what is wrong.
var ErrTold = errors.New("failed")

// PrintError prints each joined error on a line of its own, but not ErrTold.
func PrintError(w io.Writer, err error) {
	if errors.Is(err, ErrTold) {
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "tollbridge: %s\n", strings.TrimSuffix(line, "\n"))
	}
}
