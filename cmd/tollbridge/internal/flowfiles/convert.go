package flowfiles

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/spf13/cobra"

	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/ipfix"
	"tollbridge/ipfix/file"
)

func newConvert() *cobra.Command {
	var to, out string
	var cfg file.Config
	var session bool
	cmd := &cobra.Command{
		Use:   "convert FILE... -w OUT",
		Short: "Write the records of files as an IPFIX File or as lines of JSON",
		Long: `Convert writes one IPFIX File (RFC 5655), or one line of JSON for each record as
"ipfix dump -o json" prints it. IPFIX messages go into the File as they are,
NetFlow packets as IPFIX messages with the same records. Malformed messages are
reported and left out; the exit status is then 1.

A File is one transport session. Where two exporters of a capture have
different templates of one ID in one domain, give --port or one capture each.

--checksums adds a record with the MD5 sum to each message, --time-window one
with the earliest flow start and latest flow end to the file's end, and
--session one that says who exported to whom to its start.`,
		Example: `  tollbridge ipfix convert router.pcap -w router.ipfix
  tollbridge ipfix convert --checksums --time-window day1.ipfix day2.ipfix -w days.ipfix
  tollbridge ipfix convert --to-format json flows.ipfix -w -`,
		Args: cobra.MinimumNArgs(1),
	}
	ports := portsFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&to, "to-format", "ipfix", "what to write: ipfix or json")
	flags.StringVarP(&out, "write", "w", "", "file to write; - for standard output (required)")
	flags.BoolVar(&cfg.Checksums, "checksums", false, "add a checksum to each message")
	flags.BoolVar(&cfg.Window, "time-window", false, "add the time window of the flows at the end")
	flags.BoolVar(&session, "session", false, "add the details of a capture's transport session at the start")
	if err := cmd.MarkFlagRequired("write"); err != nil {
		panic(err)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if to != "ipfix" && to != "json" {
			return fmt.Errorf("ipfix convert: --to-format %s: is not one of ipfix, json", to)
		}
		in := newMessageInput(cmd, *ports)
		in.bar = out != "-" || !terminal.Is(cmd.OutOrStdout())
		write := func(w *bufio.Writer) error {
			if to == "json" {
				in.salvage = true // as dump
				d := dumper{w: w, format: listing.JSON}
				in.message = d.message
				return in.read(args)
			}
			c := converter{w: w, config: cfg, session: session, owners: make(map[owned]owner), encoders: make(map[uint32]*encoder)}
			in.message = c.message
			return errors.Join(in.read(args), c.close(cmd.ErrOrStderr()))
		}
		if err := writeFile(out, args, cmd.OutOrStdout(), write); err != nil {
			return err
		}
		return in.verdict()
	}
	return cmd
}

// writeFile writes a file, or standard output for "-", and removes the file
// again if that fails. It may be none of the inputs.
func writeFile(name string, inputs []string, stdout io.Writer, write func(*bufio.Writer) error) error {
	if name == "-" {
		w := bufio.NewWriter(stdout)
		return errors.Join(write(w), w.Flush())
	}
	if out, err := os.Stat(name); err == nil {
		for _, input := range inputs {
			if in, err := os.Stat(input); err == nil && os.SameFile(in, out) {
				return fmt.Errorf("ipfix convert: %s is read and written at once: choose another name to write", name)
			}
		}
	}
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("ipfix convert: %w", err)
	}
	w := bufio.NewWriterSize(f, 1<<18)
	if err := errors.Join(write(w), w.Flush(), f.Close()); err != nil {
		if info, statErr := os.Stat(name); statErr == nil && info.Mode().IsRegular() {
			return errors.Join(err, os.Remove(name))
		}
		return err
	}
	return nil
}

// A converter writes messages into one IPFIX File.
type converter struct {
	w       *bufio.Writer
	file    *file.Writer // nil before the first message
	config  file.Config
	session bool // write the details of the transport session

	owners   map[owned]owner
	encoders map[uint32]*encoder // of NetFlow packets, by domain
	skipped  int                 // Data Sets of NetFlow packets without Template
}

// An owned Template ID of a File belongs to one transport session.
type owned struct {
	domain uint32
	id     uint16
}

type owner struct {
	session     file.Session
	fingerprint uint64
}

// message adds a message to the File.
func (c *converter) message(m *message) error {
	var e *encoder
	var err error
	version := binary.BigEndian.Uint16(m.Octets)
	ok := m.decode(func(_ *ipfix.Session, s ipfix.DataSet) {
		if err != nil || version == ipfix.Version {
			return
		}
		if s.Template == nil {
			c.skipped++
			return
		}
		e = c.encoder(s.Header.Domain)
		err = c.reencode(m, e, s)
	})
	if !ok || err != nil {
		return err
	}
	if version != ipfix.Version {
		if e == nil {
			return nil
		}
		return c.flush(m, e, m.result.Header.ExportTime)
	}
	if err := c.claim(m, m.result.New); err != nil {
		return err
	}
	return c.write(m, m.Octets)
}

