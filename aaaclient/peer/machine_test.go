package peer

import "testing"

// Each row is one of the table of RFC 6733, Section 5.6.
func TestMachine(t *testing.T) {
	for _, row := range []struct {
		name  string
		from  phase
		event happening
		wins  bool
		do    action
		to    phase
	}{
		{"Closed, Start: I-Snd-Conn-Req", closed, iStart, false, iSndConnReq, waitConnAck},
		{"Closed, R-Conn-CER: R-Snd-CEA", closed, rConnCER, false, rSndCEA, rOpen},
		{"Wait-Conn-Ack, I-Rcv-Conn-Ack: I-Snd-CER", waitConnAck, iRcvConnAck, false, iSndCER, waitICEA},
		{"Wait-Conn-Ack, I-Rcv-Conn-Nack: Cleanup", waitConnAck, iEnded, false, 0, closed},
		{"Wait-Conn-Ack, R-Conn-CER, and then I-Rcv-Conn-Nack: R-Snd-CEA", waitConnAck, rConnCER, false, iDisc | rSndCEA, rOpen},
		{"Wait-I-CEA, I-Rcv-CEA: Process-CEA", waitICEA, iRcvCEA, false, 0, iOpen},
		{"Wait-I-CEA, I-Peer-Disc: I-Disc", waitICEA, iEnded, false, 0, closed},
		{"Wait-I-CEA, R-Conn-CER: Elect", waitICEA, rConnCER, false, 0, waitReturns},
		{"Wait-Returns, Win-Election: I-Disc, R-Snd-CEA", waitICEA, rConnCER, true, iDisc | rSndCEA, rOpen},
		{"Wait-Returns, I-Peer-Disc: R-Snd-CEA", waitReturns, iEnded, false, rSndCEA, rOpen},
		{"Wait-Returns, I-Rcv-CEA: R-Disc", waitReturns, iRcvCEA, false, rDisc, iOpen},
		{"Wait-Returns, R-Peer-Disc: R-Disc", waitReturns, rEnded, false, 0, waitICEA},
		{"Wait-Returns, R-Conn-CER: R-Reject", waitReturns, rConnCER, false, rReject, waitReturns},
		{"R-Open, R-Conn-CER: R-Reject", rOpen, rConnCER, true, rReject, rOpen},
		{"R-Open, R-Peer-Disc: R-Disc", rOpen, ended, false, 0, closed},
		{"I-Open, R-Conn-CER: R-Reject", iOpen, rConnCER, true, rReject, iOpen},
		{"I-Open, I-Peer-Disc: I-Disc", iOpen, ended, false, 0, closed},
	} {
		if to, do, ok := row.from.next(row.event, row.wins); !ok || to != row.to || do != row.do {
			t.Errorf("%s: state %d, actions %b, possible %v", row.name, to, do, ok)
		}
	}
	if _, _, ok := iOpen.next(iRcvCEA, false); ok {
		t.Error("a second CEA is an event of I-Open")
	}
}

func TestElection(t *testing.T) {
	for _, row := range []struct {
		local, remote string
		wins          bool
	}{
		{"b.example", "a.example", true},
		{"a.example", "b.example", false},
		{"B.example", "a.example", true}, // octets compare equally to their upper-case counterparts
		{"a.example", "B.example", false},
		{"a.example.org", "a.example", true}, // as streams of octets: the longer succeeds its beginning
		{"a-b.example", "a.example", false},
	} {
		if got := wins(row.local, row.remote); got != row.wins {
			t.Errorf("%s against %s: %v (5.6.4)", row.local, row.remote, got)
		}
	}
}

// maxAttempts is how often a node connects.
const maxAttempts = 2

// A world is two nodes of the machine and the connections between them: what
// can be reached from here is looked at whole.
type world struct {
	nodes [2]side
	conns [2 * maxAttempts]link
	made  int // of conns
	nacks int // transports that may still fail
	cuts  int // connections that may still be cut
}

// A side is one node: 1 wins elections.
type side struct {
	phase    phase
	attempt  int // the connection that it is making; -1 for none
	waiting  int // whose CER waits
	open     int
	attempts int
}

// A link is a connection between them.
type link struct {
	up     bool // the transport stands, and CER is sent
	queues [2]string
	shut   [2]bool // on the side of a node
}

// Messages, one letter each: c is a CER, a a CEA, r one that refuses, f the end
// of the transport.

func (w *world) send(conn, from int, messages string) {
	if l := &w.conns[conn]; !l.shut[from] {
		l.queues[1-from] += messages
	}
}

func (w *world) shut(conn, node int) {
	w.send(conn, node, "f")
	w.conns[conn].shut[node] = true
}

