package spool

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// A rescue copies a table as far as it can be read.
type rescue struct {
	SalvagedTable
	src    *sql.DB
	dst    *writer
	key    []string // columns of the primary key
	number bool     // it is one integer
	reads  string   // columns as they are read
	hollow string   // the same, with blobs replaced by empty ones
	insert string
	last   []any // key of the row copied last; nil before the first
	unread error // a failure of the disk, which is no damage; nil for none
}

// note keeps err if it is a failure of the disk.
func (r *rescue) note(err error) error {
	if errors.Is(explain("", err), ErrIO) {
		r.unread = err
	}
	return err
}

func newRescue(src *sql.DB, dst *writer, name string) (*rescue, error) {
	r := &rescue{SalvagedTable: SalvagedTable{Name: name}, src: src, dst: dst}
	var have []string // columns of the damaged table, which may be of an earlier version
	rows, err := src.Query("SELECT name FROM pragma_table_info(?)", name)
	if err == nil {
		err = each(rows, func(rows *sql.Rows) error {
			var column string
			err := rows.Scan(&column)
			have = append(have, column)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	var columns, hollow []string
	err = dst.query("SELECT name, type, pk FROM pragma_table_info(?)", func(rows *sql.Rows) error {
		var column, kind string
		var pk int
		if err := rows.Scan(&column, &kind, &pk); err != nil {
			return err
		}
		if !slices.Contains(have, column) {
			return nil
		}
		columns = append(columns, column)
		if kind == "BLOB" && pk == 0 {
			column = "x''"
		}
		hollow = append(hollow, column)
		if pk > 0 {
			r.key = append(r.key, columns[len(columns)-1])
			r.number = kind == "INTEGER"
		}
		return nil
	}, name)
	if err != nil {
		return nil, err
	}
	r.number = r.number && len(r.key) == 1
	keys := strings.Join(r.key, ", ")
	r.reads = keys + ", " + strings.Join(columns, ", ")
	r.hollow = keys + ", " + strings.Join(hollow, ", ")
	r.insert = fmt.Sprintf("INSERT OR REPLACE INTO %s (%s) VALUES (?%s)", name, strings.Join(columns, ", "), strings.Repeat(", ?", len(columns)-1))
	return r, nil
}

// copy copies what can be read, within a transaction of the new database.
// Damage is no error; a failure of the disk is.
func (r *rescue) copy() error {
	if len(r.key) == 0 {
		return nil // has no rows of ours
	}
	err := r.rows()
	if r.unread != nil {
		return r.unread
	}
	return err
}

func (r *rescue) rows() error {
	for r.unread == nil {
		n, err := r.read(r.reads, r.last, false, -1)
		if n == 0 && err == nil {
			return nil
		}
		if err == nil {
			continue
		}
		var failed *writeError
		if errors.As(err, &failed) {
			return failed.err
		}
		// The next row can't be read: perhaps all but its blobs can.
		before := r.last
		if n, err := r.read(r.hollow, r.last, false, 1); n == 1 && err == nil {
			r.Hollow = append(r.Hollow, keyText(r.last))
			continue
		}
		if !r.number {
			return r.fromBehind(before)
		}
		from, ok := r.beyond(before)
		if !ok || len(r.Lost) > lostMost {
			r.Lost = append(r.Lost, keyText(before)+" and the end")
			return nil
		}
		if before != nil && before[0] == from-1 { // can be read, but is nothing that a table takes
			from++
		}
		r.last = []any{from - 1}
		r.Lost = append(r.Lost, keyText(before)+" and "+fmt.Sprint(from))
	}
	return nil
}

// beyond returns the first number behind a damaged place from which on rows
// can be read, and false if there is none.
func (r *rescue) beyond(last []any) (int64, bool) {
	after := int64(0)
	if last != nil {
		after = last[0].(int64)
	}
	readable := func(from int64) bool {
		rows, err := r.src.Query(fmt.Sprintf("SELECT %s FROM %s WHERE %s >= ? ORDER BY %s LIMIT 1", r.hollow, r.Name, r.key[0], r.key[0]), from)
		if r.note(err) != nil {
			return false
		}
		n := 0
		err = each(rows, func(*sql.Rows) error { n++; return nil })
		return r.note(err) == nil && n == 1
	}
	step := int64(1)
	for ; ; step *= 2 {
		if after+step < after || step > 1<<40 {
			return 0, false
		}
		if readable(after + step) {
			break
		}
	}
	bad, good := after+step/2, after+step
	for bad+1 < good {
		mid := bad + (good-bad)/2
		if readable(mid) {
			good = mid
		} else {
			bad = mid
		}
	}
	return good, true
}

// fromBehind copies the rows from the last one down to a damaged place.
func (r *rescue) fromBehind(before []any) error {
	high := []any(nil)
	r.last = nil
	for {
		n, err := r.read(r.reads, r.last, true, -1)
		var failed *writeError
		if errors.As(err, &failed) {
			return failed.err
		}
		if r.last != nil {
			high = r.last
		}
		if n == 0 || err != nil {
			break
		}
	}
	end := "the end"
	if high != nil {
		end = keyText(high)
	}
	r.Lost = append(r.Lost, keyText(before)+" and "+end)
	return nil
}

// A writeError is a failure of the new database.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }

// read copies rows behind a key, or before it, in their order, and returns how
// many, also with an error.
func (r *rescue) read(columns string, last []any, down bool, limit int) (n int, err error) {
	order, than := "", ">"
	if down {
		order, than = " DESC", "<"
	}
	keys := strings.Join(r.key, ", ")
	query := fmt.Sprintf("SELECT %s FROM %s", columns, r.Name)
	if last != nil {
		query += fmt.Sprintf(" WHERE (%s) %s (?%s)", keys, than, strings.Repeat(", ?", len(last)-1))
	}
	query += " ORDER BY " + strings.Join(r.key, order+", ") + order + fmt.Sprintf(" LIMIT %d", limit)
	rows, err := r.src.Query(query, last...)
	if err != nil {
		return 0, r.note(err)
	}
	err = each(rows, func(rows *sql.Rows) error {
		names, err := rows.Columns()
		if err != nil {
			return err
		}
		values, to := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			to[i] = &values[i]
		}
		if err := rows.Scan(to...); err != nil {
			return err
		}
		if err := r.dst.exec(r.insert, values[len(r.key):]...); err != nil {
			var refused sqlite3.Error
			if errors.As(err, &refused) && (refused.Code == sqlite3.ErrConstraint || refused.Code == sqlite3.ErrMismatch) {
				return err // damage made it a row that there can't be
			}
			return &writeError{err}
		}
		r.last = values[:len(r.key)]
		n++
		r.Rows++
		return nil
	})
	return n, r.note(err)
}

// keyText names a row for people.
func keyText(key []any) string {
	if key == nil {
		return "the beginning"
	}
	var parts []string
	for _, k := range key {
		if b, ok := k.([]byte); ok {
			k = string(b)
		}
		parts = append(parts, fmt.Sprint(k))
	}
	return strings.Join(parts, "/")
}
