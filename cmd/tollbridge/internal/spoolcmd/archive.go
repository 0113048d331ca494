package spoolcmd

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/spool/archive"
)

func newArchive(where *state.Flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "archive",
		Short: "Look at the archive: what it holds, and whether it is as it was written",
		Long: `The archive (archive.dir in the configuration) keeps settled accounting records
as JSON Lines and CSV, and the journal: each Transport Session's Messages as an
IPFIX File (RFC 5655), everything else as JSON Lines. All files are compressed
with zstd. A manifest chains them by SHA-256.`,
	}
	cmd.AddCommand(newArchiveList(where), newArchiveVerify(where))
	return cmd
}

// archiveOf returns the directory of the archive that args name, or that of -c.
func archiveOf(where *state.Flags, args []string) (string, error) {
	dir := ""
	if len(args) > 0 {
		dir = args[0]
	} else if where.Config != "" {
		c, err := config.Load(where.Config)
		if err != nil {
			return "", err
		}
		dir = c.Archive.Dir
	}
	if dir == "" {
		return "", errors.New("no archive is named: give its directory, or a configuration that has archive.dir with -c FILE")
	}
	if !archive.Is(dir) {
		return "", fmt.Errorf("%s is no archive: it has no manifest", dir)
	}
	return dir, nil
}

func newArchiveList(where *state.Flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls [DIR]",
		Short: "List the segments of an archive whose files are there",
		Example: `  tollbridge spool archive ls -c /etc/tollbridge.yaml
  tollbridge spool archive ls /var/lib/tollbridge/archive`,
		Args: cobra.MaximumNArgs(1),
	}
	out := listing.FormatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := archiveOf(where, args)
		if err != nil {
			return err
		}
		segments, _, err := archive.Read(dir)
		if err != nil {
			return err
		}
		kept := archive.Kept(segments)
		t := listing.Table{Value: kept, Columns: []string{"number", "kind", "written", "records", "octets", "first", "last", "files", "file_octets"}}
		for _, s := range kept {
			var n int64
			for _, f := range s.Files {
				n += f.Octets
			}
			first, last := s.First, s.Last
			if len(s.IDs) > 0 {
				first, last = s.IDs[0].First, s.IDs[len(s.IDs)-1].Last
			}
			t.Add(s.Number, s.Kind, s.Written.Format(time.RFC3339), s.Records, s.Octets, first, last, len(s.Files), n)
		}
		return t.Print(cmd.OutOrStdout(), *out)
	}
	return cmd
}

func newArchiveVerify(where *state.Flags) *cobra.Command {
	return &cobra.Command{
		Use:   "verify [DIR]",
		Short: "Check that no file of an archive was removed, reordered or changed",
		Long: `Verify follows the manifest's chain and reads every file. With --data or -c it
also compares the chain's end with what the spool knows, which shows whether
lines were cut off. The exit status is 1 when something is wrong.`,
		Example: `  tollbridge spool archive verify -c /etc/tollbridge.yaml
  tollbridge spool archive verify /mnt/backup/archive`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := archiveOf(where, args)
			if err != nil {
				return err
			}
			head := ""
			if where.Data != "" || where.Config != "" {
				s, err := where.Open()
				if err != nil {
					return err
				}
				defer s.Close()
				if head, err = s.ArchiveHead(cmd.Context()); err != nil {
					return err
				}
			}
			segments, problems, err := archive.Verify(dir, head)
			if err != nil {
				return err
			}
			for _, p := range problems {
				fmt.Fprintf(cmd.ErrOrStderr(), "tollbridge: %s\n", p)
			}
			if len(problems) > 0 {
				return terminal.ErrTold
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d segments are as they were written\n", len(archive.Kept(segments)))
			return nil
		},
	}
}
