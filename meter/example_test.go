package meter_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net/netip"
	"time"

	"tollbridge/cmd/tollbridge/demodata"
	"tollbridge/ipfix"
	"tollbridge/meter"
)

// downloads adds up what one address received. Any type with an Export method
// will do; an export.Process sends the records to a Collecting Process.
type downloads struct {
	to     netip.Addr
	octets uint64
}

func (d *downloads) Export(_ context.Context, t *ipfix.Template, octets []byte) error {
	if t.ID != meter.TemplateIPv4 {
		return nil
	}
	r, err := t.Record(octets)
	if err != nil {
		return err
	}
	destination, _ := t.Accessor(0, ipfix.DestinationIPv4Address)
	count, _ := t.Accessor(0, ipfix.OctetDeltaCount)
	if destination.Addr(r) == d.to {
		d.octets += count.Uint64(r)
	}
	return nil
}

// A meter in a program of one's own: flows of a capture file, reported each second.
func Example() {
	alice := &downloads{to: netip.MustParseAddr("192.0.2.11")}
	m, err := meter.New(meter.Config{Exporter: alice, ActiveTimeout: time.Second})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := m.ReadFile(ctx, bytes.NewReader(demodata.Capture), nil); err != nil {
		log.Fatal(err)
	}
	if err := m.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Stats().Metered, "packets of IP;", alice.octets, "octets to alice over IPv4")
	// Output: 7386 packets of IP; 2523958 octets to alice over IPv4
}
