package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/spool"
)

// stateFlags say where the state directory is.
type stateFlags struct{ data, config string }

// addStateFlags adds --data and -c to a command that looks at the state.
func addStateFlags(cmd *cobra.Command) *stateFlags {
	var f stateFlags
	cmd.PersistentFlags().StringVar(&f.data, "data", "", "state directory (default that of the configuration)")
	cmd.PersistentFlags().StringVarP(&f.config, "config", "c", "", "configuration file that names the state directory")
	return &f
}

// dir returns the state directory: --data, or that of -c, or the default.
func (f *stateFlags) dir() (string, error) {
	if f.data != "" {
		return f.data, nil
	}
	if f.config == "" {
		return config.Default().Data, nil
	}
	c, err := config.Load(f.config)
	return c.Data, err
}

// existing is dir for a command that makes none.
func (f *stateFlags) existing() (string, error) {
	dir, err := f.dir()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s does not exist: name the state directory with --data DIR or -c FILE", dir)
	}
	return dir, nil
}

// open opens the spool for looking at it, whether or not a daemon has it.
func (f *stateFlags) open() (*spool.Spool, error) {
	dir, err := f.existing()
	if err != nil {
		return nil, err
	}
	return spool.OpenReadOnly(dir)
}

// list makes cmd print, in a format of the user's choice, what show finds in
// the spool.
func (f *stateFlags) list(cmd *cobra.Command, show func(context.Context, *spool.Spool) (listing.Table, error)) *cobra.Command {
	out := listing.FormatFlag(cmd)
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := f.open()
		if err != nil {
			return err
		}
		defer s.Close()
		t, err := show(cmd.Context(), s)
		if err != nil {
			return err
		}
		return t.Print(cmd.OutOrStdout(), *out)
	}
	return cmd
}
