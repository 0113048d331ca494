package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tollbridge/asm"
	"tollbridge/cmd/tollbridge/internal/control"
	"tollbridge/ipfix/ack"
)

// pullTimeout bounds how long exporters, and the pipeline behind them, may
// take to bring what is in the flow caches now.
const pullTimeout = 30 * time.Second

// pull has the flow caches of all connected exporters that can be asked
// exported, and waits until that is in a checkpoint.
func (b *bridge) pull(ctx context.Context, r control.PullRequest) (control.PullResult, error) {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	if len(r.Of) > 0 || r.User == "" {
		return b.pullOf(ctx, r.Of)
	}
	asked, err := b.addresses(ctx, r.User)
	if err != nil {
		return control.PullResult{}, err
	}
	result, err := b.pullOf(ctx, asked)
	if err != nil || len(asked) == 0 {
		return result, err
	}
	// What the user got meanwhile was not asked for.
	now, err := b.addresses(ctx, r.User)
	if err != nil || len(now) > 0 && !slices.ContainsFunc(now, func(p netip.Prefix) bool { return !slices.Contains(asked, p) }) {
		return result, err
	}
	return b.pullOf(ctx, nil)
}

// errBehind says that something is in the journal and not in a checkpoint.
var errBehind = errors.New("the pipeline is behind, try again")

// addresses is asm.Addresses as of now.
func (b *bridge) addresses(ctx context.Context, user string) ([]netip.Prefix, error) {
	if err := b.runner.Wait(ctx, b.journal.Appended()); err != nil {
		return nil, fmt.Errorf("which addresses the user has is not known yet: %w", errBehind)
	}
	return asm.Addresses(ctx, b.spool, user)
}

// pullOf is pull of addresses, none for all.
func (b *bridge) pullOf(ctx context.Context, of []netip.Prefix) (control.PullResult, error) {
	if len(of) == 0 {
		of = []netip.Prefix{ack.All}
	}
	result := control.PullResult{Exporters: []control.PullExporter{}}
	position := uint64(0)
	for _, p := range b.collector.Pull(ctx, of) {
		e := control.PullExporter{Exporter: p.Exporter, Remote: p.Remote.String(), Time: p.Time}
		switch {
		case p.Err != nil:
			e.Problem = p.Err.Error()
		case p.Result == ack.Refused:
			e.Problem = "refuses"
		case p.Result == ack.Failed:
			e.Problem = "could not export its flow cache"
		default:
			if result.Exact.IsZero() || p.Time.Before(result.Exact) {
				result.Exact = p.Time
			}
			position = max(position, p.Position)
		}
		result.Exporters = append(result.Exporters, e)
	}
	if slices.ContainsFunc(result.Exporters, func(e control.PullExporter) bool { return e.Problem != "" }) {
		result.Exact = time.Time{} // what one of them still has is unknown
	}
	if err := b.runner.Wait(ctx, position); err != nil {
		return result, fmt.Errorf("what the exporters sent is not accounted yet: %w", errBehind)
	}
	return result, nil
}
