package aaaclient

import (
	"tollbridge/asm/acct"
	"tollbridge/dict"
	"tollbridge/dict/avp"
)

// writer returns what writes a record; nil for base accounting.
func (c *Client) writer(d *acct.Delivery) *dict.Writer {
	all := c.cfg.Profiles
	if len(all) == 0 {
		return nil
	}
	n := len(all) - 1
	for n > 0 && all[n].First > d.ID {
		n--
	}
	realms := all[n].Realms
	if len(realms) > 1 {
		realm := d.Record.Realm
		if realm == "" {
			realm = c.cfg.DestinationRealm
		}
		if w := realms[avp.FoldIdentity(realm)]; w != nil {
			return w
		}
	}
	return realms[""]
}

// own reports whether the request of d said what the record adds alone.
func (c *Client) own(d *acct.Delivery) bool {
	w := c.writer(d)
	return w != nil && w.Profile().OfInterval()
}
