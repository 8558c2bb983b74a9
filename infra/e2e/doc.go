// Package e2e is the end-to-end scripts: they start RunnerHub as an operator does, push
// with git, look at everything through HTTP, and kill what they started. They know the
// program's commands, settings and addresses, and none of its packages. `make e2e
// STACK=…` chooses which way to run is put to the test.
package e2e
