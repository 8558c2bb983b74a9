package codebuild

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// alive reports whether a process group has a process that is no zombie.
func alive(group int) bool {
	return len(processes(func(_ string, fields [][]byte) bool { return string(fields[2]) == strconv.Itoa(group) })) > 0
}

// remaining answers the living processes of a build: those of its user; without one, those in its folder or
// with its environment.
func remaining(p *place) []int {
	return processes(func(proc string, _ [][]byte) bool {
		if p.uid != 0 {
			return processUID(proc) == p.uid
		}
		cwd, _ := os.Readlink(filepath.Join(proc, "cwd"))
		environ, _ := os.ReadFile(filepath.Join(proc, "environ"))
		return strings.HasPrefix(cwd+"/", p.folder+"/") || bytes.Contains(environ, []byte("="+p.folder+"/"))
	})
}

// processes answers those that live and match. The fields are those of stat from the state on:
// state, parent, group, session.
func processes(match func(proc string, fields [][]byte) bool) []int {
	entries, _ := os.ReadDir("/proc")
	var all []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		proc := filepath.Join("/proc", e.Name())
		stat, err := os.ReadFile(filepath.Join(proc, "stat"))
		if err != nil {
			continue
		}
		// pid (name) state …; the name may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 4 || fields[0][0] == 'Z' || fields[0][0] == 'X' || !match(proc, fields) {
			continue
		}
		all = append(all, pid)
	}
	return all
}

// processUID answers the real user of a process; a closed one belongs to root by its folder.
func processUID(proc string) int {
	status, _ := os.ReadFile(filepath.Join(proc, "status"))
	_, rest, _ := strings.Cut(string(status), "\nUid:")
	uid := -1
	if fields := strings.Fields(rest); len(fields) > 0 {
		if n, err := strconv.Atoi(fields[0]); err == nil {
			uid = n
		}
	}
	return uid
}

// mapped reports whether a user id exists here: containers may have few.
func mapped(uid int) bool {
	body, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(body)) {
		var inside, outside, count int
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err == nil && uid >= inside && uid-inside < count {
			return true
		}
	}
	return false
}
