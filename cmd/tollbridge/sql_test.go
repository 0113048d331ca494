package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollbridge/asm/users"
	"tollbridge/internal/pgtest"
)

// TestSQL has PostgreSQL tell whose addresses are whose. Then the database goes
// and the daemon starts anew: what it was told counts on, and each user is
// billed what tshark counted.
func TestSQL(t *testing.T) {
	t.Parallel()
	db := pgtest.Start(t)
	list, err := users.ParseFile(writeUsers(t))
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, b := range list.Bindings {
		rows = append(rows, fmt.Sprintf("('%s', '%s', '%s', '2026-11-22T01:59:00Z')", b.Prefix, b.User, b.From.Format(time.RFC3339)))
	}
	db.Exec(t, "CREATE TABLE subscriber (address inet, login text, since timestamptz, until timestamptz); INSERT INTO subscriber VALUES "+strings.Join(rows, ","))
	s := setup{
		data: filepath.Join(t.TempDir(), "state"), tcp: "127.0.0.1:0", server: "127.0.0.1:0",
		sources: fmt.Sprintf(`sql: [{name: crm, connect: %q, query: 'SELECT address AS prefix, login AS "user", since AS "from", until FROM subscriber'}]`, db.Connect("tollbridge")),
	}
	d := start(t, s)
	d.waitMetric(`sql_bindings{database="crm"}`, func(n float64) bool { return int(n) == len(list.Bindings) })
	d.stop()

	db.Stop(t)
	d = start(t, s)
	d.waitMetric(`sql_failing{database="crm"}`, func(n float64) bool { return n == 1 })
	capture, _ := files(t, t.TempDir())
	billCapture(t, d, capture)
	d.stop()
}
