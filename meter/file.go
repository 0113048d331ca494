package meter

import (
	"context"
	"fmt"
	"io"

	"tollbridge/meter/pcap"
)

// ReadFile meters the packets of a pcap or pcapng file: all that come whole, even
// if it then returns an error. Those match pcap.ErrFormat, io.ErrUnexpectedEOF, the
// reader's, ctx's or the Exporter's. Flows that have not ended at the end of the file
// stay, since the next file may go on with them; Flush exports them. After each
// piece read progress, if not nil, gets the octets read so far.
func (m *Meter) ReadFile(ctx context.Context, r io.Reader, progress func(octets int64)) error {
	f := pcap.NewReader(r)
	var ps [batch]Packet
	octets := int64(0)
	for {
		n, err := f.Read(ps[:])
		if read := f.Octets(); read != octets {
			octets = read
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("meter: read capture file: %w", err)
			}
			if progress != nil {
				progress(octets)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("meter: read capture file: %w", err)
		}
		if err := m.Packets(ctx, ps[:n]); err != nil {
			return err
		}
	}
}
