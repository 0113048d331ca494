package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"tollbridge/internal/durable"
)

// A file is one of a Segment that is being written.
type file struct {
	name string // in place
	f    *os.File
	z    *zstd.Encoder // nil for one that is compressed already
	sum  io.Writer
	hash interface{ Sum([]byte) []byte }
	n    int64
	done bool
}

const unfinished = ".part" // is added to a file's name until it is whole

func (a *Archive) create(what string) (*file, error) {
	f, err := a.createPlain(what)
	if err != nil {
		return nil, err
	}
	f.z, err = zstd.NewWriter(f.sum, zstd.WithEncoderConcurrency(1))
	return f, err
}

func (a *Archive) createPlain(what string) (*file, error) {
	name := filepath.Join(a.cfg.Dir, a.fileName(what))
	f, err := os.OpenFile(name+unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	out := &file{name: name, f: f, hash: h}
	out.sum = io.MultiWriter(f, h, (*counter)(&out.n))
	return out, nil
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// Write implements io.Writer.
func (f *file) Write(b []byte) (int, error) {
	if f.z != nil {
		return f.z.Write(b)
	}
	return f.sum.Write(b)
}

// close makes the file durable under its unfinished name.
func (f *file) close() error {
	if f.done {
		return nil
	}
	f.done = true
	var err error
	if f.z != nil {
		err = f.z.Close()
	}
	return errors.Join(err, f.f.Sync(), f.f.Close())
}

// abandon removes a file that was not finished.
func (f *file) abandon() {
	_ = f.close()
	_ = os.Remove(f.name + unfinished) // not there once it is in place
}

// finish puts the files into place and s into the manifest.
func (a *Archive) finish(s *Segment, files ...*file) error {
	for _, f := range files {
		if err := f.close(); err != nil {
			return err
		}
		s.Files = append(s.Files, File{filepath.Base(f.name), f.n, hex.EncodeToString(f.hash.Sum(nil))})
	}
	a.at("written")
	for _, f := range files {
		if err := os.Rename(f.name+unfinished, f.name); err != nil {
			return err
		}
	}
	if err := durable.SyncDir(a.cfg.Dir); err != nil {
		return err
	}
	a.at("in place")
	if err := a.add(*s); err != nil {
		return err
	}
	a.at("in the manifest")
	return nil
}

// openFile opens a compressed file for reading.
func openFile(dir, name string) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &opened{z, f}, nil
}

type opened struct {
	*zstd.Decoder
	f *os.File
}

// Close implements io.Closer.
func (o *opened) Close() error {
	o.Decoder.Close()
	return o.f.Close()
}

// OpenFile opens one of an archive's compressed files by its name, to be read
// as it was before.
func OpenFile(name string) (io.ReadCloser, error) {
	return openFile(filepath.Dir(name), filepath.Base(name))
}
