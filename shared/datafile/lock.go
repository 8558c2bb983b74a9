package datafile

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// acquire takes the lock that says which process serves the data file. The
// kernel drops it with the process, however that dies, so a stale lock file
// means nothing. SQLite's own locks would let two servers share the file, and
// each would believe that it alone wakes the queue's waiters and runs the timers.
func acquire(path string) (*os.File, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the data file: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder := holder(lock)
		return nil, errors.Join(fmt.Errorf("%s is in use by another server%s; stop it or use another RUNNERHUB_DATA", path, holder), lock.Close())
	}
	// Who holds it is told to the next one who asks; nothing depends on it.
	if err := lock.Truncate(0); err == nil {
		_, _ = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return lock, nil
}

func holder(lock *os.File) string {
	text := make([]byte, 20)
	n, _ := lock.ReadAt(text, 0)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n]))); err == nil {
		return fmt.Sprintf(" (process %d)", pid)
	}
	return ""
}
