// Package pipeline reads the pipeline file (.runnerhub/runnerhub.yml): it
// parses the text, finds every mistake with line and column, decides whether
// an event starts a build and why, and plans that build's steps.
//
// It is pure: no files, no clock, no network. It does not fetch the file,
// does not know the variables kept in an app or a workspace, and runs nothing.
// Foreign bytes come in here, so everything is bounded: the size of the file,
// the number of entries, the work an alias or a glob can cause, the problems
// reported. docs/pipeline.md is the same format for the people who write it.
package pipeline
