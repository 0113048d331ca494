package powerloss

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// A Disk is a directory as the device may hold it: what was synced, and what
// was written since and may be there or not. Names are durable once their
// directory was synced, content once the file was.
type Disk struct {
	files map[string]*file // by their names as processes see them
	names map[string]*file // likewise, as synced
	later []change         // of names, not synced
	syncs map[string]int   // by thread and file: how much a sync that has begun covers
}

type file struct {
	synced []byte
	later  []Event
}

// A change is what became of a name of a directory.
type change struct {
	dir   string
	apply func(names map[string]*file)
}

// NewDisk returns an empty directory.
func NewDisk() *Disk {
	return &Disk{files: make(map[string]*file), names: make(map[string]*file), syncs: make(map[string]int)}
}

// DiskOf returns what lies in dir now, all of it synced.
func DiskOf(t testing.TB, dir string) *Disk {
	t.Helper()
	d := NewDisk()
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(filepath.Join(dir, name))
		d.files[name] = &file{synced: content}
		d.names[name] = d.files[name]
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Apply has e happen. Promises are passed over.
func (d *Disk) Apply(t testing.TB, e Event) {
	t.Helper()
	f := d.files[e.Name]
	switch e.Call {
	case Promise:
	case create:
		if f != nil {
			return // it is there already
		}
		f := &file{}
		d.files[e.Name] = f
		d.later = append(d.later, change{filepath.Dir(e.Name), func(names map[string]*file) { names[e.Name] = f }})
	case unlink:
		delete(d.files, e.Name)
		d.later = append(d.later, change{filepath.Dir(e.Name), func(names map[string]*file) { delete(names, e.Name) }})
	case rename:
		delete(d.files, e.Name)
		d.files[e.to] = f
		d.later = append(d.later, change{filepath.Dir(e.to), func(names map[string]*file) {
			delete(names, e.Name)
			names[e.to] = f
		}})
	case link:
		d.files[e.to] = f
		d.later = append(d.later, change{filepath.Dir(e.to), func(names map[string]*file) { names[e.to] = f }})
	case write, truncate, allocate:
		if f == nil {
			t.Fatalf("%v, which was never created", e)
		}
		f.later = append(f.later, e)
	case beginSync:
		d.syncs[e.thread+e.Name] = len(d.later)
		if f != nil {
			d.syncs[e.thread+e.Name] = len(f.later)
		}
	case sync:
		n := d.syncs[e.thread+e.Name]
		delete(d.syncs, e.thread+e.Name)
		if f == nil {
			d.syncNames(e.Name, n)
			return
		}
		n = min(n, len(f.later))
		for _, w := range f.later[:n] {
			f.synced = w.onto(f.synced)
		}
		f.later = slices.Clone(f.later[n:])
	default:
		t.Fatalf("%v is not understood", e)
	}
}

// syncNames makes those of the first n changes durable that are of dir.
func (d *Disk) syncNames(dir string, n int) {
	var rest []change
	for i, c := range d.later {
		if i < n && c.dir == dir {
			c.apply(d.names)
		} else {
			rest = append(rest, c)
		}
	}
	d.later = rest
}

// onto returns the content of a file after a write to it.
func (e Event) onto(content []byte) []byte {
	end := e.offset + int64(len(e.data))
	if e.Call == truncate && end < int64(len(content)) {
		return content[:end]
	}
	if grow := end - int64(len(content)); grow > 0 {
		content = append(content, make([]byte, grow)...)
	}
	copy(content[e.offset:], e.data)
	return content
}

// sector is the most that a device writes whole or not at all.
const sector = 512

// Image makes dir as it might be found after the power was lost: everything
// that was synced, and of the rest what r draws, writes whole or torn at a
// sector.
func (d *Disk) Image(dir string, r *rand.Rand) error {
	names := maps.Clone(d.names)
	for _, c := range d.later {
		if r.IntN(2) == 0 {
			c.apply(names)
		}
	}
	kept := r.Float64() // of the writes, in this image
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f := names[name]
		if f == nil {
			return fmt.Errorf("powerloss: %s was renamed before it was created", name)
		}
		content := slices.Clone(f.synced)
		for _, w := range f.later {
			if r.Float64() >= kept {
				continue
			}
			if sectors := len(w.data) / sector; sectors > 1 && r.IntN(4) == 0 {
				w.data = w.data[:sector*(1+r.IntN(sectors-1))]
			}
			content = w.onto(content)
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// EverySync in place of a number of images is one before and one after each
// sync, n*EverySync so many.
const EverySync = -1

// EachImage is that of an empty Disk.
func EachImage(t testing.TB, events []Event, images int, r *rand.Rand, promise func(text string), look func(image, at string) bool) {
	t.Helper()
	NewDisk().EachImage(t, events, images, r, promise, look)
}

// EachImage builds the directory as it may be after so many random moments of
// events, or at EverySync, in directories of its own, and calls look with each
// and with words for the moment, while that returns true. Before, it calls
// promise with every line that the processes had written by then.
func (d *Disk) EachImage(t testing.TB, events []Event, images int, r *rand.Rand, promise func(text string), look func(image, at string) bool) {
	t.Helper()
	moments := make(map[int]int) // after so many events: how many images
	for range images {
		moments[1+r.IntN(len(events))]++
	}
	for i, e := range events {
		if images < 0 && e.Call == sync {
			moments[i], moments[i+1] = images/EverySync, images/EverySync
		}
	}
	for i, e := range events {
		d.Apply(t, e)
		if e.Call == Promise {
			promise(e.Name)
		}
		for n := range moments[i+1] {
			image := filepath.Join(t.TempDir(), fmt.Sprintf("%d-%d", i, n))
			if err := d.Image(image, r); err != nil {
				t.Fatal(err)
			}
			if !look(image, fmt.Sprintf("event %d of %d (%v), image %d", i+1, len(events), e, n)) {
				return
			}
			if err := os.RemoveAll(image); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Images is how many images a test that looks at so many by itself is to look
// at: TOLLBRIDGE_POWERLOSS says another number, or "every" for EverySync.
func Images(t testing.TB, images int) int {
	t.Helper()
	switch text := os.Getenv("TOLLBRIDGE_POWERLOSS"); text {
	case "":
		return images
	case "every":
		return EverySync
	default:
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("TOLLBRIDGE_POWERLOSS=%s is neither a number nor \"every\"", text)
		}
		return n
	}
}
