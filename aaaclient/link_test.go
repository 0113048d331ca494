package aaaclient

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// Taking leave is no failure of the peer.
func TestAnOrderlyStopWarnsOfNothing(t *testing.T) {
	_, address := serve(t, &storeModel{})
	for range 20 { // it was a race
		outbox := newOutbox()
		outbox.add(records(1, 1)...)
		var log bytes.Buffer
		cfg := client(outbox, address)
		cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		c, stop := runClient(t, cfg)
		settled(t, outbox, c)
		stop()
		if strings.Contains(log.String(), "not connected") {
			t.Fatalf("logged %s", log.String())
		}
	}
}
