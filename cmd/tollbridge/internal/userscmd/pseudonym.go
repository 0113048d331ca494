package userscmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tollbridge/asm"
	"tollbridge/asm/users"
	"tollbridge/cmd/tollbridge/internal/config"
	"tollbridge/cmd/tollbridge/internal/listing"
	"tollbridge/cmd/tollbridge/internal/profile"
	"tollbridge/cmd/tollbridge/internal/reconcile"
	"tollbridge/cmd/tollbridge/internal/state"
	"tollbridge/cmd/tollbridge/internal/terminal"
	"tollbridge/dict"
	"tollbridge/spool"
)

// A Pseudonym is by what name a partner knows a user.
type Pseudonym struct {
	Pseudonym string   `json:"pseudonym"`
	User      string   `json:"user"`
	Realms    []string `json:"realms"` // of those whose profile has the key; "*" is all that have none of their own
}

func newPseudonym(where *state.Flags) *cobra.Command {
	var of, among, keys []string
	cmd := &cobra.Command{
		Use:   "pseudonym PSEUDONYM... | --of USER",
		Short: "Say whose a pseudonym is that a partner has been given",
		Long: `Pseudonym goes back from what a partner reads in place of a user's name (a profile
with identity: pseudonym) to the user. A pseudonym can't be turned round, so it
tries the names of all users who hold or held an address, of all records that
the state directory has, and of --among: archives, state directories or files as
"tollbridge reconcile" reads them. The keys are those of the profiles by which
the daemon writes its records, and those of --key, for what was sent before a
key was changed. The status is 1 if somebody is not found.

With --of it says as whom partners know a user.`,
		Example: `  tollbridge users pseudonym 8c1f0e0f9d3b6a7755d0c5a8e1b2f3c4
  tollbridge users pseudonym 8c1f0e0f9d3b6a7755d0c5a8e1b2f3c4 --among /var/lib/archive --key old.key
  tollbridge users pseudonym --of alice@isp.example -o json`,
	}
	out := listing.FormatFlag(cmd)
	cmd.Flags().StringSliceVar(&of, "of", nil, "say as whom partners know these users")
	cmd.Flags().StringSliceVar(&among, "among", nil, "further places with names of users")
	cmd.Flags().StringSliceVar(&keys, "key", nil, "files of keys that were used before")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (len(args) == 0) == (len(of) == 0) {
			return errors.New("users pseudonym: give pseudonyms, or users with --of")
		}
		s, err := where.Open()
		if err != nil {
			return err
		}
		defer s.Close()
		p, err := pseudonymsOf(cmd.Context(), s, keys)
		if err != nil {
			return fmt.Errorf("users pseudonym: %w", err)
		}
		var views []Pseudonym
		if len(of) > 0 {
			for _, user := range of {
				views = append(views, p.views(user)...)
			}
		} else if views, err = p.find(cmd.Context(), s, among, args); err != nil {
			return fmt.Errorf("users pseudonym: %w", err)
		}
		t := listing.Table{Columns: []string{"pseudonym", "user", "realms"}, Value: views}
		for _, v := range views {
			t.Add(v.Pseudonym, v.User, strings.Join(v.Realms, " "))
		}
		if err := t.Print(cmd.OutOrStdout(), *out); err != nil {
			return err
		}
		for _, a := range args {
			if !slices.ContainsFunc(views, func(v Pseudonym) bool { return v.Pseudonym == strings.ToLower(a) }) {
				fmt.Fprintf(cmd.ErrOrStderr(), "tollbridge: nobody of %d users is %s: name an archive with --among, or the key of that time with --key\n", p.tried, a)
				err = terminal.ErrTold
			}
		}
		return err
	}
	return cmd
}

// pseudonyms are the keys by which partners know users, with the realms of each.
type pseudonyms struct {
	realms map[string][]string
	tried  int // users
}

// pseudonymsOf returns the keys of the profiles by which the records of a spool
// are written, and of files.
func pseudonymsOf(ctx context.Context, s *spool.Spool, files []string) (*pseudonyms, error) {
	written, err := profile.All(ctx, s)
	if err != nil {
		return nil, err
	}
	p := &pseudonyms{realms: make(map[string][]string)}
	for _, w := range written {
		for realm, profile := range w {
			if profile.Identity == dict.PseudonymIdentity {
				p.add(string(profile.Key), realm)
			}
		}
	}
	for _, name := range files {
		key, err := (&config.Secret{File: name}).Load()
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		p.add(string(key), name)
	}
	if len(p.realms) == 0 {
		return nil, errors.New("no profile that the daemon writes records by has pseudonyms: name the key of that time with --key")
	}
	return p, nil
}

func (p *pseudonyms) add(key, realm string) {
	if realm == "" {
		realm = "*"
	}
	if !slices.Contains(p.realms[key], realm) {
		p.realms[key] = append(p.realms[key], realm)
		slices.Sort(p.realms[key])
	}
}

// views says as whom partners know a user.
func (p *pseudonyms) views(user string) []Pseudonym {
	p.tried++
	var all []Pseudonym
	for _, key := range slices.Sorted(maps.Keys(p.realms)) {
		profile := dict.Profile{Identity: dict.PseudonymIdentity, Key: []byte(key)}
		all = append(all, Pseudonym{profile.UserName(user), user, p.realms[key]})
	}
	return all
}

// find returns whose the pseudonyms are.
func (p *pseudonyms) find(ctx context.Context, s *spool.Spool, among, wanted []string) ([]Pseudonym, error) {
	views := []Pseudonym{}
	tried := make(map[string]bool)
	try := func(user string) {
		if user == "" || tried[user] {
			return
		}
		tried[user] = true
		for _, v := range p.views(user) {
			if slices.ContainsFunc(wanted, func(w string) bool { return strings.ToLower(w) == v.Pseudonym }) {
				views = append(views, v)
			}
		}
	}
	err := asm.EachHolder(ctx, s, "", func(h *users.Holder) error {
		try(h.User())
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, name := range append([]string{s.Dir()}, among...) {
		if err := reconcile.ReadSide(ctx, name, reconcile.Filter{}, func(r reconcile.Record) error {
			try(r.User)
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return views, nil
}
