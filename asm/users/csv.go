package users

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// csv reads a CSV file (RFC 4180).
func (p *fileParser) csv(data []byte) {
	r := csv.NewReader(bytes.NewReader(data))
	r.Comment = '#'
	r.FieldsPerRecord = -1 // counted here, for a better message
	r.TrimLeadingSpace = true
	r.ReuseRecord = true

	// A line is a binding, but for a few.
	p.bindings = make([]Binding, 0, bytes.Count(data, []byte("\n")))
	p.lines = make([]int, 0, cap(p.bindings))

	var columns []int // the key of each column, once the header is read
	for {
		record, err := r.Read()
		var syntax *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			if columns == nil {
				p.problem(Problem{Text: "is empty: the first line must name the columns, such as prefix,user,from,until"})
			}
			return
		case errors.As(err, &syntax):
			// What a quote in the wrong place spoils ends where nobody knows.
			problem := Problem{Line: syntax.StartLine, Text: quoteProblem(syntax.Err)}
			if syntax.Line == syntax.StartLine {
				problem.Column = syntax.Column
			}
			p.problem(problem)
			return
		case err != nil:
			p.problem(Problem{Text: err.Error()})
			return
		}
		line, _ := r.FieldPos(0)
		if columns == nil {
			if columns = p.header(record, r.FieldPos); columns == nil {
				return
			}
			continue
		}
		if len(record) != len(columns) {
			p.problem(Problem{
				Line: line,
				Text: fmt.Sprintf("has %d fields: the first line names %d columns", len(record), len(columns)),
			})
			continue
		}
		b := row{line: line}
		for i, value := range record {
			f := &b.fields[columns[i]]
			f.line, f.column = r.FieldPos(i)
			f.value = strings.TrimSpace(value)
		}
		p.add(&b)
	}
}

func quoteProblem(err error) string {
	switch {
	case errors.Is(err, csv.ErrBareQuote):
		return `has a quote within a field: put the field in quotes and write "" for each one inside`
	case errors.Is(err, csv.ErrQuote):
		return `has text after a closing quote, or no closing quote: a field in quotes ends with one, and has "" for each one inside`
	}
	return err.Error()
}

// header returns the keys that a first line names, nil if something is wrong
// with it.
func (p *fileParser) header(record []string, position func(int) (int, int)) []int {
	columns := make([]int, len(record))
	ok := true
	wrong := func(i int, text string) {
		ok = false
		line, column := position(i)
		p.problem(Problem{Line: line, Column: column, Key: "column", Value: strings.Clone(record[i]), Text: text})
	}
	for i, name := range record {
		name = strings.TrimSpace(name)
		key := slices.Index(keys[:], name)
		switch {
		case key < 0:
			wrong(i, "is unknown: the first line may name "+knownKeys())
		case slices.Contains(columns[:i], key):
			wrong(i, "is named twice")
		}
		columns[i] = key
	}
	for _, key := range [...]int{keyPrefix, keyUser} {
		if !slices.Contains(columns, key) {
			ok = false
			line, _ := position(0)
			p.problem(Problem{Line: line, Key: "column", Value: keys[key], Text: "is missing: the first line must name prefix and user"})
		}
	}
	if !ok {
		return nil
	}
	return columns
}
