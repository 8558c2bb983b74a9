package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"runnerhub/shared/pipeline"
)

// offer is what this server does for builds; what else a pipeline file asks for is
// refused.
func offer() pipeline.Offer {
	return pipeline.Offer{Platforms: []string{"linux"}, Runners: []string{"process"}, Features: []pipeline.Feature{pipeline.ContinueOnError, pipeline.Groups, pipeline.StepTimeouts}}
}

const checkUsage = `usage: runnerhub check [flags] [file...]

Says what is wrong with pipeline files, one mistake a line as
file:line:column: message, without a server. The file - is the standard input;
without any file, it looks where the server looks: .runnerhub/runnerhub.yml, then
runnerhub.yml.

Given an event, it also says what that would do, and why:

  runnerhub check --event push --branch feature/x
  runnerhub check --event push --tag v1.2
  runnerhub check --pull-request --source feature/x --target main
  runnerhub check --event push --branch main --changed docs/a.md --changed src/b.go

Exit codes: 0 no mistakes, 1 mistakes in a file, 2 it could not be checked.

`

// checker is the command check: everything it reads and writes.
type checker struct {
	dir           string // paths are written from here
	in            io.Reader
	out, complain io.Writer
}

// The exit codes of check.
const (
	checkFine     = 0
	checkMistakes = 1
	checkFailed   = 2
)

// checked is what check says of one file, as JSON.
type checked struct {
	File string `json:"file"`
	pipeline.Report
}

func (c checker) run(args []string) int {
	var e pipeline.Event
	var kind string
	var changed repeated
	flags := flag.NewFlagSet("runnerhub check", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&kind, "event", "", "what happened: push, pull_request, manual or schedule")
	pullRequest := flags.Bool("pull-request", false, "short for --event pull_request")
	flags.StringVar(&e.Branch, "branch", "", "the pushed branch")
	flags.StringVar(&e.Tag, "tag", "", "the pushed tag")
	source := flags.String("source", "", "the branch that the pull request comes from")
	flags.StringVar(&e.Target, "target", "", "the branch that the pull request goes to")
	flags.Var(&changed, "changed", "a changed `file`, written from the root of the repository; may be given several times")
	flags.StringVar(&e.Message, "message", "", "the message of the head commit, which may hold [skip ci]")
	asJSON := flags.Bool("json", false, "print JSON")
	schema := flags.Bool("schema", false, "print the JSON Schema of the file, for editors, and do nothing else")

	var names []string
	for len(args) > 0 { // flags may stand behind files
		if err := flags.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				flags.SetOutput(c.out)
				_, _ = fmt.Fprint(c.out, checkUsage, "Flags:\n")
				flags.PrintDefaults()
				return checkFine
			}
			return c.fail("%v; runnerhub check -h says how it is used", err)
		}
		if args = flags.Args(); len(args) > 0 {
			names, args = append(names, args[0]), args[1:]
		}
	}
	if *schema {
		_, _ = c.out.Write(pipeline.Schema())
		return checkFine
	}
	if *pullRequest {
		if kind != "" && kind != string(pipeline.PullRequest) {
			return c.fail("--pull-request and --event %s are two events: give one", kind)
		}
		kind = string(pipeline.PullRequest)
	}
	e.Changed = changed
	event, err := eventOf(kind, e, *source)
	if err != nil {
		return c.fail("%v", err)
	}
	if len(names) == 0 {
		if names, err = c.found(); err != nil {
			return c.fail("%v", err)
		}
	}
	var all []checked
	code := checkFine
	for _, name := range names {
		text, err := c.read(name)
		if err != nil {
			return c.fail("%v", err)
		}
		if name == "-" {
			name = "stdin"
		}
		one := checked{name, pipeline.Check(text, offer(), event)}
		one.Problems, one.Unoffered = one.Problems.In(name), one.Unoffered.In(name)
		if len(one.Problems) > 0 {
			code = checkMistakes
		}
		all = append(all, one)
	}
	if err := c.show(all, *asJSON); err != nil {
		return c.fail("%v", err)
	}
	return code
}

