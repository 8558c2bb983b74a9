// Package sandbox is a strict Bitbucket Cloud with real git behind it: the OAuth
// consent and token endpoints, the part of the REST API a CI product needs, webhooks
// that are signed and retried, commit statuses, pull requests, git over http and a
// small web UI. It exists so that nobody needs an Atlassian account to try or test
// the product, and so that a client which would fail in production fails here first:
// it enforces the limits of the real service, and the faults it can be told to have
// are the ones the real service has. Every rule it enforces is listed by number in
// docs/sandbox.md, and each number has a test.
//
// It is not a stand-in for Bitbucket in production: accounts have guessable
// passwords, everything under /_sandbox is open to whoever reaches the port, and
// what the product does not use is missing.
//
// # How it keeps state
//
// A record, once stored, is never changed; an update stores a new one. All records
// are held in memory and every mutation is written through to one SQLite file before
// it becomes visible, so that answers come from memory and kill -9 loses nothing that
// was answered. Git repositories are bare ones beside that file. The record of a
// repository's refs is compared with git after each push and at the start, so that a
// push git took but the process did not live to announce is announced later.
package sandbox
