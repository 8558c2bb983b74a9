package check

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
)

// layer is a row of packages that do not import each other.
type layer struct {
	what     string
	packages string // below shared/
}

// layers are the rows, the lowest first: a package imports from the rows above its
// own in this list, never its neighbours and never from below. A new package of
// shared/ gets its place here.
func layers() []layer {
	return []layer{
		{"words that everything uses", "secret fault"},
		{"the vocabulary", "ci"},
		{contracts, "table queue blob vault runner timetable buildlog credential"},
		{"pure packages, a Bitbucket client, what drivers have in common", "budget pipeline bitbucket datafile amazon crashtest random setting"},
		{drivers, ""},
		{"what is persisted; what stands inside a build", "store agent"},
		{"what use cases have in common", "access consent grant message timekeeper"},
		{"use cases", "signin connect catalog control ingest authoring dispatch report schedule refresh sweep"},
		{"the ways in", "httpapi lambdaio"},
		{mains, ""},
	}
}

const (
	contracts = "contracts"
	drivers   = "drivers and suites: one level below their contract"
	mains     = "mains, and what only they and tests use: functions/, infra/"
)

// rank answers the row of a package; ok is false for one that has none.
func rank(dir string) (row int, ok bool) {
	all := layers()
	named := func(what string) int {
		return slices.IndexFunc(all, func(l layer) bool { return l.what == what })
	}
	listed := func(l layer, name string) bool { return slices.Contains(strings.Fields(l.packages), name) }
	parts := strings.Split(dir, "/")
	switch {
	case len(parts) == 2 && (parts[0] == "functions" || parts[0] == "infra"), len(parts) == 3 && path.Dir(dir) == "infra/aws":
		return named(mains), true
	case len(parts) == 2 && parts[0] == "shared":
		row = slices.IndexFunc(all, func(l layer) bool { return listed(l, parts[1]) })
		return row, row >= 0
	case len(parts) == 3 && parts[0] == "shared" && listed(all[named(contracts)], parts[1]):
		return named(drivers), true
	// A suite may stand below any package whose guarantees it tests.
	case len(parts) == 3 && parts[0] == "shared" && suite(dir):
		return rank(path.Dir(dir))
	}
	return 0, false
}

func everyPackageHasItsLayer(t *tree) (wrong []string) {
	for _, dir := range sortedKeys(t.packages()) {
		if _, ok := rank(dir); !ok {
			wrong = append(wrong, fmt.Sprintf("%s: no such place is planned: packages are functions/x, infra/x, shared/x with x in the layers of infra/check, "+
				"or a driver directly below a contract", dir))
		}
	}
	return wrong
}

func importsGoOneWay(t *tree) (wrong []string) {
	all := layers()
	for _, s := range t.code {
		from, ok := rank(s.dir)
		if s.forTests() || !ok {
			continue // tests use what they need, and everyPackageHasItsLayer told the rest
		}
		s.imports(func(spec *ast.ImportSpec, dir, _ string) {
			to, ok := rank(dir)
			switch {
			case dir == "" || !ok || suite(dir): // suitesAreForTests
			case all[from].what == mains:
			case all[to].what == drivers:
				wrong = append(wrong, fmt.Sprintf("%s: %s is a driver, which only mains choose: take the contract %s", t.at(spec), dir, path.Dir(dir)))
			case to == from:
				wrong = append(wrong, fmt.Sprintf("%s: %s and %s are of one layer (%s) and do not import each other: leave a message, or move what both need down",
					t.at(spec), s.dir, dir, all[to].what))
			case to > from:
				wrong = append(wrong, fmt.Sprintf("%s: %s (%s) is above %s (%s): declare a small interface here, or move what is needed down",
					t.at(spec), dir, all[to].what, s.dir, all[from].what))
			}
		})
	}
	return wrong
}

func suitesAreForTests(t *tree) (wrong []string) {
	for _, s := range t.code {
		if s.forTests() {
			continue
		}
		s.imports(func(spec *ast.ImportSpec, dir, foreign string) {
			if suite(dir) || foreign == "testing" || strings.HasPrefix(foreign, "testing/") || strings.HasSuffix(foreign, "/httptest") {
				wrong = append(wrong, fmt.Sprintf("%s: imported by the program itself: only _test.go files and packages called …test import this", t.at(spec)))
			}
		})
	}
	return wrong
}

func oneImporterOfAWS(t *tree) (wrong []string) {
	const services = "github.com/aws/aws-sdk-go-v2/service/"
	owner := map[string]string{}
	for _, s := range t.code {
		row, ok := rank(s.dir)
		s.imports(func(spec *ast.ImportSpec, _, foreign string) {
			service, is := strings.CutPrefix(foreign, services)
			if !is || s.test {
				return
			}
			service, _, _ = strings.Cut(service, "/")
			switch {
			case !ok || layers()[row].what != drivers:
				wrong = append(wrong, fmt.Sprintf("%s: the SDK of AWS stays in drivers, which turn its errors into faults", t.at(spec)))
			case owner[service] == "":
				owner[service] = s.dir
			case owner[service] != s.dir:
				wrong = append(wrong, fmt.Sprintf("%s: %s speaks to %s already: one package turns a service's errors into faults", t.at(spec), owner[service], service))
			}
		})
	}
	return wrong
}
