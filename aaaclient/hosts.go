package aaaclient

import "tollbridge/dict/avp"

// hosts are the Destination-Hosts that are known of sessions.
type hosts map[string]string

// maxHosts bounds them, about 100 octets each. Those beyond are sought again
// by realm, which costs nothing but the relay's search.
const maxHosts = 1 << 16

func (h *hosts) learn(session string, origin []byte) {
	if *h == nil {
		*h = hosts{}
	}
	if known, ok := (*h)[session]; ok && known == string(origin) {
		return
	}
	if len(*h) >= maxHosts {
		for s := range *h {
			delete(*h, s)
			break
		}
	}
	(*h)[session] = string(origin)
}

// learn notes who answered the head of s.
func (r *route) learn(s *session, a *answer) {
	if !r.LearnHost {
		return
	}
	switch kind := uint32(s.head().Record.Type); {
	case kind == avp.StopRecord || kind == avp.EventRecord:
		delete(r.hosts, s.id)
	case len(a.origin) > 0 && avp.ValidIdentity(string(a.origin)):
		r.hosts.learn(s.id, a.origin)
	}
}
