package journal

import "tollbridge/asm/acct"

// waits reports whether entries of a kind wait while the journal is held at a
// mark: those that bring work. Others may be what lets it go.
func waits(k acct.EntryKind) bool { return k == acct.EntryMessage || k == acct.EntryRequest }

// Hold keeps Messages out for a reason, and lets them in again for "".
func (j *Journal) Hold(reason string) {
	j.mu.Lock()
	before := j.mark
	j.mark = reason
	j.room.Broadcast()
	j.mu.Unlock()
	switch {
	case before == "" && reason != "":
		j.log.Error("journal takes no more messages: what can wait upstream does, the rest is lost and counted there", "reason", reason)
	case before != "" && reason == "":
		j.log.Info("journal takes messages again")
	}
}

// Marked reports whether Hold keeps Messages out.
func (j *Journal) Marked() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mark != ""
}

// Held reports whether Append of a Message blocks until something changes
// outside, and says why, in words for people: the disk is full or fails, or
// Hold keeps Messages out.
func (j *Journal) Held() (reason string, held bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stats.Full {
		return "the journal waits for space on the disk", true
	}
	if j.stats.Waits != nil {
		return "the journal waits: " + j.stats.Waits.Error(), true
	}
	return j.mark, j.mark != ""
}
