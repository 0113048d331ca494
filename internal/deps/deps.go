// Package deps holds go.mod's requirements while packages are being written.
package deps

import (
	_ "github.com/fiorix/go-diameter/v4/diam"
	_ "github.com/fiorix/go-diameter/v4/diam/sm"
	_ "github.com/gaissmai/bart"
	_ "github.com/goccy/go-yaml"
	_ "github.com/google/gopacket/pcapgo"
	_ "github.com/google/gopacket/layers"
	_ "github.com/mattn/go-sqlite3"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/schollz/progressbar/v3"
	_ "github.com/spf13/cobra"
	_ "golang.org/x/net/ipv4"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "pgregory.net/rapid"
)

import (
	_ "github.com/ishidawataru/sctp"
	_ "github.com/pion/dtls/v3"
)
