package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tollbridge/asm/users"
)

// Nobody's name is in a log line above Debug.
func TestWarningsOfBindingsNameNobody(t *testing.T) {
	name := filepath.Join(t.TempDir(), "users.csv")
	content := "prefix,user,from\n192.0.2.1,alice,2026-01-01T00:00:00Z\n192.0.2.1,bob,2026-02-01T00:00:00Z\n"
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := users.ParseFile(name)
	if err != nil || len(f.Warnings) == 0 {
		t.Fatalf("warnings %v, error %v", f.Warnings, err)
	}
	var log bytes.Buffer
	logWarnings(slog.New(slog.NewTextHandler(&log, nil)), f)
	if got := log.String(); !strings.Contains(got, "warnings=1") || strings.Contains(got, "alice") || strings.Contains(got, "bob") {
		t.Errorf("logged %s", got)
	}
}
