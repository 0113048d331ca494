package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"tollbridge/asm/users"
	"tollbridge/asm/users/dhcp"
	"tollbridge/asm/users/nasreq"
	"tollbridge/asm/users/radius"
	"tollbridge/dict/avp"
)

// TestUserNames has each source of bindings name a user: what no User-Name can
// be (RFC 6733, Section 8.14: UTF8String) is nobody's name, whoever says it, and
// is reported or counted.
func TestUserNames(t *testing.T) {
	names := []struct {
		what, name string
		good       bool
	}{
		{"an NAI", "ann@isp.example", true},
		{"letters beyond ASCII", "Jürgen Groß", true},
		{"as long as can be", strings.Repeat("x", users.MaxName), true},
		{"an octet longer", strings.Repeat("x", users.MaxName+1), false},
		{"100 kB", strings.Repeat("x", 100_000), false},
		{"a zero octet", "ann\x00bob", false},
		{"an escape sequence", "\x1b[2Jann", false},
		{"a control character of two octets", "ann\u0085bob", false},
		{"no UTF-8", "J\xfcrgen", false},
	}
	for _, source := range []struct {
		name string
		tell func(t *testing.T, name string) (user string, counted bool)
	}{
		{"file", nameInFile}, {"database", nameInRows}, {"import", nameInList}, {"RADIUS", nameByRADIUS}, {"Diameter", nameByDiameter}, {"lease file", nameInLease},
	} {
		for _, n := range names {
			t.Run(source.name+", "+n.what, func(t *testing.T) {
				user, counted := source.tell(t, n.name)
				if n.good && (user != n.name || counted) {
					t.Errorf("%.300q becomes %.300q, complaint %t", n.name, user, counted)
				}
				if !n.good && (user != "" || !counted) {
					t.Errorf("%.300q becomes %.300q, complaint %t", n.name, user, counted)
				}
			})
		}
	}
}

func nameInFile(t *testing.T, name string) (string, bool) {
	file := filepath.Join(t.TempDir(), "users.csv")
	if err := os.WriteFile(file, fmt.Appendf(nil, "prefix,user\n192.0.2.1,\"%s\"\n", name), 0o600); err != nil {
		t.Fatal(err)
	}
	return onlyUser(users.ParseFile(file))
}

func nameInRows(t *testing.T, name string) (string, bool) {
	rows, err := users.NewRows("crm", []string{"prefix", "user"})
	if err != nil {
		t.Fatal(err)
	}
	rows.Add([]string{"192.0.2.1", name})
	return onlyUser(rows.Result())
}

// nameInList has it in what "users import" sends, as somebody else's program
// may do.
func nameInList(_ *testing.T, name string) (string, bool) {
	b := users.Binding{Prefix: netip.MustParsePrefix("192.0.2.1/32"), User: name}
	_, list, err := users.ParseList(users.AppendList(nil, "import", []users.Binding{b}))
	return onlyUser(users.File{Bindings: list}, err)
}

func onlyUser(f users.File, err error) (string, bool) {
	if err != nil || len(f.Bindings) != 1 {
		return "", err != nil
	}
	return f.Bindings[0].User, false
}

func nameByDiameter(_ *testing.T, name string) (string, bool) {
	const m = avp.FlagMandatory
	b := avp.AppendString(nil, avp.SessionID, 0, m, "bng.isp.example;1;7")
	b = avp.AppendString(b, avp.OriginHost, 0, m, "bng.isp.example")
	b = avp.AppendUint32(b, avp.AccountingRecordType, 0, m, avp.StartRecord)
	b = avp.AppendString(b, avp.UserName, 0, m, name)
	b = avp.Append(b, avp.FramedIPAddress, 0, m, []byte{192, 0, 2, 1})
	e, ok, err := nasreq.Read(b, time.Now())
	if err != nil || !ok {
		return "", err != nil
	}
	return e.User, false
}

func nameByRADIUS(t *testing.T, name string) (string, bool) {
	if len(name) > users.MaxName {
		return "", true // an attribute has no room for it (RFC 2865, Section 5)
	}
	var said told
	server, err := radius.New(radius.Config{
		Journal: &said,
		Clients: []radius.Client{{Name: "nas", Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Secret: []byte("secret")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- server.Serve(ctx, conn) }()
	p := layeh.New(layeh.CodeAccountingRequest, []byte("secret"))
	_ = rfc2866.AcctStatusType_Set(p, rfc2866.AcctStatusType_Value_Start)
	_ = rfc2866.AcctSessionID_SetString(p, "0001")
	_ = rfc2865.FramedIPAddress_Set(p, net.IPv4(192, 0, 2, 1))
	p.Set(rfc2865.UserName_Type, layeh.Attribute(name))
	request, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	nas, err := net.Dial("udp", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nas.Close()
	if _, err := nas.Write(request); err != nil {
		t.Fatal(err)
	}
	var malformed uint64
	until(t, func() bool {
		stats := server.Stats().Clients["nas"]
		malformed = stats.Malformed[radius.CauseAttribute]
		return stats.Answered+malformed > 0
	})
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	return said.user(), malformed > 0
}

func nameInLease(t *testing.T, name string) (string, bool) {
	file := filepath.Join(t.TempDir(), "kea-leases4.csv")
	var escaped strings.Builder // as Kea writes what its file can't have
	for _, o := range []byte(name) {
		fmt.Fprintf(&escaped, "&#x%02x", o)
	}
	content := fmt.Appendf(nil, "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n"+
		"192.0.2.1,02:00:00:00:00:01,,600,%d,1,0,0,%s,0,\n", time.Now().Add(10*time.Minute).Unix(), &escaped)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	var said told
	source, err := dhcp.New(dhcp.Config{Journal: &said, File: file, User: []dhcp.Identity{dhcp.Hostname}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop() // after one look
	if err := source.Run(ctx); err != nil {
		t.Fatal(err)
	}
	user := said.user()
	if strings.EqualFold(user, name) {
		user = name // in lower case
	}
	stats := source.Stats()
	return user, stats.Nameless+stats.Malformed > 0
}

// told is a journal that keeps what it is told.
type told struct{ events []users.Event }

func (j *told) Append(e users.Event) (uint64, error) {
	j.events = append(j.events, e)
	return uint64(len(j.events)), nil
}

func (j *told) Wait(context.Context, uint64) error { return nil }

// user returns the user of the only event, "" if there is none.
func (j *told) user() string {
	if len(j.events) != 1 {
		return ""
	}
	return j.events[0].User
}
