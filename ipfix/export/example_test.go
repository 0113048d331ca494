package export_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"

	"tollbridge/ipfix"
	"tollbridge/ipfix/export"
)

func Example() {
	ctx := context.Background()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	process, err := export.New(export.Config{Transport: ipfix.TCP, Address: ln.Addr().String(), Domain: 7})
	if err != nil {
		log.Fatal(err)
	}
	go process.Run(ctx)

	template, err := ipfix.NewTemplate(256,
		ipfix.FieldSpecifier{ID: ipfix.SourceIPv4Address, Length: 4},
		ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8})
	if err != nil {
		log.Fatal(err)
	}
	record, err := template.AppendRecord(nil, netip.MustParseAddr("192.0.2.12"), 120868)
	if err != nil {
		log.Fatal(err)
	}
	if err := process.Export(ctx, template, record); err != nil {
		log.Fatal(err)
	}

	collector, err := ln.Accept()
	if err != nil {
		log.Fatal(err)
	}
	closed := make(chan error)
	go func() { closed <- process.Close(ctx) }()
	messages, err := io.ReadAll(collector)
	if err != nil {
		log.Fatal(err)
	}
	collector.Close()

	fmt.Println(<-closed, process.Stats().Records, "record")
	fmt.Printf("templates %x\ndata %x\n", messages[16:32], messages[32+16:])
	// Output:
	// <nil> 1 record
	// templates 00020010010000020008000400010008
	// data 01000010c000020c000000000001d824
}
