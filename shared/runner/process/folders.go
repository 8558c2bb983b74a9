//go:build unix

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"runnerhub/shared/fault"
)

func (r *Runner) attemptsDir() string { return filepath.Join(r.Dir, "attempts") }
func (r *Runner) programDir() string  { return filepath.Join(r.Dir, "bin") }
func (r *Runner) socketDir() string   { return filepath.Join(r.Dir, "run") }

// makeFolders makes the runner's folders, where they are missing, and checks them.
// As root, builds may traverse them, and list none.
func (r *Runner) makeFolders() error {
	mode := os.FileMode(0o700)
	if r.isolated {
		mode = 0o711
	}
	for _, dir := range []string{r.Dir, r.attemptsDir(), r.programDir(), r.socketDir()} {
		if err := ownFolder(dir, mode); err != nil {
			return err
		}
	}
	return nil
}

// ownFolder makes a folder and those above it. One that is there already was perhaps
// made by somebody else, who could then exchange the agent or answer in the server's
// place, so it has to be this user's alone.
func ownFolder(dir string, mode os.FileMode) error {
	err := os.Mkdir(dir, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if err := ownFolder(filepath.Dir(dir), mode); err != nil {
			return err
		}
		err = os.Mkdir(dir, mode)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fault.New(fault.Invalid, "%s is not the server's own: it has to be a folder, no link, that belongs to user %d and that nobody else may write to; remove it or choose another", dir, os.Geteuid())
	}
	if info.Mode().Perm() == mode {
		return nil
	}
	if err := os.Chmod(dir, mode); err != nil {
		return fmt.Errorf("set the mode of %s: %w", dir, err)
	}
	return nil
}
