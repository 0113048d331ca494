package journal

import (
	"io/fs"
	"os"
	"syscall"
	"testing"
)

// Of what the system fails in, all that time may mend is waited out.
func TestPasses(t *testing.T) {
	for err, want := range map[error]bool{
		syscall.ENOSPC: true, syscall.EDQUOT: true, syscall.EIO: true,
		syscall.ETIMEDOUT: true, syscall.ENOLINK: true, syscall.EREMOTEIO: true, // of a volume over a network
		syscall.EMFILE: true, syscall.ENFILE: true, syscall.ENOMEM: true,
		syscall.EACCES: false, syscall.EROFS: false, syscall.ENOENT: false, os.ErrClosed: false,
		ErrFenced: false,
	} {
		if got := passes(explain("segment", &fs.PathError{Op: "write", Path: "segment", Err: err})); got != want {
			t.Errorf("%v passes: %v", err, got)
		}
	}
}
