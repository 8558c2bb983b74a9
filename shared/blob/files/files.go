// Package files is the blob store of the standalone server: a folder with one file
// a blob. A file is named by the SHA-256 of its key, so that a key may be longer than a
// file name, and "a" and "a/b" may both exist; which keys there are is known from the
// table. A blob is written beside its place, synced, and renamed into it.
//
// Everything happens inside one os.Root: a link planted in the folder leads nowhere.
package files

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"runnerhub/shared/blob"
	"runnerhub/shared/fault"
)

// The folders inside the store's own.
const (
	whole    = "whole"
	incoming = "incoming" // being written; left behind by a process that died
)

// abandoned is the age past which a file in incoming has no writer any more.
const abandoned = 24 * time.Hour

// Deps is what New needs.
type Deps struct {
	Dir string // made when missing, with mode 0700
	Now func() time.Time
}

// Store implements blob.Store. It is safe for concurrent use, by several processes too.
type Store struct {
	root   *os.Root
	folder *os.File // whole, to sync it after a change
}

// New opens the folder and removes what died in it long ago.
func New(d Deps) (*Store, error) {
	if d.Dir == "" || d.Now == nil {
		return nil, errors.New("blob files: Dir and Now are required")
	}
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the blob folder: %w", err)
	}
	root, err := os.OpenRoot(d.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the blob folder: %w", err)
	}
	s := &Store{root: root}
	if err := s.prepare(d.Now()); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the blob folder: %w", err), s.Close())
	}
	return s, nil
}

func (s *Store) prepare(now time.Time) error {
	for _, name := range []string{whole, incoming} {
		if err := s.root.MkdirAll(name, 0o700); err != nil {
			return err
		}
	}
	// The two folders are durable before anything is in them.
	if err := s.syncFolder("."); err != nil {
		return err
	}
	entries, err := fs.ReadDir(s.root.FS(), incoming)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && now.Sub(info.ModTime()) > abandoned {
			err = s.root.Remove(incoming + "/" + e.Name())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	s.folder, err = s.root.Open(whole)
	return err
}

func (s *Store) syncFolder(name string) error {
	f, err := s.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Close lets go of the folder. Blobs being read stay readable.
func (s *Store) Close() error {
	if s.folder == nil {
		return s.root.Close()
	}
	return errors.Join(s.folder.Close(), s.root.Close())
}

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	if size < 0 {
		return fault.New(fault.Invalid, "a blob has no size of %d bytes", size)
	}
	name := incoming + "/" + rand.Text()
	if err := s.write(ctx, name, r, size); err != nil {
		// What cannot be removed now, New removes one day.
		return errors.Join(fmt.Errorf("put blob %s: %w", key, err), s.remove(name))
	}
	if err := s.root.Rename(name, path(key)); err != nil {
		return errors.Join(fault.Wrap(fault.Unavailable, err, "storing a blob failed"), s.remove(name))
	}
	return fault.Wrap(fault.Unknown, s.folder.Sync(), "storing a blob may have failed")
}

// write stores exactly size bytes of r under name and syncs them.
func (s *Store) write(ctx context.Context, name string, r io.Reader, size int64) error {
	f, err := s.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "storing a blob failed")
	}
	// One byte more is asked for than is wanted, to learn of a longer r.
	source := &reader{ctx: ctx, r: io.LimitReader(r, size+1)}
	n, err := io.Copy(f, source)
	switch {
	case source.err != nil:
		err = source.err
	case err != nil:
		err = fault.Wrap(fault.Unavailable, err, "storing a blob failed")
	case n < size:
		err = fault.New(fault.Invalid, "the content has %d bytes instead of %d", n, size)
	case n > size:
		err = fault.New(fault.Invalid, "the content has more than %d bytes", size)
	default:
		err = fault.Wrap(fault.Unavailable, f.Sync(), "storing a blob failed")
	}
	if closed := f.Close(); err == nil && closed != nil {
		err = fault.Wrap(fault.Unavailable, closed, "storing a blob failed")
	}
	return err
}

// reader ends with its context, and remembers an error of its own: io.Copy does not
// tell whether reading or writing failed.
type reader struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		r.err = err
		return 0, err
	}
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// Get implements blob.Store.
func (s *Store) Get(_ context.Context, key string) (io.ReadCloser, error) {
	if err := blob.CheckKey(key); err != nil {
		return nil, err
	}
	f, err := s.root.Open(path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "there is no blob %s", key)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "reading a blob failed")
	}
	return f, nil
}

// Delete implements blob.Store.
func (s *Store) Delete(_ context.Context, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	if err := s.remove(path(key)); err != nil {
		return fault.Wrap(fault.Unavailable, err, "deleting a blob failed")
	}
	return fault.Wrap(fault.Unknown, s.folder.Sync(), "deleting a blob may have failed")
}

func (s *Store) remove(name string) error {
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func path(key string) string {
	sum := sha256.Sum256([]byte(key))
	return whole + "/" + hex.EncodeToString(sum[:])
}
