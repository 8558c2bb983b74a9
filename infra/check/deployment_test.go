package check

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing/fstest"

	"runnerhub/infra/template"
)

const deployment = "template.yaml"

var variablePattern = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$`)

// stack answers what template.yaml deploys; nil where there are no functions to deploy.
func (t *tree) stack() (*template.Stack, []string) {
	if len(t.mains()) == 0 {
		return nil, nil
	}
	files := fstest.MapFS{}
	for name, text := range t.texts {
		if path.Ext(name) == ".yaml" {
			files[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	parsed, err := template.ParseFS(files, deployment)
	if err != nil {
		return nil, strings.Split(err.Error(), "\n")
	}
	stack, err := parsed.Resolve(template.Site{Name: "check", Region: "eu-central-1", Account: "123456789012"})
	if err != nil {
		return nil, strings.Split(err.Error(), "\n")
	}
	return stack, nil
}

// mains answers the functions' programs by the names of their folders.
func (t *tree) mains() map[string]*source {
	found := map[string]*source{}
	for _, s := range t.code {
		if s.path == s.dir+"/main.go" && path.Dir(s.dir) == "functions" {
			found[path.Base(s.dir)] = s
		}
	}
	return found
}

// folder answers where the program of a function of the template lies.
func folder(id string) string { return strings.ToLower(strings.TrimSuffix(id, "Function")) }

// uses answers the names that a file takes from a package of ours.
func (s *source) uses(of string) []string { return s.usesIn(s.File, of) }

// usesIn is uses for a part of the file.
func (s *source) usesIn(part ast.Node, of string) []string {
	name := ""
	s.imports(func(spec *ast.ImportSpec, dir, _ string) {
		if dir == of {
			name = path.Base(dir)
			if spec.Name != nil {
				name = spec.Name.Name
			}
		}
	})
	var names []string
	ast.Inspect(part, func(n ast.Node) bool {
		if e, ok := n.(*ast.SelectorExpr); ok && name != "" {
			if x, ok := e.X.(*ast.Ident); ok && x.Name == name {
				names = append(names, e.Sel.Name)
			}
		}
		return true
	})
	return names
}

// imported reports whether a name is that of an imported package.
func (s *source) imported(name string) bool {
	return slices.ContainsFunc(s.File.Imports, func(spec *ast.ImportSpec) bool {
		if spec.Name != nil {
			return spec.Name.Name == name
		}
		of, _ := strconv.Unquote(spec.Path.Value)
		return path.Base(of) == name
	})
}

func functionsAreDeployed(t *tree) (wrong []string) {
	stack, wrong := t.stack()
	if stack == nil {
		return wrong
	}
	mains, deployed := t.mains(), map[string]bool{}
	for _, f := range stack.Functions {
		deployed[folder(f.ID)] = true
		if mains[folder(f.ID)] == nil {
			wrong = append(wrong, fmt.Sprintf("%s: %s has no program functions/%s/main.go", deployment, f.ID, folder(f.ID)))
		}
	}
	for _, name := range sortedKeys(mains) {
		if !deployed[name] {
			wrong = append(wrong, fmt.Sprintf("functions/%s/main.go: %s has no function for it", name, deployment))
		}
	}
	return wrong
}

// environmentsAgree compares what the template sets for a function with what its program
// reads: through the functions of infra/aws that it calls, and those that they call.
func environmentsAgree(t *tree) (wrong []string) {
	stack, wrong := t.stack()
	if stack == nil {
		return wrong
	}
	reads := t.variables("infra/aws")
	opening := sortedKeys(t.packages())
	for _, f := range stack.Functions {
		main := t.mains()[folder(f.ID)]
		if main == nil {
			continue // functionsAreDeployed
		}
		read := map[string]bool{}
		for _, dir := range opening {
			for _, name := range main.uses(dir) {
				maps.Copy(read, reads[dir+"."+name])
			}
		}
		for _, name := range sortedKeys(read) {
			if _, set := f.Environment[name]; !set {
				wrong = append(wrong, fmt.Sprintf("%s: reads %s, which %s does not set for %s", main.path, name, deployment, f.ID))
			}
		}
		for _, name := range sortedKeys(f.Environment) {
			if !read[name] {
				wrong = append(wrong, fmt.Sprintf("%s: %s gets %s, which its program does not read", deployment, f.ID, name))
			}
		}
	}
	return wrong
}

// variables answers which environment variables each function and method of a package and
// those below it reads, itself or by what it calls there, as "dir.name". Methods are known by their names alone. What
// begins with AWS_ is set by Lambda, or by tests.
func (t *tree) variables(dir string) map[string]map[string]bool {
	reads, calls := map[string]map[string]bool{}, map[string][]string{}
	var below []string
	for _, other := range sortedKeys(t.packages()) {
		if other == dir || strings.HasPrefix(other, dir+"/") {
			below = append(below, other)
		}
	}
	for _, s := range t.code {
		if s.test || !slices.Contains(below, s.dir) {
			continue
		}
		for _, decl := range s.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			key := s.dir + "." + d.Name.Name
			if reads[key] == nil {
				reads[key] = map[string]bool{}
			}
			for _, other := range below {
				for _, name := range s.usesIn(d, other) {
					calls[key] = append(calls[key], other+"."+name)
				}
			}
			ast.Inspect(d, func(n ast.Node) bool {
				switch e := n.(type) {
				case *ast.SelectorExpr:
					x, ok := e.X.(*ast.Ident)
					return !ok || !s.imported(x.Name) // what is another package's is known above
				case *ast.BasicLit:
					text, _ := strconv.Unquote(e.Value)
					if e.Kind == token.STRING && variablePattern.MatchString(text) && !strings.HasPrefix(text, "AWS_") {
						reads[key][text] = true
					}
				case *ast.Ident:
					calls[key] = append(calls[key], s.dir+"."+e.Name)
				}
				return true
			})
		}
	}
	for changed := true; changed; {
		changed = false
		for name, called := range calls {
			for _, other := range called {
				for variable := range reads[other] {
					changed = changed || !reads[name][variable]
					reads[name][variable] = true
				}
			}
		}
	}
	return reads
}

// served is a route of shared/httpapi.
type served struct{ place, key string }

// routesAgree compares the routes of the template with those of shared/httpapi: each leads to
// the function whose program serves its group.
func routesAgree(t *tree) (wrong []string) {
	stack, wrong := t.stack()
	if stack == nil {
		return wrong
	}
	groups, of := t.routeGroups("shared/httpapi"), map[string]string{} // constructor → function
	for name, main := range t.mains() {
		for _, used := range main.uses("shared/httpapi") {
			if groups[used] != nil {
				of[used] = name
			}
		}
	}
	led, known := map[string]string{}, map[string]bool{}
	for _, r := range stack.Routes {
		led[r.Method+" "+r.Path] = r.Function
	}
	for _, group := range sortedKeys(groups) {
		for _, r := range groups[group] {
			known[r.key] = true
			switch to := led[r.key]; {
			case of[group] == "":
				wrong = append(wrong, fmt.Sprintf("%s: no function serves %s, which is of httpapi.%s", r.place, r.key, group))
			case to == "":
				wrong = append(wrong, fmt.Sprintf("%s: %s leads %s nowhere; functions/%s serves it", r.place, deployment, r.key, of[group]))
			case folder(to) != of[group]:
				wrong = append(wrong, fmt.Sprintf("%s: %s leads %s to %s; functions/%s serves it", r.place, deployment, r.key, to, of[group]))
			}
		}
	}
	for _, key := range sortedKeys(led) {
		if !known[key] {
			wrong = append(wrong, fmt.Sprintf("%s: %s leads to %s, and nobody serves it", deployment, key, led[key]))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// routeGroups answers the routes of each constructor of a group: the literals
// {http.MethodX, "/path", …} in the method routes of the type that it makes.
func (t *tree) routeGroups(dir string) map[string][]served {
	byType, groups := map[string][]served{}, map[string][]served{}
	each := func(fn func(s *source, d *ast.FuncDecl)) {
		for _, s := range t.packages()[dir] {
			for _, decl := range s.Decls {
				if d, ok := decl.(*ast.FuncDecl); ok && !s.test && d.Body != nil {
					fn(s, d)
				}
			}
		}
	}
	each(func(_ *source, d *ast.FuncDecl) {
		if d.Recv == nil || d.Name.Name != "routes" {
			return
		}
		ast.Inspect(d, func(n ast.Node) bool {
			if e, ok := n.(*ast.CompositeLit); ok && len(e.Elts) > 1 {
				method, isMethod := strings.CutPrefix(dotted(e.Elts[0]), "http.Method")
				if literal, ok := e.Elts[1].(*ast.BasicLit); ok && isMethod {
					address, _ := strconv.Unquote(literal.Value)
					key := strings.ToUpper(method) + " " + strings.TrimSuffix(address, "{$}")
					byType[receiver(d)] = append(byType[receiver(d)], served{t.at(e), key})
				}
			}
			return true
		})
	})
	each(func(_ *source, d *ast.FuncDecl) {
		if d.Recv != nil || !d.Name.IsExported() {
			return
		}
		ast.Inspect(d.Body, func(n ast.Node) bool {
			if e, ok := n.(*ast.CompositeLit); ok {
				if x, ok := e.Type.(*ast.Ident); ok && byType[x.Name] != nil {
					groups[d.Name.Name] = byType[x.Name]
				}
			}
			return true
		})
	})
	return groups
}
