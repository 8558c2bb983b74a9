package check

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"slices"
	"strings"
)

// maxMethods is how many an interface has at most.
const maxMethods = 5

// maxLines is how long a function's main.go is at most.
const maxLines = 80

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// noPackageState allows at package level what never changes: sentinels, patterns,
// embedded files, assertions that a type implements an interface.
func noPackageState(t *tree) (wrong []string) {
	for _, s := range t.code {
		for _, decl := range s.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				wrong = append(wrong, t.at(f)+": init runs unasked: do it in New, or in main")
			}
			group, ok := decl.(*ast.GenDecl)
			if !ok || group.Tok != token.VAR {
				continue
			}
			for _, spec := range group.Specs {
				v := spec.(*ast.ValueSpec)
				if !constant(v, group) {
					wrong = append(wrong, fmt.Sprintf("%s: %s is state of the package: make it a constant, a function or a field", t.at(v), v.Names[0].Name))
				}
			}
		}
	}
	return wrong
}

// constant reports whether a variable is one only because Go has no constants of
// its type.
func constant(v *ast.ValueSpec, group *ast.GenDecl) bool {
	if !slices.ContainsFunc(v.Names, func(n *ast.Ident) bool { return n.Name != "_" }) {
		return true
	}
	if len(v.Values) == 0 {
		return embeds(v.Doc) || embeds(group.Doc)
	}
	for _, value := range v.Values {
		call, ok := value.(*ast.CallExpr)
		if !ok {
			return false
		}
		switch dotted(call.Fun) {
		case "errors.New", "regexp.MustCompile", "template.Must", "time.Date":
		default:
			return false
		}
	}
	return true
}

func embeds(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// dotted answers "a.b" for the selector a.b, and nothing for anything else.
func dotted(e ast.Expr) string {
	if selector, ok := e.(*ast.SelectorExpr); ok {
		if x, ok := selector.X.(*ast.Ident); ok {
			return x.Name + "." + selector.Sel.Name
		}
	}
	return ""
}

func packageNames(t *tree) (wrong []string) {
	for _, s := range t.code {
		switch strings.TrimSuffix(s.Name.Name, "_test") {
		case "util", "utils", "common", "helper", "helpers", "types", "models", "misc":
			wrong = append(wrong, fmt.Sprintf("%s: %s says nothing: name the package for what it does", t.at(s.Name), s.Name.Name))
		}
	}
	return wrong
}

func packageComments(t *tree) (wrong []string) {
	packages := t.packages()
	for _, dir := range sortedKeys(packages) {
		code := slices.DeleteFunc(packages[dir], func(s *source) bool { return s.test })
		if len(code) > 0 && !slices.ContainsFunc(code, func(s *source) bool { return s.Doc != nil }) {
			wrong = append(wrong, dir+": no package comment: say what it is, and what it is not")
		}
	}
	return wrong
}

func exportedComments(t *tree) (wrong []string) {
	silent := func(n ast.Node, name string) {
		wrong = append(wrong, fmt.Sprintf("%s: %s is exported and has no comment: state units, errors, where a fact is from", t.at(n), name))
	}
	for _, s := range t.code {
		if s.test {
			continue
		}
		for _, decl := range s.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Doc == nil && d.Name.IsExported() && ast.IsExported(cmp.Or(receiver(d), "Function")) && !obvious(d) {
					silent(d, d.Name.Name)
				}
			case *ast.GenDecl:
				if d.Doc != nil {
					continue
				}
				var of ast.Expr // the type of the constants; iota repeats it
				for _, spec := range d.Specs {
					switch v := spec.(type) {
					case *ast.TypeSpec:
						if v.Doc == nil && v.Comment == nil && v.Name.IsExported() {
							silent(v, v.Name.Name)
						}
					case *ast.ValueSpec:
						if v.Type != nil || len(v.Values) > 0 {
							of = v.Type
						}
						if v.Doc == nil && v.Comment == nil && v.Names[0].IsExported() && typeComment(s, of) == nil {
							silent(v, v.Names[0].Name)
						}
					}
				}
			}
		}
	}
	return wrong
}

// receiver answers the name of the type that a method belongs to.
func receiver(d *ast.FuncDecl) string {
	name := ""
	if d.Recv != nil {
		ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
			if x, ok := n.(*ast.Ident); ok && name == "" {
				name = x.Name
			}
			return name == ""
		})
	}
	return name
}

// obvious reports whether a method is one that the standard library has described.
func obvious(d *ast.FuncDecl) bool {
	switch d.Name.Name {
	case "Error", "String", "Unwrap", "Close", "ServeHTTP", "Read", "Write", "Header", "WriteHeader", "Len", "Less", "Swap",
		"Format", "GoString", "LogValue", "MarshalJSON", "MarshalText", "UnmarshalJSON", "UnmarshalText":
		return d.Recv != nil
	}
	return false
}

// typeComment answers the comment of the type of a constant, where that is of the
// same file: then they are explained together.
func typeComment(s *source, of ast.Expr) *ast.CommentGroup {
	name, ok := of.(*ast.Ident)
	if !ok {
		return nil
	}
	for _, decl := range s.Decls {
		if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.TYPE {
			for _, spec := range d.Specs {
				if spec.(*ast.TypeSpec).Name.Name == name.Name {
					return d.Doc
				}
			}
		}
	}
	return nil
}

