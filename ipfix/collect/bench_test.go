package collect

import (
	"bytes"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tollbridge/ipfix"
)

// recordsPerMessage of 57 octets each, as an exporter fills an Ethernet frame.
const recordsPerMessage = 24

func fullMessage() []byte {
	const octets = 4 + recordsPerMessage*57
	b := ipfix.Header{Length: ipfix.HeaderLength + octets}.Append(nil)
	b = append(b, 1, 0, octets>>8, octets&0xff)
	return append(b, make([]byte, octets-4)...)
}

// A threadClock sums up the processor time that the calling goroutine uses
// between start and stop, in the kernel too. What loopback does to deliver is
// the sender's.
type threadClock struct {
	began, used time.Duration
}

func (c *threadClock) start() {
	runtime.LockOSThread()
	c.began = threadTime()
}

func (c *threadClock) stop() {
	c.used += threadTime() - c.began
	runtime.UnlockOSThread()
}

func threadTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// report gives processor seconds per million records of the Messages that
// were sent and received.
func (c *threadClock) report(b *testing.B, p *Process, sent int) {
	s := p.Stats()
	if s.Messages != uint64(sent) {
		b.Fatalf("%d messages of %d came, %d were dropped", s.Messages, sent, s.Dropped)
	}
	b.ReportMetric(c.used.Seconds()*1e6/float64(s.Messages*recordsPerMessage), "cpu-s/Mrecords")
}

func BenchmarkUDP(b *testing.B) {
	p := newProcess(b, Config{Journal: counting{}})
	conn := listenUDP(b, "127.0.0.1")
	s, err := newUDPServer(p, conn)
	if err != nil {
		b.Fatal(err)
	}
	defer s.close()
	exporter := dial(b, conn.LocalAddr())
	msg := fullMessage()
	const batches = 10
	var clock threadClock
	sent := 0
	b.ReportAllocs()
	for b.Loop() {
		for range batches * batchSize {
			write(b, exporter, msg)
		}
		sent += batches * batchSize
		clock.start()
		for range batches {
			if _, err := s.receive(); err != nil {
				b.Fatal(err)
			}
		}
		clock.stop()
	}
	clock.report(b, p, sent)
}

func BenchmarkTCP(b *testing.B) {
	p := newProcess(b, Config{Journal: counting{}})
	ln := listenTCP(b, "127.0.0.1")
	defer ln.Close()
	const messages, writes = 50, 400
	octets := bytes.Repeat(fullMessage(), messages)
	var clock threadClock
	sent := 0
	b.ReportAllocs()
	for b.Loop() {
		exporter, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			defer exporter.Close()
			for range writes {
				if _, err := exporter.Write(octets); err != nil {
					return // the sum tells
				}
			}
		}()
		conn, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		sent += messages * writes
		clock.start()
		err = p.serveTCP(conn)
		clock.stop()
		if err != nil {
			b.Fatal(err)
		}
	}
	clock.report(b, p, sent)
}

func BenchmarkStream(b *testing.B) {
	octets := bytes.Repeat(fullMessage(), 1000)
	r := bytes.NewReader(octets)
	s := newStream(r, time.Now)
	b.SetBytes(int64(len(octets)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(octets)
		for range 1000 {
			msg, err := s.next()
			if err != nil {
				b.Fatal(err)
			}
			if err := ipfix.Validate(msg); err != nil {
				b.Fatal(err)
			}
		}
	}
}
