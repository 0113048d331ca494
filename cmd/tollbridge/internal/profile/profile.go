// Package profile says how accounting records are written for whom: by what the
// configuration says now, and by what it said when older ones were cut.
package profile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"tollbridge/aaaclient"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/dict"
	"tollbridge/spool"
)

// A Writing is how records are written, by their realm in lower case; "" is
// for all others. Its JSON is stored.
type Writing map[string]dict.Profile

// Of returns what the configuration says, keys included.
func Of(d config.Delivery) (Writing, error) {
	dictionary := dict.For(uint32(d.VendorID))
	optional := codes(d.OptionalAVPs)
	all := map[string]dict.Profile{"": {Optional: optional}}
	var errs []error
	for i, p := range d.Profiles {
		out, err := parseProfile(dictionary, p)
		if err != nil {
			errs = append(errs, fmt.Errorf("delivery.profiles[%d]: %w", i, err))
			continue
		}
		out.Optional = append(out.Optional, optional...)
		all[p.Name] = out
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	w := Writing{"": all[d.DefaultProfile()]}
	for _, r := range d.Realms {
		p := all[d.ProfileOf(r)]
		for _, realm := range r.Realms {
			w[strings.ToLower(realm)] = p
		}
	}
	return w, nil
}

func codes(list []int) []uint32 {
	out := make([]uint32, len(list))
	for i, code := range list {
		out[i] = uint32(code)
	}
	return out
}

// profile turns names into AVPs and values into their data.
func parseProfile(d *dict.Dictionary, p config.Profile) (dict.Profile, error) {
	out := dict.Profile{
		Name: p.Name, Kind: dict.Kind(p.Kind), Application: uint32(p.Application),
		Events: p.Records == "event", Interval: p.Volumes == "interval",
		ServiceContext: p.ServiceContext, Optional: codes(p.OptionalAVPs), Identity: dict.Identity(p.Identity),
	}
	if p.Identity == "pseudonym" {
		key, err := p.Key.Load()
		if err != nil {
			return out, fmt.Errorf("key: %w", err)
		}
		out.Key = key
	}
	for i, e := range p.AVPs {
		edit, err := edit(d, e)
		if err != nil {
			return out, fmt.Errorf("avps[%d]: %w", i, err)
		}
		out.Edits = append(out.Edits, edit)
	}
	for i, name := range p.Allow {
		n, err := d.Find(name)
		if err != nil {
			return out, fmt.Errorf("allow[%d]: %w", i, err)
		}
		out.Allow = append(out.Allow, n.Ref)
	}
	return out, out.Check()
}

func edit(d *dict.Dictionary, e config.Edit) (dict.Edit, error) {
	out := dict.Edit{Action: dict.Action(e.Action)}
	for _, name := range e.In {
		n, err := d.Find(name)
		if err != nil {
			return out, err
		}
		if n.Type != dict.Grouped {
			return out, fmt.Errorf("in: %s is of type %v, not a group", name, n.Type)
		}
		out.In = append(out.In, n.Ref)
	}
	n, err := d.Find(e.AVP)
	if err != nil {
		return out, err
	}
	out.AVP = n.Ref
	switch out.Action {
	case dict.Rename:
		to, err := d.Find(e.To)
		if err != nil {
			return out, err
		}
		if !dict.Convertible(n.Type, to.Type) {
			return out, fmt.Errorf("%s is of type %v, which can't become %s of type %v", e.AVP, n.Type, e.To, to.Type)
		}
		out.To, out.Flags = to.Ref, to.Flags()
	case dict.Set, dict.Add:
		if out.Data, err = dict.ParseValue(n.Type, e.Value); err != nil {
			return out, fmt.Errorf("%s: %w", e.AVP, err)
		}
		out.Flags = n.Flags()
	}
	return out, nil
}

// Store stores what the configuration says for the records that come from
// now on, and returns it with what older records of the outbox are written by.
func Store(ctx context.Context, d config.Delivery, o *spool.Outbox) ([]aaaclient.Profiles, error) {
	now, err := Of(d)
	if err != nil {
		return nil, err
	}
	definition, err := json.Marshal(now) // sorts realms
	if err != nil {
		return nil, err
	}
	if err := o.SetProfiles(ctx, definition); err != nil {
		return nil, err
	}
	stored, err := o.Profiles(ctx)
	if err != nil {
		return nil, err
	}
	dictionary := dict.For(uint32(d.VendorID))
	var all []aaaclient.Profiles
	for _, s := range stored {
		w, err := parse(s)
		if err != nil {
			return nil, err
		}
		out := aaaclient.Profiles{First: s.First, Realms: map[string]*dict.Writer{}}
		for realm, p := range w {
			if out.Realms[realm], err = dictionary.Writer(p); err != nil {
				return nil, fmt.Errorf("the profiles of records from %d on: %w", s.First, err)
			}
		}
		all = append(all, out)
	}
	return all, nil
}

func parse(s spool.Profiles) (w Writing, err error) {
	if err := json.Unmarshal(s.Definition, &w); err != nil {
		return nil, fmt.Errorf("the profiles of records from %d on: %w", s.First, err)
	}
	return w, nil
}

// All returns how the records of a spool are written: by the profiles that
// are in force, and by those before that some of them may need yet.
func All(ctx context.Context, s *spool.Spool) ([]Writing, error) {
	stored, err := s.Profiles(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Writing, len(stored))
	for i := range stored {
		if all[i], err = parse(stored[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}
