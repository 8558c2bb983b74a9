// Package builders opens the runner on CodeBuild.
package builders

import (
	"fmt"

	"runnerhub/infra/aws"
	"runnerhub/shared/runner/codebuild"
	"runnerhub/shared/setting"
	"runnerhub/shared/store"
)

// Name is under which name builds wait for CodeBuild.
const Name = "codebuild"

// Limits is how many builds run at a time.
func Limits(e aws.Environment) (store.Limits, error) {
	text, err := e.Need("RUNNERHUB_CONCURRENCY", aws.Deployed)
	if err != nil {
		return store.Limits{}, err
	}
	n, err := setting.Concurrency("RUNNERHUB_CONCURRENCY", text)
	return store.Limits{Runner: n}, err
}

// Watcher opens CodeBuild to look at builds and to stop them.
func Watcher(e aws.Environment) (*codebuild.Runner, error) { return open(e, "") }

// Starter opens CodeBuild to start builds.
func Starter(e aws.Environment) (*codebuild.Runner, error) {
	group, err := e.Need("RUNNERHUB_LOG_GROUP", aws.Deployed)
	if err != nil {
		return nil, err
	}
	return open(e, group)
}

func open(e aws.Environment, group string) (*codebuild.Runner, error) {
	project, err := e.Need("RUNNERHUB_BUILD_PROJECT", aws.Deployed)
	if err != nil {
		return nil, err
	}
	config, err := e.ConfigOf("AWS_ENDPOINT_URL_CODEBUILD")
	if err != nil {
		return nil, err
	}
	r, err := codebuild.New(codebuild.Deps{Config: config, Project: project, LogGroup: group})
	if err != nil {
		return nil, fmt.Errorf("RUNNERHUB_BUILD_PROJECT is %q: %w", project, err)
	}
	return r, nil
}
