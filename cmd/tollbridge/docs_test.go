package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocsNameTestsThatExist looks up each test that a page of docs gives as
// the proof of a sentence, written `package.TestName`; cmd is this package.
func TestDocsNameTestsThatExist(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../../docs/*.md", "../../docs/adr/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no pages %s (%v)", pattern, err)
		}
		pages = append(pages, found...)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range namedTest.FindAllStringSubmatch(string(text), -1) {
			dir := m[1]
			if dir == "cmd" {
				dir = "cmd/tollbridge"
			}
			if !hasTest(t, filepath.Join("../..", dir), m[2]) {
				t.Errorf("%s names %s.%s, which is not there", filepath.Base(page), m[1], m[2])
			}
		}
	}
}

var namedTest = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)\\w+)`")

// TestEveryRowOfReliabilityIsShown has each requirement of RFC 2975 in
// docs/reliability.md name a test, or measurements.
func TestEveryRowOfReliabilityIsShown(t *testing.T) {
	text, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	column, rows := -1, 0 // of "shown by" in the table at hand; -1 outside
	for n, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "|") {
			column = -1
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if column < 0 {
			column = slices.IndexFunc(cells, func(c string) bool { return strings.TrimSpace(c) == "shown by" })
			if column < 0 {
				t.Fatalf("line %d: a table without a column \"shown by\"", n+1)
			}
			continue
		}
		if strings.HasPrefix(line, "| --- |") {
			continue
		}
		rows++
		if shown := cells[column]; !namedTest.MatchString(shown) && !strings.Contains(shown, "(performance.md)") {
			t.Errorf("line %d: nothing shows %q", n+1, strings.TrimSpace(cells[0]))
		}
	}
	if rows < 30 {
		t.Errorf("%d rows", rows)
	}
}

// TestEveryRowOfRFC7011IsShown has each row of docs/rfc7011.md name a test, and
// each section of RFC 7011 with a MUST in it have a row.
func TestEveryRowOfRFC7011IsShown(t *testing.T) {
	text, err := os.ReadFile("../../docs/rfc7011.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{} // sections
	var columns []string      // of the table at hand
	rows := 0
	for n, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "|") {
			columns = nil
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if columns == nil {
			for _, c := range cells {
				columns = append(columns, strings.TrimSpace(c))
			}
			continue
		}
		if strings.HasPrefix(line, "| --- |") || columns[len(columns)-1] != "Test" {
			continue
		}
		rows++
		if !namedTest.MatchString(cells[len(cells)-1]) {
			t.Errorf("line %d: nothing shows %q", n+1, strings.TrimSpace(cells[1]))
		}
		if columns[0] == "§" {
			for s := range strings.SplitSeq(cells[0], ",") {
				said[strings.TrimSpace(s)] = true
			}
		}
	}
	if rows < 100 {
		t.Errorf("%d rows", rows)
	}
	for _, section := range []string{
		"3.1", "3.2", "3.3.1", "3.3.2", "3.4.1", "3.4.2.1", "3.4.2.2", "4", "4.1", "4.2", "4.3", "4.4", "5.2",
		"6.1.1", "6.1.2", "6.1.3", "6.1.4", "6.1.6", "6.1.9", "6.2", "7", "8", "8.1", "8.2", "8.3", "8.4", "9", "9.1", "9.2", "9.3",
		"10", "10.1", "10.2.1", "10.2.2", "10.2.4", "10.3.2", "10.3.3", "10.4.1", "10.4.4", "11.1", "11.3", "11.4", "11.6", "11.7",
	} {
		if !said[section] {
			t.Errorf("Section %s has no row", section)
		}
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "func "+name+"(") {
			return true
		}
	}
	return false
}
