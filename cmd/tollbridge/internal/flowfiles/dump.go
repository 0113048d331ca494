package flowfiles

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
)

func newDump() *cobra.Command {
	var stats bool
	cmd := &cobra.Command{
		Use:   "dump FILE...",
		Short: "Print the records in IPFIX Files, captures and raw payloads",
		Long: `Dump prints messages, sets, and each record's elements by name. With -o json it
prints one line for each record, with -o csv one for each value. --stats counts
instead.

A message that is malformed is reported, skipped whole, and makes the exit
status 1; reading goes on at the next one. With --stats it is counted, by cause.
Of a NetFlow 5 packet that counts more records than it has, those that are there
are shown.`,
		Example: `  tollbridge ipfix dump flows.ipfix
  tollbridge ipfix dump --stats -o json capture.pcap
  tollbridge ipfix dump templates.dat data.dat
  tollbridge ipfix dump -o json flows.ipfix | jq .record.octetDeltaCount`,
		Args: cobra.MinimumNArgs(1),
	}
	out := listing.FormatFlag(cmd)
	ports := portsFlag(cmd)
	cmd.Flags().BoolVar(&stats, "stats", false, "count messages, templates, records and errors")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if stats {
			counts, err := countMessages(cmd, args, *ports)
			if err != nil {
				return err
			}
			t := counts.table()
			return t.Print(cmd.OutOrStdout(), *out)
		}
		w := bufio.NewWriter(cmd.OutOrStdout())
		d := dumper{w: w, format: *out}
		in := newMessageInput(cmd, *ports)
		in.salvage = true
		in.bar = !terminal.Is(cmd.OutOrStdout())
		in.message = d.message
		d.header()
		err := in.read(args)
		if flushErr := w.Flush(); err == nil && flushErr != nil {
			err = fmt.Errorf("ipfix dump: %w", flushErr)
		}
		if err != nil {
			return err
		}
		return in.verdict()
	}
	return cmd
}

// countMessages counts what is in files.
func countMessages(cmd *cobra.Command, names []string, ports []uint16) (messageCounts, error) {
	counts := messageCounts{Errors: map[string]uint64{}}
	in := newMessageInput(cmd, ports)
	in.bar, in.salvage = true, true
	in.message = func(m *message) error {
		counts.add(m)
		return nil
	}
	in.fault = func(err error) {
		counts.Errors[faultCause(err)]++
		if errors.Is(err, io.ErrUnexpectedEOF) {
			counts.Messages++ // the one that is cut off
		}
	}
	err := in.read(names)
	in.mentionUnknown()
	return counts, err
}

// messageCounts are what "ipfix dump --stats" counts. Templates are Template
// Records as they stand in messages, repeated ones too.
type messageCounts struct {
	Messages         uint64            `json:"messages"`
	Templates        uint64            `json:"templates"`
	OptionsTemplates uint64            `json:"options_templates"`
	DataRecords      uint64            `json:"data_records"`
	OptionsRecords   uint64            `json:"options_records"`
	Withdrawals      uint64            `json:"withdrawals"`
	Errors           map[string]uint64 `json:"errors"`
}

func (c *messageCounts) add(m *message) {
	c.Messages++
	ok := m.decode(func(_ *ipfix.Session, s ipfix.DataSet) {
		switch {
		case s.Template == nil:
		case s.Template.Scope > 0:
			c.OptionsRecords += uint64(s.Records)
		default:
			c.DataRecords += uint64(s.Records)
		}
	})
	if !ok {
		return // a malformed message changes nothing (RFC 7011, Section 9.1)
	}
	for s := range file.Sets(m.Octets) {
		for _, r := range s.Records {
			switch {
			case r.Fields == 0:
				c.Withdrawals++
			case r.Options:
				c.OptionsTemplates++
			default:
				c.Templates++
			}
		}
	}
}

func (c *messageCounts) table() listing.Table {
	t := listing.Table{Columns: []string{"what", "count"}, Value: c}
	t.Add("messages", c.Messages)
	t.Add("templates", c.Templates)
	t.Add("options_templates", c.OptionsTemplates)
	t.Add("data_records", c.DataRecords)
	t.Add("options_records", c.OptionsRecords)
	t.Add("withdrawals", c.Withdrawals)
	for _, cause := range slices.Sorted(maps.Keys(c.Errors)) {
		t.Add("errors "+cause, c.Errors[cause])
	}
	return t
}
