package export

import (
	"testing"
	"time"

	"tollbridge/ipfix"
)

// An Exporting Process MUST NOT export a Data Set described by a new Template
// in a Message with an Export Time before that of the Template (RFC 7011, 8.2).
func TestExportTimeAfterSetBack(t *testing.T) {
	octets, err := ipfix.NewTemplate(256, ipfix.FieldSpecifier{ID: ipfix.OctetDeltaCount, Length: 8})
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)
	exported := func(msg []byte) time.Time {
		h, err := ipfix.ParseHeader(msg)
		if err != nil {
			t.Fatal(err)
		}
		return time.Unix(int64(h.ExportTime), 0).UTC()
	}
	s := &sender{cfg: Config{MaxMessage: 1400}}
	e := ipfix.NewEncoder(0, 0)
	if err := e.AddRecord(octets, 1); err != nil {
		t.Fatal(err)
	}
	data := e.Flush(0)
	for _, step := range []struct {
		after     time.Duration // noon, by the host's clock
		templates bool          // are sent first
		want      time.Duration
	}{
		{0, true, 0},
		{time.Hour, false, time.Hour},
		{time.Minute, false, time.Minute}, // set back, and no Template since
		{-time.Hour, false, 0},
		{-time.Hour, true, 0}, // the Templates again
		{2 * time.Hour, true, 2 * time.Hour},
		{time.Hour, true, 2 * time.Hour},
		{time.Hour, false, 2 * time.Hour},
		{3 * time.Hour, false, 3 * time.Hour},
	} {
		now, want := noon.Add(step.after), noon.Add(step.want)
		if step.templates {
			for _, msg := range s.templateMessages([]*ipfix.Template{octets}, now) {
				if got := exported(msg); got != want {
					t.Errorf("at %v: templates exported at %v, want %v", now, got, want)
				}
			}
		}
		s.stamp(data, now)
		if got := exported(data); got != want {
			t.Errorf("at %v: data exported at %v, want %v", now, got, want)
		}
	}
}
