package check

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

const (
	architecture = "docs/architecture.md"
	operations   = "docs/operations.md"
	decisions    = "docs/decisions/"
)

var (
	homePattern     = regexp.MustCompile(`(^|[^\w.])/(root|home/[a-z][\w-]*|Users/[\w-]+)/`)
	registryPattern = regexp.MustCompile(`(proxy|sum)\.golang\.org|goproxy\.(io|cn)|registry\.(npmjs|yarnpkg)|pypi\.org|pythonhosted\.org|index\.crates\.io|rubygems\.org|registry-1\.docker\.io`)
	linkPattern     = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	codePattern     = regexp.MustCompile("`[^`]*`")
	makePattern     = regexp.MustCompile("(?:^    |`)make ([a-z][a-z0-9-]*)")
	targetPattern   = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):(?:[^=]|$)`)
	decisionPattern = regexp.MustCompile(`^\d{4}-[a-z0-9-]+\.md$`)
	settingPattern  = regexp.MustCompile("^\\| `([A-Z][A-Z0-9_]*)` \\|")
	packagePattern  = regexp.MustCompile("^\\| `((?:shared|infra|functions)/[a-z0-9/]+)` \\|")
)

// lines calls fn for each line of the files whose names match, in order, with its
// place.
func (t *tree) lines(match func(name string) bool, fn func(name, place, line string)) {
	for _, name := range sortedKeys(t.texts) {
		if !match(name) {
			continue
		}
		n := 0
		for line := range strings.Lines(t.texts[name]) {
			n++
			fn(name, fmt.Sprintf("%s:%d", name, n), strings.TrimRight(line, "\r\n"))
		}
	}
}

func markdown(name string) bool { return path.Ext(name) == ".md" }

func noForeignAddresses(t *tree) (wrong []string) {
	everything := func(string) bool { return true }
	t.lines(everything, func(_, place, line string) {
		if homePattern.MatchString(line) || t.root != "" && strings.Contains(line, t.root) {
			wrong = append(wrong, place+": a path of somebody's machine")
		}
		if registryPattern.MatchString(line) {
			wrong = append(wrong, place+": the address of a package registry, which is the business of who builds")
		}
	})
	return wrong
}

// prose answers a text without what stands in code, its lines where they were.
func prose(text string) string {
	var b strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if fence {
			fenced = !fenced
		}
		if fence || fenced || strings.HasPrefix(line, "    ") {
			line = "\n"
		}
		b.WriteString(line)
	}
	return codePattern.ReplaceAllStringFunc(b.String(), func(code string) string { return strings.Repeat("\n", strings.Count(code, "\n")) })
}

// anchors answers what a link can point at within a document.
func anchors(text string) []string {
	var found []string
	for line := range strings.Lines(text) {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			found = append(found, strings.Map(func(r rune) rune {
				switch {
				case r == ' ':
					return '-'
				case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
					return unicode.ToLower(r)
				}
				return -1
			}, strings.TrimSpace(title)))
		}
	}
	return found
}

func linksLeadSomewhere(t *tree) (wrong []string) {
	for _, name := range sortedKeys(t.texts) {
		if !markdown(name) {
			continue
		}
		n := 0
		for line := range strings.Lines(prose(t.texts[name])) {
			n++
			for _, link := range linkPattern.FindAllStringSubmatch(line, -1) {
				if strings.Contains(link[1], ":") {
					continue // another place, which may be away without a fault of ours
				}
				file, anchor, _ := strings.Cut(link[1], "#")
				target := name
				if file != "" {
					target = path.Join(path.Dir(name), file)
				}
				switch {
				case !t.exists(target):
					wrong = append(wrong, fmt.Sprintf("%s:%d: %s is not there", name, n, link[1]))
				case anchor != "" && !slices.Contains(anchors(t.texts[target]), anchor):
					wrong = append(wrong, fmt.Sprintf("%s:%d: %s has no heading %q", name, n, target, anchor))
				}
			}
		}
	}
	return wrong
}

// exists reports whether there is a file or folder.
func (t *tree) exists(name string) bool {
	if t.files[name] {
		return true
	}
	for file := range t.files {
		if strings.HasPrefix(file, name+"/") {
			return true
		}
	}
	return false
}

func decisionsAreListed(t *tree) (wrong []string) {
	for _, name := range sortedKeys(t.texts) {
		base, ok := strings.CutPrefix(name, decisions)
		if !ok || base == "README.md" {
			continue
		}
		if !strings.Contains(t.texts[architecture], "(decisions/"+base+")") && !strings.Contains(t.texts[decisions+"README.md"], "("+base+")") {
			wrong = append(wrong, fmt.Sprintf("%s: neither %s nor %sREADME.md links to it", name, architecture, decisions))
		}
		if !decisionPattern.MatchString(base) {
			wrong = append(wrong, name+": decisions are called 0001-in-a-few-words.md")
		}
	}
	return wrong
}

func commandsExist(t *tree) (wrong []string) {
	targets := map[string]bool{}
	for _, m := range targetPattern.FindAllStringSubmatch(t.texts["Makefile"], -1) {
		targets[m[1]] = true
	}
	t.lines(markdown, func(_, place, line string) {
		for _, m := range makePattern.FindAllStringSubmatch(line, -1) {
			if !targets[m[1]] {
				wrong = append(wrong, fmt.Sprintf("%s: the Makefile has no target %s", place, m[1]))
			}
		}
	})
	return wrong
}

// settingsAreDocumented compares what the standalone server reads from its
// environment with the first column of the tables in docs/operations.md.
func settingsAreDocumented(t *tree) (wrong []string) {
	documented := map[string]string{}
	t.lines(func(name string) bool { return name == operations }, func(_, place, line string) {
		if m := settingPattern.FindStringSubmatch(line); m != nil {
			documented[m[1]] = place
		}
	})
	read := map[string]bool{}
	for _, s := range t.code {
		if s.dir != "infra/standalone" || s.test {
			continue
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			name := setting(n)
			if name == "" {
				return true
			}
			read[name] = true
			if documented[name] == "" {
				wrong = append(wrong, fmt.Sprintf("%s: %s is read here, and no table of %s has it", t.at(n), name, operations))
			}
			return true
		})
	}
	for _, name := range sortedKeys(documented) {
		if !read[name] {
			wrong = append(wrong, fmt.Sprintf("%s: %s is documented, and infra/standalone does not read it", documented[name], name))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// setting answers the name of the environment variable that an expression reads:
// e["NAME"], e.Or("NAME", …), os.Getenv("NAME") or os.LookupEnv("NAME").
func setting(n ast.Node) string {
	var argument ast.Expr
	switch e := n.(type) {
	case *ast.IndexExpr:
		if x, ok := e.X.(*ast.Ident); ok && x.Name == "e" {
			argument = e.Index
		}
	case *ast.CallExpr:
		switch dotted(e.Fun) {
		case "e.Or", "os.Getenv", "os.LookupEnv":
			argument = e.Args[0]
		}
	}
	literal, ok := argument.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return ""
	}
	name, _ := strconv.Unquote(literal.Value)
	return name
}

// packagesAreDescribed compares the packages with the table in
// docs/architecture.md.
func packagesAreDescribed(t *tree) (wrong []string) {
	packages, described := t.packages(), map[string]bool{}
	t.lines(func(name string) bool { return name == architecture }, func(_, place, line string) {
		if m := packagePattern.FindStringSubmatch(line); m != nil {
			described[m[1]] = true
			if packages[m[1]] == nil {
				wrong = append(wrong, fmt.Sprintf("%s: there is no package %s", place, m[1]))
			}
		}
	})
	for _, dir := range sortedKeys(packages) {
		if !described[dir] && !suite(dir) {
			wrong = append(wrong, fmt.Sprintf("%s: %s has no line for it", dir, architecture))
		}
	}
	return wrong
}
