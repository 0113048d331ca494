package flowfiles

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tollbridge/internal/terminaltest"
)

// Each ipfix command shows how far it has come with each of its files, where
// its errors go to a terminal.
func TestIPFIXShowsProgress(t *testing.T) {
	messages := flowMessages(t, 7, 5000) // more than is read at once
	first, second := save(t, "first.ipfix", messages...), save(t, "second.pcap", asCapture(messages))
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, command := range [][]string{
		{"dump"}, {"dump", "--stats"}, {"replay", "--udp", "--to", conn.LocalAddr().String()}, {"convert", "-w", filepath.Join(t.TempDir(), "out")},
	} {
		t.Run(strings.Join(command[:1], " "), func(t *testing.T) {
			ours, terminal := terminaltest.Open(t)
			shown := make(chan string, 1)
			go func() {
				var all []byte
				b := make([]byte, 4096)
				for !bytes.Contains(all, []byte("second.pcap")) {
					n, err := ours.Read(b)
					if err != nil {
						break
					}
					all = append(all, b[:n]...)
				}
				shown <- string(all)
			}()
			root := New()
			root.SetArgs(append(slices.Clone(command), first, second))
			root.SetOut(io.Discard)
			root.SetErr(terminal)
			if err := root.ExecuteContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			select {
			case text := <-shown:
				if !strings.Contains(text, "first.ipfix") {
					t.Errorf("shown is %q", text)
				}
			case <-time.After(time.Minute):
				t.Error("nothing is shown")
			}
		})
	}
}
