// Package sql takes user bindings from a PostgreSQL database: whatever rows a
// query gives, asked again from time to time or when the database says so.
package sql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tollbridge/asm/users"
)

// A Config says what to ask which database.
type Config struct {
	Name     string // for people; required
	Connect  string // a URL or keywords and values without a password; required
	Password []byte // "" leaves it to what PostgreSQL's own programs look at

	// Query gives the bindings, all of them: columns are those of a users
	// file. Required.
	Query string

	Interval time.Duration // between queries; 0 means 1m
	Channel  string        // each notification of it asks at once (LISTEN); "" for none
	Timeout  time.Duration // of a connection and a query; 0 means 1m
	Log      *slog.Logger  // nil discards
}

// A Source asks a database for bindings.
type Source struct {
	cfg     Config
	connect *pgx.ConnConfig

	mu      sync.Mutex
	stats   Stats
	problem string // of the latest failure
}

// Stats says how a Source gets on.
type Stats struct {
	Queries  uint64 // that gave bindings
	Failures uint64 // attempts that did not
	Bindings int    // of the latest answer
	At       time.Time
	Failing  bool // the latest attempt failed; bindings are those of the answer before
}

// New returns a Source that asks nothing yet: see Run.
func New(cfg Config) (*Source, error) {
	switch {
	case cfg.Name == "":
		return nil, errors.New("sql: Config.Name is required")
	case strings.TrimSpace(cfg.Query) == "":
		return nil, fmt.Errorf("sql: %s: Config.Query is required", cfg.Name)
	}
	connect, err := connection(cfg.Connect, cfg.Password)
	if err != nil {
		return nil, fmt.Errorf("sql: %s: connect: %w", cfg.Name, err)
	}
	if cfg.Interval == 0 {
		cfg.Interval = time.Minute
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	connect.ConnectTimeout = cfg.Timeout
	return &Source{cfg: cfg, connect: connect}, nil
}

// Stats returns a snapshot. Any goroutine may call it.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Name returns the source's name.
func (s *Source) Name() string { return s.cfg.Name }

// Bounds of the time before a lost database is tried again, and between two
// queries that notifications ask for.
const (
	retryMin = time.Second
	retryMax = 30 * time.Second
	rest     = 200 * time.Millisecond
)

// Run asks until ctx ends, and calls changed whenever the bindings are others
// than those that it was called with before. A database that can't be reached,
// and an answer that is wrong anywhere, change nothing: that is logged, and
// tried again. Only an error of changed is one of Run.
func (s *Source) Run(ctx context.Context, changed func(users.File) error) error {
	a := asking{Source: s, changed: changed}
	retry := retryMin
	for {
		asked := a.asked
		err := a.converse(ctx)
		if failed := (changeError{}); errors.As(err, &failed) {
			return failed.error
		}
		if ctx.Err() != nil {
			return nil
		}
		if a.asked > asked {
			retry = retryMin
			if errors.Is(err, errConnection) && sleep(ctx, rest) {
				continue // it was good until now
			}
		}
		s.failed(err)
		if !sleep(ctx, retry) {
			return nil
		}
		retry = min(2*retry, retryMax, max(s.cfg.Interval, retryMin))
	}
}

// errConnection matches what broke off a conversation that went well.
var errConnection = errors.New("connection lost")

// A changeError is one of Run's changed.
type changeError struct{ error }

// An asking is a Run.
type asking struct {
	*Source
	changed func(users.File) error
	asked   uint64 // answers so far
	digest  [32]byte
}

// converse connects and asks, again and again, until something fails.
func (a *asking) converse(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, a.connect)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		conn.Close(end) //nolint:errcheck // it is given up
	}()
	if a.cfg.Channel != "" {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{a.cfg.Channel}.Sanitize()); err != nil {
			return err
		}
	}
	for {
		if err := a.ask(ctx, conn); err != nil {
			return err
		}
		if err := a.wait(ctx, conn); err != nil {
			return fmt.Errorf("%w: %w", errConnection, err)
		}
		if conn.IsClosed() {
			return errConnection
		}
	}
}

