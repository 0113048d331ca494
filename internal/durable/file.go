// Package durable writes small files that survive a power cut.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile writes a file whole or not at all: a reader, and a restart after a
// power cut, finds the content of before or the new one. It leaves name+".tmp"
// behind at worst. The file is for its owner alone.
func WriteFile(name string, content []byte) error {
	f, err := os.OpenFile(name+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err == nil {
		err = SyncDir(filepath.Dir(name))
	}
	return err
}

// SyncDir makes durable which files a directory has.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
