package reconcile

import (
	"bufio"
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
)

// DefaultMemory is how many octets of records a Sorter keeps in memory.
const DefaultMemory = 64 << 20

// A Sorter sorts records by Session-Id and number. What does not fit into
// memory goes to temporary files, sorted, and is merged in the end.
type Sorter struct {
	Memory int // octets of records in memory; 0 means DefaultMemory

	records []Record
	octets  int
	runs    []*os.File
}

// Add takes in a record.
func (s *Sorter) Add(r Record) error {
	limit := s.Memory
	if limit == 0 {
		limit = DefaultMemory
	}
	s.records = append(s.records, r)
	if s.octets += r.octets(); s.octets < limit {
		return nil
	}
	return s.spill()
}

// spill writes what is in memory to a file that has no name any more.
func (s *Sorter) spill() (err error) {
	f, err := os.CreateTemp("", "tollbridge-reconcile-")
	if err != nil {
		return fmt.Errorf("reconcile: %w", err)
	}
	s.runs = append(s.runs, f)
	os.Remove(f.Name()) //nolint:errcheck // where an open file can't be removed it stays
	s.sort()
	w := bufio.NewWriterSize(f, 1<<20)
	var scratch []byte
	for i := range s.records {
		if scratch, err = s.records[i].write(w, scratch); err != nil {
			return fmt.Errorf("reconcile: write a sorted run: %w", err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("reconcile: write a sorted run: %w", err)
	}
	s.records, s.octets = s.records[:0], 0
	_, err = f.Seek(0, io.SeekStart)
	return err
}

func (s *Sorter) sort() {
	slices.SortStableFunc(s.records, func(a, b Record) int { return a.compare(&b) })
}

// Sorted returns all records in order, once; those of one key as they were
// added.
func (s *Sorter) Sorted() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		s.sort()
		var m merge
		for _, f := range s.runs {
			in := bufio.NewReaderSize(f, 256<<10)
			m = append(m, &run{order: len(m), next: func(r *Record) error { return r.read(in) }})
		}
		rest := s.records
		m = append(m, &run{order: len(m), next: func(r *Record) error {
			if len(rest) == 0 {
				return io.EOF
			}
			*r, rest = rest[0], rest[1:]
			return nil
		}})
		for i := 0; i < len(m); {
			switch err := m[i].next(&m[i].head); {
			case err == io.EOF:
				m = slices.Delete(m, i, i+1)
			case err != nil:
				yield(Record{}, err)
				return
			default:
				i++
			}
		}
		heap.Init(&m)
		for len(m) > 0 {
			first := m[0]
			if !yield(first.head, nil) {
				return
			}
			switch err := first.next(&first.head); {
			case err == io.EOF:
				heap.Pop(&m)
			case err != nil:
				yield(Record{}, err)
				return
			default:
				heap.Fix(&m, 0)
			}
		}
	}
}

// Close gives the temporary files back.
func (s *Sorter) Close() error {
	var errs []error
	for _, f := range s.runs {
		errs = append(errs, f.Close())
	}
	s.runs = nil
	return errors.Join(errs...)
}

// A run is sorted records, of which the head is next. Those of an earlier run
// came earlier.
type run struct {
	order int
	head  Record
	next  func(*Record) error
}

// A merge is a heap of runs by their heads.
type merge []*run

func (m merge) Len() int      { return len(m) }
func (m merge) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(x any)   { *m = append(*m, x.(*run)) }

func (m merge) Less(i, j int) bool {
	return cmp.Or(m[i].head.compare(&m[j].head), cmp.Compare(m[i].order, m[j].order)) < 0
}

func (m *merge) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}
