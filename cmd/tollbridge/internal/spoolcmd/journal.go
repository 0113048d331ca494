package spoolcmd

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/cmd/tollbridge/internal/entry"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/state"
)

func newJournal(where *state.Flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "journal",
		Short: "Look at the journal: what came, as it came",
	}
	cmd.AddCommand(newJournalShow(where))
	return cmd
}

func newJournalShow(where *state.Flags) *cobra.Command {
	var dir, raw string
	var dump bool
	cmd := &cobra.Command{
		Use:   "show POSITION",
		Short: "Show the journal entry at a position: of a Message its Sets, records and values",
		Long: `Show prints what the journal has at a position, such as one that "audit record"
or "audit --duplicates" names: when it came and from whom, and of a Message its
header, its Sets, and each record's elements by name, read with the Templates
that held when it came.

A position that was trimmed from the journal (spool.keepJournal) is looked for
in the archive, that of the configuration or of --archive.`,
		Example: `  tollbridge audit record 17
  tollbridge spool journal show 4711
  tollbridge spool journal show 4711 -c tollbridge.yaml -o json | jq '.messages[].sets[].records'
  tollbridge spool journal show 4711 --raw message.ipfix && tollbridge ipfix dump message.ipfix
  tollbridge spool journal show 4711 --hex`,
		Args: cobra.ExactArgs(1),
	}
	out := listing.FormatFlag(cmd)
	cmd.Flags().StringVar(&dir, "archive", "", "archive to look in for what was trimmed (default that of the configuration)")
	cmd.Flags().StringVar(&raw, "raw", "", `write the entry's octets to this file and print nothing; "-" is standard output`)
	cmd.Flags().BoolVar(&dump, "hex", false, "print the entry's octets in hexadecimal")
	cmd.MarkFlagsMutuallyExclusive("raw", "hex", "output")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		position, err := strconv.ParseUint(args[0], 10, 63)
		if err != nil || position == 0 {
			return fmt.Errorf("%q is not a position: give a number that \"audit record\" names, from 1", args[0])
		}
		if dir == "" && where.Config != "" {
			c, err := config.Load(where.Config)
			if err != nil {
				return err
			}
			dir = c.Archive.Dir
		}
		s, err := where.Open()
		if err != nil {
			return err
		}
		defer s.Close()
		v, octets, err := entry.Show(cmd.Context(), s, dir, position)
		switch {
		case err != nil:
			return err
		case dump:
			_, err = io.WriteString(cmd.OutOrStdout(), hex.Dump(octets))
			return err
		case raw == "-":
			_, err = cmd.OutOrStdout().Write(octets)
			return err
		case raw != "":
			return os.WriteFile(raw, octets, 0o600)
		}
		t := v.Table()
		return t.Print(cmd.OutOrStdout(), *out)
	}
	return cmd
}
