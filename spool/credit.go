package spool

import (
	"context"
	"database/sql"
	"path/filepath"

	"tollbridge/asm/acct"
)

// A Credit is what credit control must remember: how far it has followed the
// outbox, and a state per session, whose encoding is its own. Methods are safe
// for use by any goroutines.
type Credit struct{ database }

func creditFile(dir string) string { return filepath.Join(dir, "credit.db") }

// OpenCredit opens the state in dir, which must exist, making the file if
// there is none.
func OpenCredit(dir string) (*Credit, error) {
	return soleOpener().credit(dir)
}

func (o *opener) credit(dir string) (*Credit, error) {
	d, _, err := o.openDatabase(creditFile(dir), creditPage, creditSchema)
	if err != nil {
		return nil, err
	}
	return &Credit{d}, nil
}

// OpenCreditReadOnly opens the state in dir for looking at it, beside a daemon
// or without one. Save returns ErrReadOnly.
func OpenCreditReadOnly(dir string) (*Credit, error) {
	d, err := openDatabaseReadOnly(creditFile(dir), creditSchema)
	if err != nil {
		return nil, err
	}
	return &Credit{d}, nil
}

// Load returns the ID of the latest record followed, and visits each state.
func (c *Credit) Load(ctx context.Context, visit func(key string, value []byte) error) (after uint64, err error) {
	tx, err := c.r.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return 0, doing(explain(c.file, err), "load credit")
	}
	defer tx.Rollback()
	if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(value), 0) FROM meta WHERE name = ?`, metaFollowed).Scan(&after); err != nil {
		return 0, doing(explain(c.file, err), "load credit")
	}
	rows, err := tx.QueryContext(ctx, `SELECT key, state FROM session ORDER BY key`)
	if err != nil {
		return 0, doing(explain(c.file, err), "load credit")
	}
	err = each(rows, func(rows *sql.Rows) error {
		var key string
		var value []byte
		if err := rows.Scan(&key, &value); err != nil {
			return err
		}
		return visit(key, value)
	})
	if err != nil {
		return 0, doing(explain(c.file, err), "load credit")
	}
	return after, nil
}

// metaFollowed is the ID of the latest record that was followed.
const metaFollowed = "followed"

// Save stores states by their keys, a nil value deleting one, together with
// after, durably before it returns. Kinds are not looked at.
func (c *Credit) Save(ctx context.Context, after uint64, states []acct.State) error {
	if c.w == nil {
		return ErrReadOnly
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := c.w.transact(func() error {
		for _, s := range states {
			if s.Value == nil {
				if err := c.w.exec(`DELETE FROM session WHERE key = ?`, s.Key); err != nil {
					return err
				}
				continue
			}
			if err := c.w.exec(`INSERT INTO session (key, state) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state`, s.Key, s.Value); err != nil {
				return err
			}
		}
		return c.w.exec(`INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, metaFollowed, int64(after))
	})
	if err != nil {
		return doing(err, "save credit")
	}
	return nil
}

// Cut returns records of the outbox with IDs above after, whatever has become
// of them, in order of ID and at most max: for those that follow what is
// accounted.
func (s *Spool) Cut(ctx context.Context, after uint64, max int) ([]acct.Delivery, error) {
	list, err := s.List(ctx, Filter{After: after, Limit: max})
	if err != nil {
		return nil, err
	}
	out := make([]acct.Delivery, len(list))
	for i, l := range list {
		out[i] = acct.Delivery{ID: l.ID, Record: l.Record}
	}
	return out, nil
}
