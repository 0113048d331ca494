package aaaclient

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"

	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
)

// keepAVPs is a store that remembers the AVPs that came.
type keepAVPs struct {
	mu   sync.Mutex
	avps [][]byte
}

func (k *keepAVPs) Store(_ context.Context, cdrs []acct.CDR) ([]acct.Outcome, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range cdrs {
		k.avps = append(k.avps, slices.Clone(c.AVPs))
	}
	return make([]acct.Outcome, len(cdrs)), nil
}

// A request that is passed on leaves as it came: with its own Origin-Host,
// whatever AVPs it has, and nothing of ours.
func TestReceivedIsSentAsItIs(t *testing.T) {
	store := &keepAVPs{}
	_, address := serve(t, store)
	r := records(1, 1)[0]
	r.Realm = "home.example"
	want := dict.For(0).AppendRecord(nil, &r, dict.Options{OriginHost: "nas.far.example", OriginRealm: "far.example"})
	want = avp.AppendString(want, 9999, 10415, 0, "unknown")
	want = avp.AppendString(want, avp.RouteRecord, 0, avp.FlagMandatory, "bridge.far.example")
	r.Received = want
	outbox := newOutbox()
	outbox.add(r)
	c, stop := runClient(t, client(outbox, address))
	settled(t, outbox, c)
	stop()
	outbox.check(t, acct.Acknowledged)
	if len(store.avps) != 1 || !bytes.Equal(store.avps[0], want) {
		t.Errorf("the server got %x, want %x", store.avps, want)
	}
}