// claim notes whose Templates go into the File.
func (c *converter) claim(m *message, templates []*ipfix.Template) error {
	for _, t := range templates {
		key, mine := owned{t.Domain, t.ID}, owner{m.Session, t.Fingerprint()}
		if o, taken := c.owners[key]; taken && o.session != mine.session && o.fingerprint != mine.fingerprint {
			return fmt.Errorf("ipfix convert: %s: template %d of domain %d is another than that of %s: write them to a file each, with --port or from a capture each",
				m.where(), t.ID, t.Domain, exporterOf(o.session))
		}
		c.owners[key] = mine
	}
	return nil
}

func exporterOf(s file.Session) string {
	if s.Exporter.IsValid() {
		return s.Exporter.String()
	}
	return "the files before"
}

func (c *converter) write(m *message, msg []byte) error {
	if c.file == nil {
		if c.session && m.Session.Exporter.IsValid() {
			protocol := uint8(17)
			if m.Session.Transport == ipfix.TCP {
				protocol = 6
			}
			c.config.Details = file.Details{
				Exporter: m.Session.Exporter, Collector: m.Session.Collector,
				Protocol: protocol, Version: uint8(binary.BigEndian.Uint16(m.Octets)),
			}
		}
		w, err := file.NewWriter(c.w, c.config)
		if err != nil {
			return fmt.Errorf("ipfix convert: %s: %w", m.where(), err)
		}
		c.file = w
	}
	if err := c.file.Write(msg); err != nil {
		return fmt.Errorf("ipfix convert: %s: %w", m.where(), err)
	}
	return nil
}

// close ends the File.
func (c *converter) close(stderr io.Writer) error {
	if c.skipped > 0 {
		fmt.Fprintf(stderr, "tollbridge: NetFlow data sets left out for want of their template: %d\n", c.skipped)
	}
	if c.file == nil {
		return nil
	}
	if err := c.file.Close(); err != nil {
		return fmt.Errorf("ipfix convert: %w", err)
	}
	return nil
}

// An encoder makes IPFIX Messages of the records of NetFlow packets.
type encoder struct {
	*ipfix.Encoder
	ids  map[*ipfix.Template]*ipfix.Template // as the File has them
	next uint16
}

// maxEncoded bounds the Templates that an encoder remembers, which is also
// how many Template IDs it uses.
const maxEncoded = 4096

func (c *converter) encoder(domain uint32) *encoder {
	e := c.encoders[domain]
	if e == nil {
		e = &encoder{ipfix.NewEncoder(domain, 0), make(map[*ipfix.Template]*ipfix.Template), 256}
		c.encoders[domain] = e
	}
	return e
}

// reencode adds the records of a Data Set to the Message under construction.
func (c *converter) reencode(m *message, e *encoder, s ipfix.DataSet) error {
	for r, ok := s.Next(); ok; r, ok = s.Next() {
		err := e.add(s.Template, r)
		if errors.Is(err, ipfix.ErrFull) {
			if err := c.flush(m, e, s.Header.ExportTime); err != nil {
				return err
			}
			err = e.add(s.Template, r)
		}
		if err != nil {
			return fmt.Errorf("ipfix convert: %s: %w", m.where(), err)
		}
	}
	return nil
}

// add adds a record of NetFlow.
func (e *encoder) add(t *ipfix.Template, r ipfix.Record) error {
	own, err := e.template(t)
	if err != nil {
		return err
	}
	return e.AppendRecord(own, r.Bytes())
}

// template returns the File's Template for one of NetFlow, which it adds to the
// Message if it is new. IDs are the encoder's own, since those of several
// exporters may contradict.
func (e *encoder) template(t *ipfix.Template) (*ipfix.Template, error) {
	if known := e.ids[t]; known != nil {
		return known, nil
	}
	if len(e.ids) == maxEncoded {
		return nil, fmt.Errorf("more than %d templates in domain %d", maxEncoded, t.Domain)
	}
	var own *ipfix.Template
	var err error
	if t.Scope > 0 {
		own, err = ipfix.NewOptionsTemplate(e.next, t.Scope, t.Fields...)
	} else {
		own, err = ipfix.NewTemplate(e.next, t.Fields...)
	}
	if err != nil {
		return nil, err
	}
	if err := e.AddTemplate(own); err != nil {
		return nil, err
	}
	e.next = min(e.next+1, math.MaxUint16)
	e.ids[t] = own
	return own, nil
}

// flush writes the Message under construction.
func (c *converter) flush(m *message, e *encoder, exportTime uint32) error {
	msg := e.Flush(exportTime)
	if msg == nil {
		return nil
	}
	return c.write(m, msg)
}
