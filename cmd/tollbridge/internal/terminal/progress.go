package terminal

import (
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// NewProgress returns a bar over total steps that draws on w if that is a
// terminal, and else stays quiet. A negative total is unknown.
func NewProgress(w io.Writer, what string, total int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total,
		progressbar.OptionSetDescription(what),
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetVisibility(Is(w)),
		progressbar.OptionThrottle(50*time.Millisecond),
		progressbar.OptionSetWidth(40),
		progressbar.OptionClearOnFinish(),
	)
}
