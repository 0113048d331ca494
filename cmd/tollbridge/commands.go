package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"tollbridge/asm"
	"tollbridge/asm/acct"
	"tollbridge/asm/users"
	"tollbridge/cmd/tollbridge/internal/control"
)

// openCommands opens what commands ask the running daemon on.
func (b *bridge) openCommands() (err error) {
	if b.commands, err = control.Listen(context.Background(), b.cfg.Data); err != nil {
		return err
	}
	b.closers = append(b.closers, b.commands.Close)
	control.Handle(&b.control, control.Decide, b.decide)
	control.Handle(&b.control, control.Adjust, b.adjust)
	control.Handle(&b.control, control.Requeue, b.requeue)
	control.Handle(&b.control, control.Pull, b.pull)
	control.HandleUpload(&b.control, control.Import, b.importUsers)
	return nil
}

// decideTimeout bounds how long a command waits until the pipeline has carried
// it out, which is in the journal by then.
const decideTimeout = time.Minute

// decide puts a command into the journal, waits until the pipeline has carried
// it out, and returns what came of it.
func (b *bridge) decide(ctx context.Context, c asm.Command) (acct.Decision, error) {
	if err := c.Validate(); err != nil {
		return acct.Decision{}, err
	}
	data, err := c.AppendBinary(nil)
	if err != nil {
		return acct.Decision{}, err
	}
	position, err := b.journal.Append(acct.EntryCommand, time.Now().UnixNano(), 0, data)
	if err != nil {
		return acct.Decision{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()
	if err := errors.Join(b.spool.Journal().Wait(ctx, position), b.runner.Wait(ctx, position)); err != nil {
		return acct.Decision{}, fmt.Errorf("the command is in the journal at %d and will be carried out, but not yet: %w: see \"tollbridge spool decisions\" later", position, err)
	}
	d, ok, err := b.spool.Decision(ctx, position)
	if err == nil && !ok {
		err = fmt.Errorf("the pipeline could not carry out the command at %d of the journal: see the daemon's log", position)
	}
	return d, err
}

// requeue puts quarantined records back into the outbox and returns their new
// IDs.
func (b *bridge) requeue(ctx context.Context, ids []uint64) ([]uint64, error) {
	again, err := b.spool.Outbox().Requeue(ctx, ids)
	if err == nil {
		b.log.Info("records are requeued by an operator", "records", len(again))
	}
	return again, err
}

// importUsers journals a list of bindings that a command brings.
func (b *bridge) importUsers(ctx context.Context, r io.Reader, octets int64) (control.Imported, error) {
	list := make([]byte, octets)
	if _, err := io.ReadFull(r, list); err != nil {
		return control.Imported{}, fmt.Errorf("users import: %w", err)
	}
	source, _, err := users.CheckList(list)
	if err != nil {
		return control.Imported{}, err
	}
	if !strings.HasPrefix(source, control.ImportPrefix) {
		return control.Imported{}, fmt.Errorf("users import: source %q: its name must begin with %q", source, control.ImportPrefix)
	}
	position, err := b.journal.Append(acct.EntryUsers, time.Now().UnixNano(), 0, list)
	if err == nil {
		err = b.journal.Wait(ctx, position)
	}
	if err == nil {
		err = b.runner.Wait(ctx, position) // listings show it from now on
	}
	return control.Imported{Position: position}, err
}
