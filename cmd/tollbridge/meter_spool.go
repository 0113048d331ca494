package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"tollbridge/ipfix/ack"
	"tollbridge/ipfix/export"
	"tollbridge/ipfix/export/backlog"
)

// An exportSpool is what the command line says of acknowledged export.
type exportSpool struct {
	wanted     bool
	dir        string
	megabytes  int
	whenFull   string
	enterprise uint32
}

func (s *exportSpool) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&s.wanted, "acknowledged", false, "keep what is exported until the collector has it on its disk (tcp, tls, sctp)")
	f.StringVar(&s.dir, "spool", "", "directory for what is not acknowledged")
	f.IntVar(&s.megabytes, "spool-size", 1024, "how large it may become, in MiB")
	f.StringVar(&s.whenFull, "when-full", "block", "then: block (the kernel drops packets) or drop (the oldest messages; the collector is told)")
	f.Uint32Var(&s.enterprise, "enterprise", ack.Enterprise, "Private Enterprise Number of the elements of acknowledged export; the collector's delivery.vendorId")
}

// open makes cfg one of acknowledged export, if that is wanted, with a Backlog
// that the caller closes; nil if it is not. name is the collector's, where
// each has a Backlog of its own.
func (s *exportSpool) open(cfg *export.Config, name string, pull pullFunc) (*backlog.Backlog, error) {
	switch {
	case !s.wanted && s.dir != "":
		return nil, errors.New("meter: --spool is of no use without --acknowledged")
	case !s.wanted:
		return nil, nil
	case s.dir == "":
		return nil, errors.New("meter: --acknowledged needs a directory for what is not acknowledged: --spool DIR")
	case !cfg.Transport.Reliable():
		return nil, fmt.Errorf("meter: --acknowledged: %v brings no answers: use --transport tcp, tls or sctp", cfg.Transport)
	case s.megabytes < 1:
		return nil, fmt.Errorf("meter: --spool-size %d: is below 1", s.megabytes)
	}
	switch s.whenFull {
	case "block":
	case "drop":
		cfg.DropWhenFull = true
	default:
		return nil, fmt.Errorf("meter: --when-full %s: is neither block nor drop", s.whenFull)
	}
	b, err := backlog.Open(filepath.Join(s.dir, name), backlog.Config{MaxOctets: int64(s.megabytes) << 20, Log: cfg.Log})
	if errors.Is(err, backlog.ErrLocked) {
		return nil, fmt.Errorf("meter: --spool %s: %w: give each meter a directory of its own", s.dir, err)
	} else if err != nil {
		return nil, fmt.Errorf("meter: --spool: %w", err)
	}
	cfg.Acknowledged = &export.Acknowledged{Backlog: b, Enterprise: s.enterprise, Pull: pull}
	return b, nil
}
