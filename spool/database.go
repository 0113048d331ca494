package spool

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-sqlite3"
)

// A connector opens connections to one database file with this package's
// settings, whoever opens them.
type connector struct {
	file    string
	query   string // of the file's URI: mode=rwc, mode=ro, immutable=1
	pragmas []string
}

// Page sizes.
const (
	statePage  = 4 << 10
	cdrPage    = 4 << 10
	creditPage = 4 << 10
)

// A database waits this long for another process's lock. Readers never take
// one that a writer waits for (WAL), so only a foreign program can be met.
const busyTimeout = 3 * time.Second

func newWriter(file string, pageSize int) connector {
	return connector{file, "mode=rwc", []string{
		fmt.Sprintf("PRAGMA busy_timeout = %d", busyTimeout.Milliseconds()),
		fmt.Sprintf("PRAGMA page_size = %d", pageSize), // for a new file only
		"PRAGMA journal_mode = WAL",
		"PRAGMA synchronous = FULL", // the WAL is synced at every COMMIT
		// The WAL is copied into the database every 16 MiB: long enough that
		// pages written often are copied once, short enough that the copy
		// does not hold up a commit for long.
		fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", 16<<20/pageSize),
		fmt.Sprintf("PRAGMA journal_size_limit = %d", 64<<20),
		"PRAGMA cache_size = -32768",
		"PRAGMA temp_store = MEMORY",
	}}
}

func newReader(file string, immutable bool) connector {
	query := "mode=ro"
	if immutable {
		query = "mode=ro&immutable=1"
	}
	return connector{file, query, []string{
		fmt.Sprintf("PRAGMA busy_timeout = %d", busyTimeout.Milliseconds()),
		"PRAGMA temp_store = MEMORY",
	}}
}

// newSalvaged is of a damaged database, to be read, and its log to be merged.
func newSalvaged(file string) connector {
	c := newReader(file, false)
	c.query = "mode=rw"
	return c
}

func (c connector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }

func (c connector) Connect(context.Context) (driver.Conn, error) {
	uri := url.URL{Scheme: "file", Opaque: (&url.URL{Path: c.file}).EscapedPath(), RawQuery: c.query}
	drv := sqlite3.SQLiteDriver{ConnectHook: func(conn *sqlite3.SQLiteConn) error {
		for _, p := range c.pragmas {
			if _, err := conn.Exec(p, nil); err != nil {
				return err
			}
		}
		return nil
	}}
	return drv.Open(uri.String())
}

// A writer is the one connection that writes to a database. Its methods want
// mu held, but for those that say otherwise.
//
// Statements run to their end: a context is looked at between transactions,
// never in the middle of one.
type writer struct {
	file string
	log  *slog.Logger
	mu   sync.Mutex
	db   *sql.DB
	conn *sql.Conn
	stmt map[string]*sql.Stmt

	fence *fence // what every transaction checks; nil without a lease
	heart *heart // beats by way of it; nil where nothing does

	octets atomic.Int64 // of outbox pages; read without mu
	grown  int64        // by how much in the transaction that runs
}

// lost says that part of the database is damaged and left out.
func (w *writer) lost(what string, damage error) {
	w.log.Error("part of the state is damaged and left out", "what", what, "error", damage)
}

// size returns the octets of the outbox's pages. It does not want mu.
func (w *writer) size() int64 { return w.octets.Load() }

// measure takes the result of query, asked of q, for the size: w may write meanwhile.
func (w *writer) measure(q querier, query string) error {
	var n int64
	if err := q.QueryRowContext(context.Background(), query).Scan(&n); err != nil {
		return explain(w.file, err)
	}
	w.octets.Store(n)
	return nil
}

