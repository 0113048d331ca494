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