func smallInterfaces(t *tree) (wrong []string) {
	for _, files := range t.packages() {
		known := map[string]*ast.InterfaceType{}
		for _, s := range files {
			ast.Inspect(s.File, func(n ast.Node) bool {
				if spec, ok := n.(*ast.TypeSpec); ok {
					if i, ok := spec.Type.(*ast.InterfaceType); ok {
						known[spec.Name.Name] = i
					}
				}
				return true
			})
		}
		for _, name := range sortedKeys(known) {
			if n := methods(known[name], known); n > maxMethods {
				wrong = append(wrong, fmt.Sprintf("%s: %s has %d methods: an interface has at most %d, so split it by who calls it", t.at(known[name]), name, n, maxMethods))
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

// methods counts those of an interface, with those of the embedded ones of its
// package.
func methods(i *ast.InterfaceType, known map[string]*ast.InterfaceType) (n int) {
	for _, field := range i.Methods.List {
		switch e := field.Type.(type) {
		case *ast.FuncType:
			n += len(field.Names)
		case *ast.Ident:
			if known[e.Name] != nil && known[e.Name] != i {
				n += methods(known[e.Name], known)
			}
		}
	}
	return n
}

func noOptions(t *tree) (wrong []string) {
	option := func(e ast.Expr) bool {
		_, function := e.(*ast.FuncType)
		name, named := e.(*ast.Ident)
		return function || named && strings.HasSuffix(name.Name, "Option")
	}
	complain := func(n ast.Node) {
		wrong = append(wrong, t.at(n)+": a functional option: use a field of Deps")
	}
	for _, s := range t.code {
		for _, decl := range s.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if strings.HasPrefix(strings.ToLower(d.Name.Name), "with") && d.Type.Results != nil &&
					slices.ContainsFunc(d.Type.Results.List, func(f *ast.Field) bool { return option(f.Type) }) {
					complain(d)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.TypeSpec); ok && strings.HasSuffix(v.Name.Name, "Option") {
						if _, function := v.Type.(*ast.FuncType); function {
							complain(v)
						}
					}
				}
			}
		}
	}
	return wrong
}

// noSleepNoSkip lets a test sleep in the bubble of testing/synctest, where that
// takes no time and waits for nothing else, and in a loop that looks at another
// process until a deadline in its condition, where nothing tells of the change.
func noSleepNoSkip(t *tree) (wrong []string) {
	for _, s := range t.code {
		if !s.forTests() {
			continue
		}
		bubble := false
		s.imports(func(_ *ast.ImportSpec, _, foreign string) { bubble = bubble || foreign == "testing/synctest" })
		polls := map[ast.Node]bool{}
		ast.Inspect(s.File, func(n ast.Node) bool {
			if loop, ok := n.(*ast.ForStmt); ok && bounded(loop.Cond) {
				for _, statement := range loop.Body.List {
					if e, ok := statement.(*ast.ExprStmt); ok {
						polls[e.X] = true
					}
				}
			}
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch dotted(call.Fun) {
			case "time.Sleep":
				if !bubble && !polls[call] {
					wrong = append(wrong, t.at(call)+": sleeping makes a test slow and still wrong on a slow machine: wait for what has to happen")
				}
			case "t.Skip", "t.Skipf", "t.SkipNow", "b.Skip", "b.Skipf", "b.SkipNow", "f.Skip", "f.Skipf", "f.SkipNow", "tb.Skip", "tb.Skipf", "tb.SkipNow":
				wrong = append(wrong, t.at(call)+": a skipped test proves nothing: make what it needs, or choose by build constraint")
			}
			return true
		})
	}
	return wrong
}

// testsAreParallel excuses the mains, whose tests are about whole processes, and
// tests that change what the process has once.
func testsAreParallel(t *tree) (wrong []string) {
	for _, s := range t.code {
		if !s.test || !strings.HasPrefix(s.dir, "shared/") {
			continue
		}
		for _, decl := range s.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok || d.Recv != nil || !strings.HasPrefix(d.Name.Name, "Test") || d.Name.Name == "TestMain" {
				continue
			}
			excused := false
			ast.Inspect(d, func(n ast.Node) bool {
				if e, ok := n.(ast.Expr); ok {
					switch dotted(e) {
					case "t.Parallel", "t.Setenv", "t.Chdir":
						excused = true
					}
				}
				return !excused
			})
			if !excused {
				wrong = append(wrong, fmt.Sprintf("%s: %s does not call t.Parallel", t.at(d), d.Name.Name))
			}
		}
	}
	return wrong
}

// bounded reports whether a loop's condition looks at a deadline.
func bounded(condition ast.Expr) bool {
	found := false
	if condition != nil {
		ast.Inspect(condition, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok && (selector.Sel.Name == "Before" || selector.Sel.Name == "After") {
				found = true
			}
			return !found
		})
	}
	return found
}

func thinFunctions(t *tree) (wrong []string) {
	for _, s := range t.code {
		if s.test || !strings.HasPrefix(s.path, "functions/") {
			continue
		}
		switch lines := t.set.File(s.Pos()).LineCount(); {
		case path.Base(s.path) != "main.go":
			wrong = append(wrong, s.path+": a function is one main.go of wiring: logic belongs in shared/")
		case lines > maxLines:
			wrong = append(wrong, fmt.Sprintf("%s: %d lines: a function is wiring only, at most %d", s.path, lines, maxLines))
		}
	}
	return wrong
}