// openWriter opens or creates file and brings its schema up to date. From then
// on the transactions of f alone count, unless it is nil.
func openWriter(file string, pageSize int, schema schema, f *fence) (*writer, error) {
	db := sql.OpenDB(newWriter(file, pageSize))
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(context.Background())
	if err != nil {
		db.Close()
		return nil, explain(file, err)
	}
	w := &writer{file: file, log: slog.New(slog.DiscardHandler), db: db, conn: conn, stmt: make(map[string]*sql.Stmt)}
	if err := migrate(w, schema, f); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// close takes mu itself, so it waits for a transaction to end.
func (w *writer) close() error {
	w.heart.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.stmt {
		s.Close()
	}
	clear(w.stmt)
	err := w.conn.Close()
	if e := w.db.Close(); err == nil {
		err = e
	}
	if errors.Is(err, sql.ErrConnDone) {
		return nil // closed before
	}
	return explain(w.file, err)
}

// prepare returns the statement of query, prepared once.
func (w *writer) prepare(query string) (*sql.Stmt, error) {
	if s, ok := w.stmt[query]; ok {
		return s, nil
	}
	s, err := w.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	w.stmt[query] = s
	return s, nil
}

// exec runs one statement, whose text must be one of few.
func (w *writer) exec(query string, args ...any) error {
	s, err := w.prepare(query)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(context.Background(), args...)
	return err
}

// query calls scan for every row.
func (w *writer) query(query string, scan func(*sql.Rows) error, args ...any) error {
	s, err := w.prepare(query)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(context.Background(), args...)
	if err != nil {
		return err
	}
	return each(rows, scan)
}

// A rowsQuerier is a connection, a pool of them, or a transaction.
type rowsQuerier interface {
	querier
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// each calls scan for every row and closes rows.
func each(rows *sql.Rows, scan func(*sql.Rows) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// transact takes mu and runs f in a transaction, which is durable when
// transact returns nil and has not happened when it returns an error.
func (w *writer) transact(f func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.transactLocked(f)
}

func (w *writer) transactLocked(f func() error) error {
	if err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return explain(w.file, err)
	}
	w.grown = 0
	var err error
	if w.fence != nil {
		err = w.fence.check(w)
	}
	if err == nil {
		err = f()
	}
	if err == nil {
		if err = w.exec("COMMIT"); err == nil {
			w.octets.Add(w.grown)
			return nil
		}
	}
	// SQLite rolls back by itself after some errors (a full disk among
	// them); then there is no transaction left to end, which is as well.
	_, _ = w.conn.ExecContext(context.Background(), "ROLLBACK")
	return explain(w.file, err)
}

// notNil returns b, or an empty slice for nil, which SQLite would take for
// NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// rowsPerStatement of a multi-row INSERT: beyond it nothing is gained.
const rowsPerStatement = 50

// An inserter gathers rows into multi-row INSERT statements.
type inserter struct {
	w    *writer
	head string // "INSERT INTO t VALUES "
	row  string // "(?,?)"
	tail string // " ON CONFLICT ..."
	cols int
	args []any
}

func (w *writer) inserter(head string, cols int, tail string) *inserter {
	row := "(" + strings.Repeat("?,", cols-1) + "?)"
	return &inserter{w: w, head: head + " ", row: row, tail: " " + tail, cols: cols, args: make([]any, 0, cols*rowsPerStatement)}
}

func (i *inserter) add(args ...any) error {
	i.args = append(i.args, args...)
	if len(i.args) < i.cols*rowsPerStatement {
		return nil
	}
	return i.flush()
}

// flush writes what is gathered. Numbers of rows short of a full statement
// are cut into powers of two, so that few statements are prepared.
func (i *inserter) flush() error {
	args := i.args
	for len(args) > 0 {
		n := len(args) / i.cols
		if n < rowsPerStatement {
			p := 1
			for p*2 <= n {
				p *= 2
			}
			n = p
		} else {
			n = rowsPerStatement
		}
		q := i.head + "VALUES " + strings.Repeat(i.row+",", n-1) + i.row + i.tail
		if err := i.w.exec(q, args[:n*i.cols]...); err != nil {
			return err
		}
		args = args[n*i.cols:]
	}
	clear(i.args)
	i.args = i.args[:0]
	return nil
}

// openReader opens file for reading beside a writer, in this process or
// another, or without any.
func openReader(file string, schema schema) (*sql.DB, error) {
	if _, err := os.Stat(file); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &fileError{file: file, advice: schema.absent(), err: err}
		}
		return nil, explain(file, err)
	}
	db := sql.OpenDB(newReader(file, false))
	err := known(db, file, schema)
	if err != nil && standsAlone(file) && !errors.Is(err, ErrNewer) && !errors.Is(err, ErrNotDatabase) {
		// Without a WAL the file stands for itself, but SQLite wants to make
		// one and may not write in the directory. Nobody else does either:
		// a daemon keeps its WAL as long as it runs.
		db.Close()
		db = sql.OpenDB(newReader(file, true))
		err = known(db, file, schema)
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	db.SetMaxOpenConns(4)
	return db, nil
}

// standsAlone reports whether nothing beside file belongs to its content: no WAL,
// and no rollback journal, which only the making of a database leaves.
func standsAlone(file string) bool {
	wal, err := os.Stat(file + "-wal")
	if err == nil && wal.Size() > 0 {
		return false
	}
	_, err = os.Stat(file + "-journal")
	return errors.Is(err, fs.ErrNotExist)
}

// A database is one beside the spool's own, for writing or for looking at.
// Nothing of it is kept in memory.
type database struct {
	file string
	w    *writer // nil when read only
	r    *sql.DB
}

// openDatabase opens file for writing, making it if there is none. Salvaged is
// what was saved if it was damaged, nil if it was whole.
func (o *opener) openDatabase(file string, pageSize int, schema schema) (d database, salvaged *Salvage, err error) {
	w, r, salvaged, err := o.both(file, pageSize, schema)
	return database{file, w, r}, salvaged, err
}

// openDatabaseReadOnly opens file for looking at it, beside a daemon or without
// one.
func openDatabaseReadOnly(file string, schema schema) (database, error) {
	r, err := openReader(file, schema)
	return database{file: file, r: r}, err
}

// Close waits for a commit and closes the database.
func (d *database) Close() error {
	err := d.r.Close()
	if d.w != nil {
		err = errors.Join(err, d.w.close())
	}
	return err
}
