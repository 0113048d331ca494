package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// Verify reads all that is not trimmed, and calls wrong with what is damaged and
// not set aside. The error is ctx's, or a failure of the disk.
func (j *Journal) Verify(ctx context.Context, wrong func(error)) error {
	j.mu.Lock()
	var all []view
	for _, s := range j.segments {
		all = append(all, s.view())
	}
	aside := slices.Clone(j.aside)
	j.mu.Unlock()
	for _, s := range all {
		err := s.verify(ctx, func(d *damagedError) {
			if !slices.Contains(aside, d.span) {
				wrong(d)
			}
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // trimmed meanwhile
			return fmt.Errorf("journal: %w", explain(s.path, err))
		}
	}
	return nil
}

func (s view) verify(ctx context.Context, wrong func(*damagedError)) error {
	file, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer file.Close()
	var room []byte
	for r := s.frames(file, s.begin); ctx.Err() == nil; {
		f, lost, err := r.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if lost.lost() {
			wrong(s.missing(lost, nil))
		}
		if err != nil {
			return nil
		}
		g, err := r.group(f, room)
		var damaged *damagedError
		if errors.As(err, &damaged) {
			wrong(damaged)
		} else if err != nil {
			return err
		} else {
			room = g.frame
		}
	}
	return ctx.Err()
}
