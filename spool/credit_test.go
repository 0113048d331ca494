package spool

import (
	"errors"
	"maps"
	"testing"

	"tollbridge/asm/acct"
)

func TestCredit(t *testing.T) {
	dir := t.TempDir()
	c, err := OpenCredit(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Save(t.Context(), 7, []acct.State{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Save(t.Context(), 9, []acct.State{{Key: "a", Value: []byte("3")}, {Key: "b"}, {Key: "c", Value: []byte{}}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := OpenCreditReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := map[string]string{}
	after, err := r.Load(t.Context(), func(key string, value []byte) error { got[key] = string(value); return nil })
	if err != nil || after != 9 || !maps.Equal(got, map[string]string{"a": "3", "c": ""}) {
		t.Errorf("loaded %d, %v, %v", after, got, err)
	}
	if err := r.Save(t.Context(), 10, nil); !errors.Is(err, ErrReadOnly) {
		t.Errorf("saved into what is read only: %v", err)
	}
	stop := errors.New("stop")
	if _, err := r.Load(t.Context(), func(string, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the visitor's error is %v", err)
	}
}
