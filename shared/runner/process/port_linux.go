package process

import (
	"bufio"
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
)

// States of sockets in /proc/net/tcp in which they keep others from their port for good: TCP_LISTEN
// and TCP_ESTABLISHED of the kernel's net/tcp_states.h. What a dead server leaves is in neither.
const (
	listening   = "0A"
	established = "01"
)

// PortMayBeBuilds reports whether builds may have a port that is taken: nobody else is seen to
// use it. baseUID is as in Deps. Where builds have no users of their own it is false.
func PortMayBeBuilds(port, baseUID int) bool {
	if baseUID == 0 {
		baseUID = DefaultBaseUID
	}
	builds, others := portUsers(port, (&uidPool{base: baseUID}).contains)
	return canIsolate() && (len(builds) > 0 || !others)
}

// FreePort ends builds that have taken the server's port while that was away, and reports
// whether it ended one, so that taking the port is worth another try. A port that is bound and
// neither listened on nor connected shows no owner: then the builds that run are ended one after the other,
// one a call, because a service that any build can keep down is the greater harm.
func (r *Runner) FreePort(port int) bool {
	if !r.isolated {
		return false
	}
	seen, others := portUsers(port, r.uids.contains)
	for _, uid := range seen {
		if r.endUser(uid, port) {
			return true
		}
	}
	if others {
		return false
	}
	r.mu.Lock()
	var running []int
	for _, a := range r.attempts {
		if !a.over() && !a.foreign && a.meta.UID != 0 {
			running = append(running, a.meta.UID)
		}
	}
	r.mu.Unlock()
	slices.Sort(running)
	return slices.ContainsFunc(running, func(uid int) bool { return r.endUser(uid, port) })
}

// endUser kills all that runs under an id, unless another server holds it, and reports
// whether that ended something.
func (r *Runner) endUser(uid, port int) bool {
	all := &attempt{meta: meta{UID: uid}}
	if len(remaining(all)) == 0 {
		return false
	}
	r.mu.Lock()
	before := r.uids.held[uid] != nil
	held, err := r.uids.hold(uid)
	r.mu.Unlock()
	if err != nil || !held {
		return false
	}
	r.Logger.Warn("the server's port is taken, by a build it seems: all that its user runs is killed", "port", port, "user", uid)
	killed := killRest(all)
	if killed != nil {
		r.Logger.Error("kill what has the server's port", "user", uid, "err", killed)
	}
	if !before {
		r.mu.Lock()
		r.uids.release(uid)
		r.mu.Unlock()
	}
	return killed == nil
}

// portUsers answers the user ids of builds that have a socket on a local port, and whether
// somebody else has one in use. Source: proc_net_tcp in the kernel's documentation.
func portUsers(port int, isBuild func(uid int) bool) (builds []int, others bool) {
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		body, err := os.ReadFile(name)
		if err != nil {
			continue // no IPv6, for example
		}
		lines := bufio.NewScanner(bytes.NewReader(body))
		for lines.Scan() {
			// sl local_address rem_address st tx:rx tr:tm retrnsmt uid …
			fields := strings.Fields(lines.Text())
			if len(fields) < 8 {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			local, err := strconv.ParseUint(hex, 16, 16)
			uid, bad := strconv.Atoi(fields[7])
			switch {
			case err != nil || bad != nil || int(local) != port:
			case isBuild(uid):
				builds = append(builds, uid)
			case fields[3] == listening || fields[3] == established:
				others = true
			}
		}
	}
	return builds, others
}
