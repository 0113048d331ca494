package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"tollbridge/internal/durable"
)

// A lease is the epoch of who may write, in a file of one sector that is written
// in place: who has it open sees at once what another process writes there.
type lease struct {
	file  *os.File
	epoch uint64
	lost  func() // told when another epoch is found; nil for nobody
}

const leaseFormat = "%020d\n"

const leaseLength = 21

// Take makes an epoch that of the journal in dir, durably, making the directory if
// there is none. From then on a holder of another epoch calls nothing durable. The
// caller sees to it that no two take it at once, and that epochs rise.
func Take(dir string, epoch uint64) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = durable.SyncDir(filepath.Dir(dir))
	}
	if err != nil {
		return explain(dir, err)
	}
	path := filepath.Join(dir, leaseFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return explain(path, err)
	}
	_, err = fmt.Fprintf(io.NewOffsetWriter(f, 0), leaseFormat, epoch)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = durable.SyncDir(dir)
	}
	return explain(path, err)
}

// Epoch returns the highest epoch that the journal in dir knows of, 0 where there
// is no journal.
func Epoch(dir string) (latest uint64, err error) {
	names, _, err := list(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	for _, n := range names {
		latest = max(latest, n.epoch)
	}
	text, err := os.ReadFile(filepath.Join(dir, leaseFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, explain(dir, err)
	}
	return max(latest, parseEpoch(text)), nil
}

func openLease(dir string, epoch uint64, lost func()) (*lease, error) {
	path := filepath.Join(dir, leaseFile)
	f, err := os.Open(path)
	if err != nil {
		return nil, explain(path, err)
	}
	l := &lease{f, epoch, lost}
	if err := l.check(); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// check returns ErrFenced if the lease is another's.
func (l *lease) check() error {
	var b [leaseLength]byte
	if _, err := l.file.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return explain(l.file.Name(), err)
	}
	if parseEpoch(b[:]) == l.epoch {
		return nil
	}
	return l.fenced()
}

// fenced tells that the lease is another's, and returns ErrFenced.
func (l *lease) fenced() error {
	if l.lost != nil {
		l.lost()
	}
	return fmt.Errorf("journal: %w", ErrFenced)
}

// parseEpoch reads what leaseFormat wrote; 0 for everything else, such as what a
// power cut left of the first one, under which nothing was written.
func parseEpoch(b []byte) (epoch uint64) {
	if len(b) != leaseLength || b[leaseLength-1] != '\n' {
		return 0
	}
	for _, c := range b[:leaseLength-1] {
		if c < '0' || c > '9' {
			return 0
		}
		epoch = epoch*10 + uint64(c-'0')
	}
	return epoch
}