// wait waits until it is time to ask again.
func (a *asking) wait(ctx context.Context, conn *pgx.Conn) error {
	if a.cfg.Channel == "" {
		sleep(ctx, a.cfg.Interval)
		return ctx.Err()
	}
	until, cancel := context.WithTimeout(ctx, a.cfg.Interval)
	defer cancel()
	if _, err := conn.WaitForNotification(until); err != nil && until.Err() == nil {
		return err
	}
	sleep(ctx, min(rest, a.cfg.Interval)) // one query for many notifications
	for {
		at, done := context.WithTimeout(ctx, 0)
		_, err := conn.WaitForNotification(at)
		done()
		if err != nil {
			return ctx.Err()
		}
	}
}

// ask asks once.
func (a *asking) ask(ctx context.Context, conn *pgx.Conn) error {
	limit, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	file, err := query(limit, conn, a.cfg)
	if err != nil {
		if conn.IsClosed() {
			err = fmt.Errorf("%w: %w", errConnection, err)
		}
		return err
	}
	a.succeeded(file)
	if a.asked++; a.asked > 1 && file.Digest == a.digest {
		return nil
	}
	a.digest = file.Digest
	if err := a.changed(file); err != nil {
		return changeError{err}
	}
	return nil
}

// query asks in a transaction that can't write.
func query(ctx context.Context, conn *pgx.Conn, cfg Config) (users.File, error) {
	name := "database " + cfg.Name
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return users.File{}, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	result, err := tx.Query(ctx, cfg.Query, pgx.QueryResultFormats{pgx.TextFormatCode})
	if err != nil {
		return users.File{}, err
	}
	defer result.Close()
	var columns []string
	for _, f := range result.FieldDescriptions() {
		if f.DataTypeOID == pgtype.TimestampOID || f.DataTypeOID == pgtype.DateOID {
			return users.File{}, users.Problem{
				File: name, Key: "column", Value: f.Name,
				Text: "has no time zone: make it a timestamptz, as with AT TIME ZONE 'UTC'",
			}
		}
		columns = append(columns, f.Name)
	}
	if len(columns) == 0 {
		result.Close() // for its error
		if err := result.Err(); err != nil {
			return users.File{}, err
		}
	}
	rows, err := users.NewRows(name, columns)
	if err != nil {
		return users.File{}, err
	}
	values := make([]string, len(columns))
	for result.Next() {
		for i, raw := range result.RawValues() {
			values[i] = string(raw)
			if result.FieldDescriptions()[i].DataTypeOID == pgtype.TimestamptzOID {
				values[i] = timestamp(result.FieldDescriptions()[i].Name, values[i])
			}
		}
		rows.Add(values)
	}
	if err := result.Err(); err != nil {
		return users.File{}, err
	}
	return rows.Result()
}

// timestamp returns a timestamptz of UTC as RFC 3339 has it. A beginning at
// -infinity and an end at infinity are for ever.
func timestamp(column, s string) string {
	if strings.EqualFold(column, "from") && s == "-infinity" || strings.EqualFold(column, "until") && s == "infinity" {
		return ""
	}
	day, clock, ok := strings.Cut(s, " ")
	if !ok {
		return s // NULL, or not to be read
	}
	return day + "T" + strings.Replace(clock, "+00", "Z", 1)
}

// failed notes that there is no answer, and says why unless that was said last.
func (s *Source) failed(err error) {
	s.mu.Lock()
	level := slog.LevelError
	if s.stats.Failing && s.problem == err.Error() {
		level = slog.LevelDebug
	}
	s.problem = err.Error()
	s.stats.Failing = true
	s.stats.Failures++
	s.mu.Unlock()
	s.cfg.Log.Log(context.Background(), level, "database can't be asked for users; its bindings stay as they were", "database", s.cfg.Name, "error", err)
}

func (s *Source) succeeded(f users.File) {
	s.mu.Lock()
	again := s.stats.Failing
	s.stats = Stats{Queries: s.stats.Queries + 1, Failures: s.stats.Failures, Bindings: len(f.Bindings), At: time.Now()}
	s.mu.Unlock()
	if again {
		s.cfg.Log.Info("database answers again", "database", s.cfg.Name, "bindings", len(f.Bindings))
	}
}

// sleep waits, and reports whether ctx is still good.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
