package listing

import (
	"errors"
	"strconv"

	"github.com/spf13/cobra"
)

// errLimit refuses a limit that could only be a slip.
var errLimit = errors.New("give a number of rows, or 0 for all")

// A limit is how many rows a listing has at the most; 0 for all.
type limit int

// AddPage adds --after and --limit to a listing of what has ascending IDs.
func AddPage(cmd *cobra.Command, what string, after *uint64, n *int) {
	cmd.Flags().Uint64Var(after, "after", 0, "only "+what+" with an ID above this")
	AddLimit(cmd, n)
}

// AddLimit adds --limit to a command.
func AddLimit(cmd *cobra.Command, n *int) {
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
