// Package state finds the state directory that a command looks at.
package state

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

// Flags say where the state directory is.
type Flags struct {
	Data   string // --data; "" where it is not given
	Config string // -c; likewise
}

// AddFlags adds --data and -c to a command that looks at the state.
func AddFlags(cmd *cobra.Command) *Flags {
	var f Flags
	cmd.PersistentFlags().StringVar(&f.Data, "data", "", "state directory (default that of the configuration)")
	cmd.PersistentFlags().StringVarP(&f.Config, "config", "c", "", "configuration file that names the state directory")
	return &f
}

// Dir returns the state directory: --data, or that of -c, or the default.
func (f *Flags) Dir() (string, error) {
	if f.Data != "" {
		return f.Data, nil
	}
	if f.Config == "" {
		return config.Default().Data, nil
	}
	c, err := config.Load(f.Config)
	return c.Data, err
}

// Existing is Dir for a command that makes none.
func (f *Flags) Existing() (string, error) {
	dir, err := f.Dir()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s does not exist: name the state directory with --data DIR or -c FILE", dir)
	}
	return dir, nil
}

// Open opens the spool for looking at it, whether or not a daemon has it.
func (f *Flags) Open() (*spool.Spool, error) {
	dir, err := f.Existing()
	if err != nil {
		return nil, err
	}
	return spool.OpenReadOnly(dir)
}

// List makes cmd print, in a format of the user's choice, what show finds in
// the spool.
func (f *Flags) List(cmd *cobra.Command, show func(context.Context, *spool.Spool) (listing.Table, error)) *cobra.Command {
	out := listing.FormatFlag(cmd)
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := f.Open()
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
