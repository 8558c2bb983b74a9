package process_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runnerhub/shared/fault"
	"runnerhub/shared/runner"
	"runnerhub/shared/runner/process"
	"runnerhub/shared/runner/runnertest"
)

// What a build may try that wants more than its due, and what other users of the machine may.

// serveAgents serves the server at the runner's own address.
func serveAgents(t *testing.T, r *process.Runner, server *runnertest.Server) {
	t.Helper()
	to, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	agents := &http.Server{Handler: httputil.NewSingleHostReverseProxy(to), ReadHeaderTimeout: time.Minute}
	t.Cleanup(func() { _ = agents.Close() })
	if err := r.Serve(func(l net.Listener) { _ = agents.Serve(l) }); err != nil {
		t.Fatal(err)
	}
}

// TestSocket runs builds whose agents reach the server over its socket, which a cleaner
// removes together with everything else in the folder, and which a dead server leaves.
func TestSocket(t *testing.T) {
	t.Parallel()
	dir, server := newDir(t), runnertest.NewServer(t)
	d, heard := deps(t, dir), make(ends, 10)
	d.Notify = heard.notify
	r := open(t, d)
	serveAgents(t, r, server)
	build := func(name string) {
		server.Offer(name, nil, runner.Step{Name: "s", Run: "echo here"})
		j := job(server, name)
		j.Address = r.Address()
		start(t, r, j)
		if e := heard.await(t); e.State.Result != runner.Succeeded {
			t.Errorf("%s: event %+v; log %+v", name, e, readLog(t, dir, "b-"+name))
		}
		server.AwaitResult(t, name)
	}
	build("first")
	for _, gone := range []string{"attempts", "bin", "run"} {
		if err := os.RemoveAll(filepath.Join(d.Dir, gone)); err != nil {
			t.Fatal(err)
		}
	}
	build("cleaned")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(d.Dir, "run", "server.sock")); err != nil {
		t.Errorf("this test looks for a socket in the wrong place: %v", err)
	}
	r = open(t, d)
	serveAgents(t, r, server)
	build("again")
}

// TestSocketPath refuses a folder in which no socket can be.
func TestSocketPath(t *testing.T) {
	t.Parallel()
	d := deps(t, newDir(t))
	d.Dir = filepath.Join(d.Dir, strings.Repeat("long/", 20))
	if _, err := process.New(d); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "shorter path") {
		t.Errorf("New = %v, want it refused with the reason", err)
	}
}

// TestFoldersOfOthers finds the runner's folders made by somebody who could exchange what
// is in them.
func TestFoldersOfOthers(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	for name, trap := range map[string]func(path string) error{
		"foreign":  func(path string) error { return os.Chown(path, 61555, 61555) },
		"writable": func(path string) error { return os.Chmod(path, 0o777) },
		"group":    func(path string) error { return os.Chmod(path, 0o770) },
		"link": func(path string) error {
			if err := os.Rename(path, path+"-elsewhere"); err != nil {
				return err
			}
			return os.Symlink(path+"-elsewhere", path)
		},
		"file": func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.WriteFile(path, nil, 0o600)
		},
	} {
		for _, folder := range []string{"", "attempts", "bin", "run"} {
			t.Run(name+" "+folder, func(t *testing.T) {
				t.Parallel()
				d := deps(t, newDir(t))
				path := filepath.Join(d.Dir, folder)
				if err := os.MkdirAll(path, 0o711); err != nil {
					t.Fatal(err)
				}
				if err := trap(path); err != nil {
					t.Fatal(err)
				}
				before, err := os.Lstat(path)
				if err != nil {
					t.Fatal(err)
				}
				_, err = process.New(d)
				if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), path+" is not the server's own") || strings.Contains(err.Error(), "\n") {
					t.Errorf("New = %v, want it refused with the reason", err)
				}
				if after, err := os.Lstat(path); err != nil || after.Mode() != before.Mode() {
					t.Errorf("New changed %v to %v, %v", before.Mode(), after.Mode(), err)
				}
			})
		}
	}
}

// TestUsersGoRound lets builds run one after the other: none gets the user of another.
func TestUsersGoRound(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	dir, server := newDir(t), runnertest.NewServer(t)
	d, heard := deps(t, dir), make(ends, 10)
	d.Notify = heard.notify
	const base = 2_000_000
	d.BaseUID = base
	// The last of the range was used last, so the first is next.
	if err := os.MkdirAll(d.Dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Dir, "last-user"), []byte(strconv.Itoa(base+999)), 0o600); err != nil {
		t.Fatal(err)
	}
	var users []string
	for i := range 4 {
		r := open(t, d)
		name := fmt.Sprint("round", i)
		server.Offer(name, nil, runner.Step{Name: "s", Run: "echo I am $(id -u)"})
		start(t, r, job(server, name))
		if e := heard.await(t); e.State.Result != runner.Succeeded {
			t.Fatalf("event %+v", e)
		}
		users = append(users, awaitLine(t, dir, "b-"+name, "I am "))
		if i%2 == 1 {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		// Held by this server no more; another may have it in its turn.
		file, err := os.Open(filepath.Join("/run/runnerhub", users[i]))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Errorf("the user of a build that ended is still held: %v", err)
		}
		if err := errors.Join(file.Close(), r.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"2000000", "2000001", "2000002", "2000003"}; !slices.Equal(users, want) {
		t.Errorf("the builds ran as %v, want %v", users, want)
	}
}

