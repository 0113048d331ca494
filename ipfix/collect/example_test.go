package collect_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"tollbridge/ipfix"
	"tollbridge/ipfix/collect"
)

// printer is a Journal for people.
type printer struct{ stop func() }

func (printer) Open(_ time.Time, s collect.Session) (uint64, error) {
	fmt.Println("open", s.Transport, s.Exporter)
	return 1, nil
}

func (p printer) Message(_ time.Time, session uint64, data []byte) (uint64, error) {
	h, err := ipfix.ParseHeader(data)
	fmt.Println("message of domain", h.Domain, "with", len(data), "octets")
	p.stop()
	return session + 1, err
}

func (printer) Close(time.Time, uint64) error {
	fmt.Println("close")
	return nil
}

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	process, err := collect.New(collect.Config{Journal: printer{cancel}})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}

	exporter, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	exporter.Write(ipfix.Header{Length: ipfix.HeaderLength, Domain: 7}.Append(nil))
	exporter.Close()

	if err := process.ServeTCP(ctx, ln); err != nil {
		log.Fatal(err)
	}
	fmt.Println(process.Stats().Messages, "in all")
	// Output:
	// open tcp 127.0.0.1
	// message of domain 7 with 16 octets
	// close
	// 1 in all
}
