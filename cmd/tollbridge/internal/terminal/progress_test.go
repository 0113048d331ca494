package terminal_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tollbridge/cmd/tollbridge/internal/terminal"
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

	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("skipped: there are no terminals here: ", err)
	}
	defer ours.Close()
	fd := int(ours.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Skip("skipped: there are no terminals here: ", err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("skipped: there are no terminals here: ", err)
	}
	defer tty.Close()
	bar = terminal.NewProgress(tty, "flows.ipfix", 100)
	bar.Set64(50) //nolint:errcheck // shows below
	b := make([]byte, 4096)
	n, err := ours.Read(b)
	if err != nil || !strings.Contains(string(b[:n]), "flows.ipfix") {
		t.Errorf("a terminal was shown %q, %v", b[:n], err)
	}
}
