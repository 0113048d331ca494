// Package control is how a command reaches the daemon of its state directory:
// HTTP with JSON over a Unix socket that only the daemon's user may open.
// Reading needs no daemon (the spool is read beside it); deciding does.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// socketName is the socket's in the state directory.
const socketName = "control.sock"

// maxBody bounds the octets of a request that is JSON, and of an answer.
const maxBody = 64 << 20

// maxUpload bounds the octets of an upload.
const maxUpload = 1 << 30

// patience is for how long a daemon may neither take octets nor answer: what it
// was asked may wait for its disk.
const patience = 2 * time.Minute

// ErrNoDaemon says that no daemon serves the state directory.
var ErrNoDaemon = errors.New("no daemon is running on this state directory")

// Listen opens the socket of the state directory dir, whose lock the caller
// holds: what an earlier daemon left there goes.
func Listen(ctx context.Context, dir string) (net.Listener, error) {
	name, done, err := socket(dir)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	defer done()
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control: %w", err)
	}
	var lc net.ListenConfig
	// The mode must never be wider, not even before a chmod.
	mask := syscall.Umask(0o177)
	ln, err := lc.Listen(ctx, "unix", name)
	syscall.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	return ln, nil
}

// socket returns a name of the socket of dir that fits into a socket's address,
// which has room for 107 octets: a longer one goes by way of an open directory,
// until done is called.
func socket(dir string) (name string, done func(), err error) {
	if name = filepath.Join(dir, socketName); len(name) <= 107 {
		return name, func() {}, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), socketName), func() { _ = f.Close() }, nil
}

// A Server answers commands. Its zero value knows none.
type Server struct{ mux http.ServeMux }

// Handle registers f for the command of that name: In is read from the
// request's JSON, Out written as the answer's. An error becomes the caller's,
// with its text.
func Handle[In, Out any](s *Server, name string, f func(context.Context, In) (Out, error)) {
	s.mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			http.Error(w, "control: "+name+": "+err.Error(), http.StatusBadRequest)
			return
		}
		out, err := f(r.Context(), in)
		answer(w, out, err)
	})
}

// HandleUpload is Handle for what is not small, nor JSON: f reads it, and how
// many octets there are, at most maxUpload, is known before.
func HandleUpload[Out any](s *Server, name string, f func(ctx context.Context, r io.Reader, octets int64) (Out, error)) {
	s.mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 0 || r.ContentLength > maxUpload {
			http.Error(w, fmt.Sprintf("control: %s: %d octets: at most %d are taken", name, r.ContentLength, int64(maxUpload)), http.StatusRequestEntityTooLarge)
			return
		}
		out, err := f(r.Context(), r.Body, r.ContentLength)
		answer(w, out, err)
	})
}

func answer(w http.ResponseWriter, out any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // the caller has gone
}

// Serve answers until ctx ends, and closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	server := &http.Server{Handler: &s.mux, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = server.Close()
	})
	err := server.Serve(ln)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("control: %w", err)
}

// Call sends the command of that name to the daemon of dir and reads its
// answer into out. The error matches ErrNoDaemon if there is none.
func Call(ctx context.Context, dir, name string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("control: %s: %w", name, err)
	}
	return Upload(ctx, dir, name, bytes.NewReader(body), int64(len(body)), out)
}

// Upload is Call for a command of HandleUpload: so many octets are read from in.
func Upload(ctx context.Context, dir, name string, in io.Reader, octets int64, out any) error {
	return upload(ctx, dir, name, in, octets, out, patience)
}

func upload(ctx context.Context, dir, name string, in io.Reader, octets int64, out any, patience time.Duration) error {
	var expired atomic.Bool
	failed := func(err error) error {
		if expired.Load() {
			err = fmt.Errorf("the daemon has not gone on for %v: is it stopped, or its disk held up? It may still do it: %w", patience, os.ErrDeadlineExceeded)
		}
		return fmt.Errorf("control: %s: %w", name, err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		name, done, err := socket(dir)
		if err != nil {
			return nil, err
		}
		defer done()
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", name)
		if err != nil {
			return nil, err
		}
		return impatientConn{conn, patience, &expired}, nil
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://daemon/"+name, in)
	if err != nil {
		return fmt.Errorf("control: %s: %w", name, err)
	}
	request.ContentLength = octets
	response, err := (&http.Client{Transport: transport}).Do(request)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s: %w", dir, ErrNoDaemon)
	} else if err != nil {
		return failed(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return failed(err)
	}
	switch response.StatusCode {
	case http.StatusOK:
		return json.Unmarshal(answer, out)
	case http.StatusNotFound:
		return fmt.Errorf("the daemon does not know the command %q: is it of another version?", name)
	}
	return errors.New(string(bytes.TrimSpace(answer)))
}
