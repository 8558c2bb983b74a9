package main

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// bodyBytes is how long the body of each push is: a push of five commits with
// ordinary messages is about as long.
const bodyBytes = 10 << 10

// object is a JSON object.
type object = map[string]any

// event is one webhook request before it is signed.
type event struct {
	key    string // X-Event-Key
	commit string // whose status says INPROGRESS in the end
	body   []byte
}

// push is a push of commit to a branch, in the shape Bitbucket gives it.
func push(r repository, branch, old, commit string) (event, error) {
	message := "Change " + branch
	for {
		body, err := json.Marshal(pushObject(r, branch, old, commit, message))
		if err != nil {
			return event{}, fmt.Errorf("composing a push: %w", err)
		}
		// The message stands in the body once for each commit shown, twice in each,
		// and spaces after a line end cost what other text does.
		missing := bodyBytes - len(body)
		if missing < 2*shownCommits {
			body = append(body, strings.Repeat(" ", max(0, missing))...)
			return event{"repo:push", commit, body}, nil
		}
		message += strings.Repeat("x", max(1, missing/(2*shownCommits)))
	}
}

// shownCommits is how many commits a push lists.
const shownCommits = 5

func pushObject(r repository, branch, old, commit, message string) object {
	commits := make([]object, shownCommits)
	for i := range commits {
		hash := commit
		if i > 0 {
			sum := sha1.Sum(fmt.Appendf(nil, "%s %d", commit, i))
			hash = hex.EncodeToString(sum[:])
		}
		commits[i] = commitObject(r, hash, message)
	}
	return object{
		"actor": actor(), "repository": repositoryObject(r),
		"push": object{"changes": []object{{
			"new": refObject(r, branch, commit), "old": refObject(r, branch, old),
			"created": false, "closed": false, "forced": false, "truncated": false, "commits": commits,
			"links": object{"commits": href(r.api + "/commits?include=" + commit + "&exclude=" + old)},
		}}},
	}
}

// pullRequest is a pull request from branch into main, with the short hashes that
// Bitbucket sends.
func pullRequest(r repository, id int, branch, commit string) (event, error) {
	end := func(name, hash string) object {
		return object{
			"branch": object{"name": name}, "repository": repositoryObject(r),
			"commit": object{"type": "commit", "hash": hash[:12], "links": object{"self": href(r.api + "/commit/" + hash[:12])}},
		}
	}
	body, err := json.Marshal(object{
		"actor": actor(), "repository": repositoryObject(r),
		"pullrequest": object{
			"type": "pullrequest", "id": id, "title": "Change " + branch, "state": "OPEN", "author": actor(),
			"source": end(branch, commit), "destination": end("main", commit),
			"created_on": "2026-01-02T03:04:05.000000+00:00", "updated_on": "2026-01-02T03:04:05.000000+00:00",
			"links": object{"self": href(fmt.Sprintf("%s/pullrequests/%d", r.api, id))},
		},
	})
	if err != nil {
		return event{}, fmt.Errorf("composing a pull request: %w", err)
	}
	return event{"pullrequest:created", commit, body}, nil
}

func href(address string) object { return object{"href": address} }

func actor() object {
	return object{
		"type": "user", "display_name": "Alice Admin", "nickname": "alice",
		"uuid": "{0f6b2c1e-7b5a-4a55-9a58-2f0c6d1e8a11}", "account_id": "557058:0f6b2c1e",
		"links": object{"html": href("https://bitbucket.org/alice")},
	}
}

func repositoryObject(r repository) object {
	return object{
		"type": "repository", "uuid": r.UUID, "full_name": r.FullName, "name": r.FullName, "scm": "git", "is_private": true,
		"links": object{"self": href(r.api), "html": href("https://bitbucket.org/" + r.FullName)},
	}
}

func refObject(r repository, branch, hash string) object {
	return object{
		"type": "branch", "name": branch, "merge_strategies": []string{"merge_commit", "squash", "fast_forward"},
		"target": commitObject(r, hash, "Change "+branch),
		"links":  object{"self": href(r.api + "/refs/branches/" + branch)},
	}
}

func commitObject(r repository, hash, message string) object {
	self := r.api + "/commit/" + hash
	return object{
		"type": "commit", "hash": hash, "date": "2026-01-02T03:04:05+00:00", "message": message,
		"author":  object{"type": "author", "raw": "Alice Admin <alice@example.com>", "user": actor()},
		"summary": object{"type": "rendered", "raw": message, "markup": "markdown", "html": "<p></p>"},
		"links":   object{"self": href(self), "diff": href(r.api + "/diff/" + hash), "statuses": href(self + "/statuses")},
		"parents": []object{},
	}
}

// sign answers the X-Hub-Signature of a body.
func sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
