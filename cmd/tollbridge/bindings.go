package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"tollbridge/asm/users"
)

// bindings are those of all users files, one source to the pipeline.
type bindings struct {
	journal journal
	log     *slog.Logger

	mu    sync.Mutex
	files []users.File
}

// put journals the bindings as they are now.
func (b *bindings) put() error {
	var all []users.Binding
	for _, f := range b.files {
		all = append(all, f.Bindings...)
	}
	return b.journal.users(time.Now(), "files", all)
}

// watch journals the bindings anew whenever file i changes. A file with errors
// changes nothing.
func (b *bindings) watch(ctx context.Context, i int, every time.Duration) error {
	var failed error
	err := users.Watch(ctx, b.files[i], every, func(f users.File, err error) {
		if err != nil {
			b.log.Error("users file can't be used; its bindings stay as they were", "error", err)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.files[i] = f
		b.log.Info("users file read", "file", f.Name, "bindings", len(f.Bindings))
		logWarnings(b.log, f)
		if err := b.put(); err != nil {
			failed = err
		}
	})
	if failed != nil || ctx.Err() != nil {
		return failed
	}
	return err
}

// logWarnings says that f has bindings that are doubtful. Which they are is
// for Debug, since it names users; "tollbridge check" prints it.
func logWarnings(log *slog.Logger, f users.File) {
	if len(f.Warnings) == 0 {
		return
	}
	log.Warn("users file has bindings that contradict or repeat others: tollbridge check lists them", "file", f.Name, "warnings", len(f.Warnings))
	for _, w := range f.Warnings {
		log.Debug("users file", "warning", w.Error())
	}
}