// step has h happen at a node, on a connection.
func (w *world) step(t *testing.T, node int, h happening, conn int) {
	n := &w.nodes[node]
	waited := n.waiting
	to, do, ok := n.phase.next(h, node == 1)
	if !ok {
		t.Fatalf("event %d in state %d of node %d: %+v", h, n.phase, node, *w)
	}
	n.phase = to
	if do&iSndConnReq != 0 {
		n.attempts++
		n.attempt = w.made
		w.made++
	}
	if do&iSndCER != 0 {
		w.conns[n.attempt].up = true
		w.send(n.attempt, node, "c")
	}
	if do&iDisc != 0 {
		if w.conns[n.attempt].up {
			w.shut(n.attempt, node)
		} else {
			w.conns[n.attempt].shut = [2]bool{true, true}
		}
		n.attempt = -1
	}
	switch {
	case do&rReject != 0:
		w.send(conn, node, "r")
		w.shut(conn, node)
	case do&rDisc != 0:
		w.send(waited, node, "r")
		w.shut(waited, node)
		n.waiting = -1
	case do&rSndCEA != 0 && waited >= 0:
		w.send(waited, node, "a")
		n.open, n.waiting = waited, -1
	case do&rSndCEA != 0:
		w.send(conn, node, "a")
		n.open = conn
	case to == waitReturns:
		n.waiting = conn
	}
	switch h {
	case iRcvCEA:
		n.open, n.attempt = conn, -1
	case iEnded:
		n.attempt = -1
	case ended:
		n.open = -1
	}
}

// next returns all that can follow.
func (w world) next(t *testing.T) (all []world) {
	also := func(f func(*world)) {
		w := w
		f(&w)
		all = append(all, w)
	}
	for i, n := range w.nodes {
		if n.phase == closed && n.attempts < maxAttempts {
			also(func(v *world) { v.step(t, i, iStart, -1) })
		}
		if n.phase == waitConnAck {
			also(func(v *world) { v.step(t, i, iRcvConnAck, n.attempt) })
			if w.nacks > 0 {
				also(func(v *world) {
					v.nacks--
					v.conns[n.attempt].shut = [2]bool{true, true}
					v.step(t, i, iEnded, n.attempt)
				})
			}
		}
		if n.open >= 0 && w.cuts > 0 {
			also(func(v *world) {
				v.cuts--
				v.shut(n.open, i)
				v.step(t, i, ended, n.open)
			})
		}
		for c, l := range w.conns {
			if l.queues[i] == "" {
				continue
			}
			also(func(v *world) {
				q := &v.conns[c].queues[i]
				m := (*q)[0]
				*q = (*q)[1:]
				v.receive(t, i, c, m)
			})
		}
	}
	return all
}

func (w *world) receive(t *testing.T, node, conn int, m byte) {
	n := &w.nodes[node]
	switch {
	case w.conns[conn].shut[node]:
	case m == 'c':
		w.step(t, node, rConnCER, conn)
	case m == 'f' && n.open == conn:
		w.shut(conn, node)
		w.step(t, node, ended, conn)
	case m == 'f' && n.waiting == conn:
		w.shut(conn, node)
		n.waiting = -1
		w.step(t, node, rEnded, conn)
	case n.attempt != conn: // it was given up
	case m == 'a':
		w.step(t, node, iRcvCEA, conn)
	default:
		w.shut(conn, node)
		w.step(t, node, iEnded, conn)
	}
}

// TestEveryInterleaving: whatever comes before whatever else when two nodes
// connect to each other, and again when a transport fails or a connection is
// cut, no event is impossible where it happens, and in the end the two have the
// same one connection.
func TestEveryInterleaving(t *testing.T) {
	none := side{attempt: -1, waiting: -1, open: -1}
	for name, first := range map[string]world{
		"undisturbed":             {},
		"a transport fails":       {nacks: 1},
		"a connection is cut":     {cuts: 1},
		"both, and again":         {nacks: 1, cuts: 1},
		"each transport may fail": {nacks: 2},
	} {
		t.Run(name, func(t *testing.T) {
			first.nodes = [2]side{none, none}
			seen := map[world]bool{}
			elected, ends := 0, 0
			todo := []world{first}
			for len(todo) > 0 {
				w := todo[len(todo)-1]
				todo = todo[:len(todo)-1]
				if seen[w] {
					continue
				}
				seen[w] = true
				following := w.next(t)
				todo = append(todo, following...)
				a, b := w.nodes[0], w.nodes[1]
				if a.phase == waitReturns {
					elected++
				}
				if b.phase == waitReturns {
					t.Fatalf("the winner waits for the loser: %+v", w)
				}
				if len(following) > 0 {
					continue
				}
				ends++
				exhausted := a.phase == closed && b.phase == closed && a.attempts == maxAttempts && b.attempts == maxAttempts && first.nacks+first.cuts > 0
				same := a.open >= 0 && a.open == b.open && a.phase+b.phase == iOpen+rOpen
				if !same && !exhausted {
					t.Fatalf("the nodes end with %+v", w)
				}
			}
			t.Logf("%d situations, %d in an election, %d ends", len(seen), elected, ends)
			if elected == 0 || ends == 0 {
				t.Error("there was no election, or no end")
			}
		})
	}
}
