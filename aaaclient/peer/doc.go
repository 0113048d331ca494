// Package peer holds one Diameter connection, in either role: capabilities
// exchange, watchdog, disconnection, framing and batched writes (RFC 6733,
// Sections 5.3 to 5.5; RFC 3539, Section 3.4.1). A Keeper sees to it that there
// is one; the Table of a node, that there is no second with the same peer, and
// that those who ask and those who serve share it (Section 5.6).
//
// It works on any net.Conn that carries octets in order, so the caller chooses
// TCP or TLS by how it dials. It knows no application: whatever is not the
// base protocol's own goes to a Handler.
package peer
