package users

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Watch looks at a file every so often, and calls changed with it whenever
// its content is another than loaded's, or the last that changed was called
// with. A file that can't be read or has errors is told once, as loaded's name
// and an error; what was loaded before counts on. Watch blocks until ctx is
// done, and returns its error.
//
// A file is read when its size and time of modification have been the same for
// two looks, lest half of what somebody is still writing be taken for all.
func Watch(ctx context.Context, loaded File, every time.Duration, changed func(File, error)) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	w := watcher{name: loaded.Name, digest: loaded.Digest}
	for {
		if f, err, news := w.look(); news {
			changed(f, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// A watcher remembers what it saw of a file.
type watcher struct {
	name    string
	digest  [32]byte // of the content told last
	problem string   // told last; "" for none

	seen, read stamp // at the last look, and when it was read
}

// A stamp changes when a file does. The zero stamp is no file's.
type stamp struct {
	modified int64 // Unix nanoseconds
	size     int64
	exists   bool
}

// look reports what the caller has not been told yet.
func (w *watcher) look() (f File, err error, news bool) {
	now, err := stampOf(w.name)
	settled := now == w.seen
	w.seen = now
	switch {
	case err != nil:
		w.read = stamp{}
		return w.tell(fmt.Errorf("users: watch %s: %w", w.name, err))
	case !settled || now == w.read:
		return File{}, nil, false
	}
	w.read = now
	f, same, err := parseFile(w.name, w.digest)
	if after, statErr := stampOf(w.name); statErr != nil || after != now {
		w.seen, w.read = after, stamp{} // it changed meanwhile; wait again
		return File{}, nil, false
	}
	if err != nil {
		return w.tell(err)
	}
	w.problem = ""
	if same {
		return File{}, nil, false
	}
	w.digest = f.Digest
	return f, nil, true
}

// tell reports err unless it was reported last.
func (w *watcher) tell(err error) (File, error, bool) {
	if err.Error() == w.problem {
		return File{}, nil, false
	}
	w.problem = err.Error()
	return File{Name: w.name}, err, true
}

func stampOf(name string) (stamp, error) {
	info, err := os.Stat(name)
	if err != nil {
		return stamp{}, err
	}
	return stamp{info.ModTime().UnixNano(), info.Size(), true}, nil
}
