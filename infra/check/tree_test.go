package check

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// module is how imports of ours begin.
const module = "runnerhub/"

// tree is the source tree. Paths are below its root, with slashes.
type tree struct {
	root  string            // where it is checked out; empty when that is no name to look for
	texts map[string]string // every file that is text
	files map[string]bool   // every file
	set   *token.FileSet
	code  []*source // ordered by path
}

// source is one Go file.
type source struct {
	*ast.File
	path string
	dir  string // of its package
	test bool   // it is compiled for tests only
}

// suite reports whether a package exists for tests alone: its name says so.
func suite(dir string) bool { return strings.HasSuffix(dir, "test") }

// forTests reports whether nothing of the file runs outside tests.
func (s *source) forTests() bool { return s.test || suite(s.dir) }

// imports calls fn for each import: with the folder of a package of ours, or the
// path of a foreign one.
func (s *source) imports(fn func(spec *ast.ImportSpec, dir, foreign string)) {
	for _, spec := range s.File.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		if dir, ours := strings.CutPrefix(name, module); ours {
			fn(spec, dir, "")
		} else {
			fn(spec, "", name)
		}
	}
}

// at is where something stands, for a message.
func (t *tree) at(n ast.Node) string {
	p := t.set.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// packages answers the folders that hold Go code, with their files.
func (t *tree) packages() map[string][]*source {
	found := map[string][]*source{}
	for _, s := range t.code {
		found[s.dir] = append(found[s.dir], s)
	}
	return found
}

// newTree parses a tree given as texts by path.
func newTree(root string, texts map[string]string) (*tree, error) {
	t := &tree{root: root, texts: texts, files: map[string]bool{}, set: token.NewFileSet()}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		t.files[name] = true
		if path.Ext(name) != ".go" {
			continue
		}
		file, err := parser.ParseFile(t.set, name, texts[name], parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		t.code = append(t.code, &source{File: file, path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go")})
	}
	return t, nil
}

// readTree reads the tree that this package is in.
func readTree(t *testing.T) *tree {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	texts, others := map[string]string{}, []string{}
	err = filepath.WalkDir(root, func(full string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(below)
		if entry.IsDir() {
			if produced(name) {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(full)
		if err != nil {
			return err
		}
		if utf8.Valid(text) {
			texts[name] = string(text)
		} else {
			others = append(others, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := texts["go.mod"]; !ok {
		t.Fatalf("%s has no go.mod: this package has moved", root)
	}
	known := ""
	if strings.Count(root, string(filepath.Separator)) > 1 {
		known = root
	}
	tr, err := newTree(known, texts)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range others {
		tr.files[name] = true
	}
	return tr
}

// produced reports whether a folder holds what is not in version control.
func produced(dir string) bool {
	return dir == ".git" || dir == "bin" || dir == ".aws-sam" || dir == "data" || path.Base(dir) == "node_modules"
}
