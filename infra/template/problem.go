package template

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxProblems bounds what one template can make us report.
const maxProblems = 200

// Problem is one thing in a template that is wrong, or that the reader does not understand.
type Problem struct {
	File     string // below the root template's folder
	Line     int    // from 1; 0 where it is about the whole file
	Resource string // "Table", or "Data.Table" in what nested stack Data holds; empty outside of resources
	Property string // such as "Environment.Variables.PUBLIC_URL"
	Message  string
}

func (p Problem) String() string {
	where := p.File
	if p.Line > 0 {
		where += ":" + strconv.Itoa(p.Line)
	}
	for _, part := range []string{p.Resource, p.Property} {
		if part != "" {
			where += ": " + part
		}
	}
	return where + ": " + p.Message
}

// Problems are all that is wrong with a template, in the order of its lines.
type Problems []Problem

// Error lists the problems, one a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// problems collects.
type problems struct {
	found Problems
	more  int
}

func (ps *problems) add(at place, resource, property, format string, args ...any) {
	p := Problem{File: at.file, Line: at.line, Resource: resource, Property: property, Message: fmt.Sprintf(format, args...)}
	if slices.Contains(ps.found, p) {
		return // nested twice
	}
	if len(ps.found) >= maxProblems {
		ps.more++
		return
	}
	ps.found = append(ps.found, p)
}

// err answers what was collected; nil for nothing.
func (ps *problems) err() error {
	if len(ps.found) == 0 {
		return nil
	}
	slices.SortStableFunc(ps.found, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Property, b.Property))
	})
	if ps.more > 0 {
		ps.found = append(ps.found, Problem{File: ps.found[0].File, Message: fmt.Sprintf("and %d more", ps.more)})
	}
	return ps.found
}

// shown quotes a foreign value for a message, cut to a readable length.
func shown(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strconv.Quote(s)
}
