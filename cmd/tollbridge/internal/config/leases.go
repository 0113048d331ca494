package config

import "fmt"

// Leases is a file of a DHCP server that has user bindings.
type Leases struct {
	File string   `yaml:"file"`
	User []string `yaml:"user"`
}

// checkLeases reports what is wrong with the lease files of c. One need not be
// there yet.
func (c *Users) checkLeases(report func(key, format string, args ...any)) {
	files := map[string]bool{}
	for i, l := range c.Leases {
		key := fmt.Sprintf("users.leases[%d].file", i)
		switch {
		case l.File == "":
			report(key, "is missing: name the server's lease file, such as /var/lib/kea/kea-leases4.csv")
		case files[l.File]:
			report(key, "%s is there twice", l.File)
		}
		files[l.File] = true
	}
}
