package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/config"
)

func newServe() *cobra.Command {
	var file, data string
	cmd := &cobra.Command{
		Use:   "serve [-c FILE]",
		Short: "Run the daemon: collect, account, deliver",
		Long: `Serve collects IPFIX, accounts for it and delivers the accounting records,
until it is told to stop by SIGTERM or SIGINT: it then works off what it has
read, makes a last checkpoint, and exits with status 0. A second signal ends
it at once; like a crash, that loses nothing.

With forward.to in the configuration it does not account but passes on what it
collects to a daemon that does (docs/adr/0006-several-collectors.md).

Without a configuration it collects on 127.0.0.1:4739, UDP and TCP, into
./tollbridge-data, and delivers to the embedded accounting application.`,
		Example: `  tollbridge serve
  tollbridge serve -c /etc/tollbridge.yaml`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file (see tollbridge.example.yaml)")
	cmd.Flags().StringVar(&data, "data", "", "state directory, in place of the configuration's")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c := config.Default()
		if file != "" {
			var err error
			if c, err = config.Load(file); err != nil {
				return err
			}
		}
		if data != "" {
			c.Data = data
		}
		if err := settings(c).Validate(); err != nil {
			return err
		}
		tuneMemory()
		log := newLog(cmd, c.Log)
		if len(c.Forward.To) > 0 {
			return forward(cmd.Context(), c, log)
		}
		b, err := takeTurn(cmd.Context(), c, log)
		if b == nil || err != nil {
			return err
		}
		defer b.Close()
		log.Info("started", "version", version, "data", c.Data)
		context.AfterFunc(cmd.Context(), func() { log.Info("stopping") })
		if err := b.Run(cmd.Context()); err != nil {
			return err
		}
		if err := b.Close(); err != nil {
			return err
		}
		log.Info("stopped")
		return nil
	}
	return cmd
}

// newLog returns the logger that the configuration asks for, on standard
// error.
func newLog(cmd *cobra.Command, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic("tollbridge: internal error: " + err.Error()) // config knows only levels
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), options))
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), options))
}
