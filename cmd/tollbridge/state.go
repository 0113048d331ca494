package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/config"
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
func (f *stateFlags) list(cmd *cobra.Command, show func(context.Context, *spool.Spool) (table, error)) *cobra.Command {
	out := formatFlag(cmd)
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
		return t.print(cmd.OutOrStdout(), *out)
	}
	return cmd
}

// errLimit refuses a limit that could only be a slip.
var errLimit = errors.New("give a number of rows, or 0 for all")

// A limit is how many rows a listing has at the most; 0 for all.
type limit int

// addPage adds --after and --limit to a listing of what has ascending IDs.
func addPage(cmd *cobra.Command, what string, after *uint64, n *int) {
	cmd.Flags().Uint64Var(after, "after", 0, "only "+what+" with an ID above this")
	addLimit(cmd, n)
}

// addLimit adds --limit to a command.
func addLimit(cmd *cobra.Command, n *int) {
	*n = 1000
	cmd.Flags().Var((*limit)(n), "limit", "at most so many; 0 for all")
}

// String implements pflag.Value.
func (l *limit) String() string { return strconv.Itoa(int(*l)) }

// Type is the flag's type in help texts.
func (l *limit) Type() string { return "int" }

// Set refuses what is not a number, or below 0.
func (l *limit) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return errLimit
	}
	*l = limit(n)
	return nil
}