// TestOtherServersUser finds the user of a build in another server's hands: it is
// left alone, and not handed out.
func TestOtherServersUser(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	const base = 2_100_000
	dir, server := newDir(t), runnertest.NewServer(t)
	d, heard := deps(t, dir), make(ends, 10)
	d.Notify, d.BaseUID = heard.notify, base
	first := open(t, d) // makes the folder of locks
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join("/run/runnerhub", strconv.Itoa(base)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	r := open(t, d)
	server.Offer("next", nil, runner.Step{Name: "s", Run: "echo I am $(id -u)"})
	start(t, r, job(server, "next"))
	heard.await(t)
	if uid := awaitLine(t, dir, "b-next", "I am "); uid != strconv.Itoa(base+1) {
		t.Errorf("the build ran as %s", uid)
	}
}

// TestLeftWhileAway lets a build kill its agent while no server is there: what it left
// running ends all the same once there is one.
func TestLeftWhileAway(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	dir, server := newDir(t), runnertest.NewServer(t)
	d, heard := deps(t, dir), make(ends, 10)
	d.Notify = heard.notify
	first := open(t, d)
	server.Offer("stays", nil, runner.Step{Name: "s", Run: `setsid sh -c 'cd /; echo "daemon $$"; while :; do sleep 100; done' &
echo "agent $PPID"; while :; do sleep 100; done`})
	start(t, first, job(server, "stays"))
	daemon, agent := awaitLine(t, dir, "b-stays", "daemon "), awaitLine(t, dir, "b-stays", "agent ")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(agent)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	open(t, d)
	if e := heard.await(t); e.State.Result != runner.Errored {
		t.Errorf("event %+v", e)
	}
	if alive(t, daemon) {
		t.Error("the daemon lives on")
	}
}

// TestOwnIPC looks whether two builds share memory, or the runner said that it
// cannot keep them from that.
func TestOwnIPC(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	dir, server := newDir(t), runnertest.NewServer(t)
	d, heard := deps(t, dir), make(ends, 10)
	var said bytes.Buffer
	d.Notify, d.Logger = heard.notify, slog.New(slog.NewTextHandler(&said, nil))
	r := open(t, d)
	for _, name := range []string{"one", "two"} {
		server.Offer(name, nil, runner.Step{Name: "s", Run: "echo ipc $(readlink /proc/self/ns/ipc)"})
		start(t, r, job(server, name))
		heard.await(t)
	}
	mine, err := os.Readlink("/proc/self/ns/ipc")
	if err != nil {
		t.Fatal(err)
	}
	one, two := awaitLine(t, dir, "b-one", "ipc "), awaitLine(t, dir, "b-two", "ipc ")
	if strings.Contains(said.String(), "CLONE_NEWIPC") {
		t.Logf("this machine does not allow it: %s", &said)
	} else if one == mine || two == mine {
		t.Errorf("namespaces: builds %s and %s, server %s", one, two, mine)
	}
}

// squatMode takes a port and keeps it, listening or not.
func squatMode() int {
	ip, port, err := net.SplitHostPort(os.Args[2])
	if err != nil {
		return 1
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return 1
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: n, Addr: [4]byte(net.ParseIP(ip).To4())})
	}
	if err == nil && os.Args[3] == "listen" {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("squats")
	select {}
}

// TestPortTakenByBuild frees a port that builds took, and leaves anybody else's alone.
func TestPortTakenByBuild(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	for i, how := range []string{"listen", "bind"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			dir, server := newDir(t), runnertest.NewServer(t)
			d, heard := deps(t, dir), make(ends, 10)
			d.Notify, d.Logger, d.BaseUID = heard.notify, slog.New(slog.DiscardHandler), 2_200_000+1000*i
			r := open(t, d)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address, port := l.Addr().String(), l.Addr().(*net.TCPAddr).Port
			server.Offer("innocent", nil, runner.Step{Name: "s", Run: "echo runs; while :; do sleep 100; done"})
			start(t, r, job(server, "innocent"))
			awaitLine(t, dir, "b-innocent", "runs")
			if process.PortMayBeBuilds(port, d.BaseUID) || r.FreePort(port) {
				t.Error("a port of this test's was taken for a build's")
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			programs, err := filepath.Glob(filepath.Join(d.Dir, "bin", "*"))
			if err != nil || len(programs) != 1 {
				t.Fatalf("programs: %v, %v", programs, err)
			}
			server.Offer("squatter", nil, runner.Step{Name: "s", Run: strings.Join([]string{"exec", programs[0], "squat", address, how}, " ")})
			start(t, r, job(server, "squatter"))
			awaitLine(t, dir, "b-squatter", "squats")
			if _, err := net.Listen("tcp", address); err == nil {
				t.Fatal("the build did not take the port")
			}
			if !process.PortMayBeBuilds(port, d.BaseUID) {
				t.Error("the port is not seen to be a build's")
			}
			freed := 0
			for r.FreePort(port) {
				freed++
				if l, err = net.Listen("tcp", address); err == nil {
					break
				}
			}
			if err != nil {
				t.Fatalf("the port is still taken: %v", err)
			}
			if e := heard.await(t); e.State.Result != runner.Errored {
				t.Errorf("event %+v", e)
			}
			if s, err := r.State(t.Context(), "a-innocent"); how == "listen" && (err != nil || s.Phase != runner.Running || freed != 1) {
				t.Errorf("another build is %+v, %v, after %d were ended", s, err, freed)
			}
			if err := errors.Join(l.Close(), r.Stop(t.Context(), "a-innocent")); err != nil {
				t.Error(err)
			}
			heard.await(t)
		})
	}
}
