package export_test

import (
	"io"
	"net"
	"testing"

	"tollbridge/ipfix"
	"tollbridge/ipfix/export"
)

// BenchmarkExport exports records of 57 octets to a peer that discards them.
func BenchmarkExport(b *testing.B) {
	t := template(256, ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8}, ipfix.FieldSpecifier{ID: ipfix.InterfaceName, Length: 49})
	record := make([]byte, 57)
	for _, transport := range []ipfix.Transport{ipfix.TCP, ipfix.UDP} {
		b.Run(transport.String(), func(b *testing.B) {
			var address net.Addr
			if transport == ipfix.TCP {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				defer ln.Close()
				go func() {
					conn, err := ln.Accept()
					if err == nil {
						io.Copy(io.Discard, conn)
						conn.Close()
					}
				}()
				address = ln.Addr()
			} else {
				conn, err := net.ListenPacket("udp", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close() // full soon, and what comes then costs nothing
				address = conn.LocalAddr()
			}
			p, err := export.New(export.Config{Transport: transport, Address: address.String()})
			if err != nil {
				b.Fatal(err)
			}
			go p.Run(b.Context())
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Export(ctx, t, record); err != nil {
					b.Fatal(err)
				}
			}
			if err := p.Close(ctx); err != nil {
				b.Fatal(err)
			}
		})
	}
}
