// Package terminaltest makes terminals. For tests only.
package terminaltest

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Open returns both ends of a new terminal: what is written to the terminal is
// read at the other. It skips the test where there are none.
func Open(tb testing.TB) (other, terminal *os.File) {
	tb.Helper()
	other, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		tb.Skip("skipped: there are no terminals here: ", err)
	}
	tb.Cleanup(func() { other.Close() })
	fd := int(other.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		tb.Skip("skipped: there are no terminals here: ", err)
	}
	tb.Cleanup(func() { terminal.Close() })
	return other, terminal
}
