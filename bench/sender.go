package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/ipv4"
)

// burst is how many datagrams are sent at once. Even a receiver with the
// kernel's least buffer has room for some of them.
const burst = 16

// sendUDP sends messages of l to a port, at rate records per second.
func sendUDP(ctx context.Context, port int, l *load, messages, rate int) error {
	nc, err := net.Dial("udp", loopback(port))
	if err != nil {
		return err
	}
	defer nc.Close()
	t, err := l.template()
	if err != nil {
		return err
	}
	if _, err := nc.Write(t); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond) // some read with several threads: let all of them know the Template

	var bodies [burst][messageLength]byte
	batch := make([]ipv4.Message, burst)
	for i := range batch {
		batch[i].Buffers = [][]byte{bodies[i][:]}
	}
	conn := ipv4.NewPacketConn(nc.(*net.UDPConn))
	began := time.Now()
	for sent := 0; sent < messages; {
		n := min(burst, messages-sent)
		for i := range n {
			l.message(bodies[i][:])
		}
		due := began.Add(time.Duration(float64(sent*recordsPerMessage) / float64(rate) * float64(time.Second)))
		time.Sleep(time.Until(due))
		for done := 0; done < n; {
			k, err := conn.WriteBatch(batch[done:n], 0)
			if err != nil {
				return fmt.Errorf("send: %w", err)
			}
			done += k
		}
		sent += n
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// sendTCP sends messages of l to a port as fast as they are taken, and returns
// once the receiver has read them all.
func sendTCP(ctx context.Context, port int, l *load, messages int) error {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", loopback(port))
	if err != nil {
		return err
	}
	defer nc.Close()
	t, err := l.template()
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(nc, 64<<10)
	w.Write(t)
	var body [messageLength]byte
	for range messages {
		l.message(body[:])
		if _, err := w.Write(body[:]); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, nc) // until it closes too
	return err
}
