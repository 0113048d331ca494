package collect

import "net/netip"

// logDue says whether the n-th event of a kind is to be logged, and how many
// the line then stands for: the 1st, 10th, 100th and so on are, each for
// itself and those since the line before.
func logDue(n uint64) (standsFor uint64, due bool) {
	for before, at := uint64(0), uint64(1); ; before, at = at, at*10 {
		if n == at {
			return n - before, true
		}
		if n < at || at > n/10 {
			return 0, false
		}
	}
}

// logRefused logs that a stranger, or one beyond a limit, was turned away.
func (p *Process) logRefused(remote netip.AddrPort) {
	if times, due := logDue(p.refusals.Add(1)); due {
		p.cfg.Log.Warn("exporter refused", "remote", remote, "times", times)
	}
}

// logDrops logs that the count of dropped datagrams rose.
func (p *Process) logDrops(local netip.AddrPort, before, after uint64) {
	if digits(before) != digits(after) {
		p.cfg.Log.Error("datagrams are dropped", "local", local, "dropped", after)
	}
}

// digits returns the number of decimal digits of n, 0 for 0.
func digits(n uint64) (d int) {
	for ; n > 0; n /= 10 {
		d++
	}
	return d
}
