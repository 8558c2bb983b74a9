package codebuild

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"gopkg.in/yaml.v3"
)

// buildspec is as much of one as ours has.
type buildspec struct {
	Version string `yaml:"version"`
	Env     struct {
		Exported []string `yaml:"exported-variables"`
	} `yaml:"env"`
	Phases struct {
		Install   commands `yaml:"install"`
		PreBuild  commands `yaml:"pre_build"`
		Build     commands `yaml:"build"`
		PostBuild commands `yaml:"post_build"`
	} `yaml:"phases"`
}

// commands are one phase.
type commands struct {
	Commands []string `yaml:"commands"`
}

// parseBuildspec reads a buildspec. A key it has no place for is an error: it would mean something to CodeBuild.
func parseBuildspec(text string) (buildspec, error) {
	var spec buildspec
	d := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	d.KnownFields(true)
	if err := d.Decode(&spec); err != nil {
		return spec, fmt.Errorf("reading the buildspec: %w", err)
	}
	if err := d.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return spec, errors.New("reading the buildspec: there is more than one document")
	}
	if spec.Version != "0.2" {
		return spec, fmt.Errorf("reading the buildspec: version %q is not 0.2", spec.Version)
	}
	p := spec.Phases
	if len(p.Install.Commands)+len(p.PreBuild.Commands)+len(p.Build.Commands)+len(p.PostBuild.Commands) == 0 {
		return spec, errors.New("reading the buildspec: there are no commands")
	}
	for _, name := range spec.Env.Exported {
		if !namePattern.MatchString(name) {
			return spec, fmt.Errorf("reading the buildspec: %q is no name of a variable", name)
		}
	}
	return spec, nil
}