// eventOf makes the event of the flags; nil when they name none.
func eventOf(kind string, e pipeline.Event, source string) (*pipeline.Event, error) {
	switch {
	case kind == "" && (source != "" || e.Target != ""):
		kind = string(pipeline.PullRequest)
	case kind == "" && (e.Branch != "" || e.Tag != ""):
		kind = string(pipeline.Push)
	case kind == "" && (e.Changed != nil || e.Message != ""):
		return nil, errors.New("--changed and --message are about an event: add --event push --branch …")
	case kind == "":
		return nil, nil
	}
	switch e.Kind = pipeline.Kind(kind); e.Kind {
	case pipeline.Push:
		switch {
		case source != "" || e.Target != "":
			return nil, errors.New("a push has no --source and no --target: use --branch or --tag, or --pull-request")
		case (e.Branch == "") == (e.Tag == ""):
			return nil, errors.New("a push needs --branch or --tag, one of them")
		}
	case pipeline.PullRequest:
		switch {
		case e.Branch != "" || e.Tag != "":
			return nil, errors.New("a pull request has no --branch and no --tag: use --source and --target")
		case source == "" || e.Target == "":
			return nil, errors.New("a pull request needs --source and --target")
		}
		e.Branch = source
	case pipeline.Manual, pipeline.Schedule:
	default:
		return nil, fmt.Errorf("--event is %q; it is push, pull_request, manual or schedule", kind)
	}
	return &e, nil
}

// found answers the file where the server would look for it.
func (c checker) found() ([]string, error) {
	for _, name := range pipeline.DefaultPaths() {
		if _, err := os.Stat(filepath.Join(c.dir, filepath.FromSlash(name))); err == nil {
			return []string{name}, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("no pipeline file here: neither %s exists; go to the root of the repository, or name the file",
		strings.Join(pipeline.DefaultPaths(), " nor "))
}

// read reads a file as far as it can count.
func (c checker) read(name string) ([]byte, error) {
	from := c.in
	if name != "-" {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(c.dir, path)
		}
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		from = file
	}
	return io.ReadAll(io.LimitReader(from, pipeline.MaxBytes+8)) // enough to see that it is too long
}

func (c checker) show(all []checked, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(c.out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(map[string]any{"items": all})
	}
	var b strings.Builder
	for _, one := range all {
		one.write(&b)
	}
	_, err := io.WriteString(c.out, b.String())
	return err
}

// write says it in lines.
func (c checked) write(b *strings.Builder) {
	line := func(p pipeline.Problem, prefix string) {
		// Editors want a line and a column.
		fmt.Fprintf(b, "%s:%d:%d: %s", p.File, max(1, p.Line), max(1, p.Column), prefix)
		if p.Path != "" {
			b.WriteString(p.Path + ": ")
		}
		b.WriteString(p.Message + "\n")
	}
	for _, p := range c.Problems {
		line(p, "")
	}
	for _, p := range c.Unoffered {
		line(p, "warning: ")
	}
	if c.Plan == nil {
		return
	}
	fmt.Fprintf(b, "%s has no mistakes: %q on %s, %s, at most %s\n", c.File, c.Plan.Name, c.Plan.Platform,
		count(len(c.Plan.Steps), "step"), count(c.Plan.TimeoutSeconds/60, "minute"))
	if len(c.Unoffered) > 0 {
		b.WriteString("the standalone server of this version does not build it, though: see the warnings\n")
	}
	if c.Verdict == nil {
		return
	}
	if !c.Verdict.Matched {
		b.WriteString("would not be built: " + c.Verdict.Reason + "\n")
		return
	}
	b.WriteString("would be built: " + c.Verdict.Reason + "\n")
	for i, step := range c.Plan.Steps {
		fmt.Fprintf(b, "  %d. %s", i+1, step.Name)
		if step.WorkingDirectory != "." {
			b.WriteString(" (in " + step.WorkingDirectory + ")")
		}
		b.WriteByte('\n')
	}
}

func count(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return fmt.Sprintf("%d %s", n, of)
}

func (c checker) fail(format string, args ...any) int {
	_, _ = fmt.Fprintf(c.complain, "runnerhub check: "+format+"\n", args...)
	return checkFailed
}

// repeated is a flag that may be given several times.
type repeated []string

// String is what flag wants to print of a default.
func (r *repeated) String() string { return strings.Join(*r, ", ") }

// Set adds a value.
func (r *repeated) Set(value string) error {
	*r = append(*r, value)
	return nil
}
