package dict

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tollbridge/dict/avp"
)

func TestSplitAndJoin(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		d := For(0)
		var flow []byte
		for range rapid.IntRange(1, 3).Draw(r, "flows") {
			template, record := drawFlow(r)
			var err error
			if flow, err = d.AppendFlow(flow, template, record); err != nil {
				r.Fatal(err)
			}
			flow = AppendClassifier(flow, template, record, ClassifierOptions{})
		}
		limit := rapid.IntRange(32, 600).Draw(r, "limit")
		parts, err := d.Split(flow, limit)
		if err != nil {
			r.Fatal(err)
		}
		for i, part := range parts {
			if len(part) > limit || len(part) == 0 {
				r.Fatalf("part %d of %d has %d octets, limit %d", i, len(parts), len(part), limit)
			}
			if err := avp.Check(part); err != nil {
				r.Fatal(err)
			}
		}
		joined, err := d.Join(parts...)
		if err != nil {
			r.Fatal(err)
		}
		if !bytes.Equal(joined, flow) {
			r.Fatalf("%d parts join to\n%x\nwant\n%x", len(parts), joined, flow)
		}
	})
}

func TestSplitWholeFlow(t *testing.T) {
	template, record := accountingFlow(t)
	flow, err := For(0).AppendFlow(nil, template, record)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := For(0).Split(flow, len(flow))
	if err != nil || len(parts) != 1 || !bytes.Equal(parts[0], flow) {
		t.Errorf("Split = %d parts, %v", len(parts), err)
	}
	// Between elements, without fragments.
	parts, err = For(0).Split(flow, 128)
	if err != nil || len(parts) < 3 {
		t.Fatalf("Split = %d parts, %v", len(parts), err)
	}
	for a := range allAVPs(slices.Concat(parts...)) {
		if a.Code == FlowFragment {
			t.Error("a fragment where all elements fit")
		}
	}
	if _, err := For(0).Split(flow, 31); !errors.Is(err, ErrTooSmall) {
		t.Errorf("Split into 31 octets: %v", err)
	}
	if _, err := For(0).Join(parts[:len(parts)-1]...); !errors.Is(err, ErrFlow) {
		t.Errorf("Join without the last part: %v", err)
	}
}
