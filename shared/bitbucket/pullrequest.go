package bitbucket

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
)

// wirePullRequest is a pull request in an answer and in a webhook.
type wirePullRequest struct {
	ID          int
	Title       string
	State       string
	Source      wireEnd
	Destination wireEnd
	Author      wireUser
	UpdatedOn   wireTime `json:"updated_on"`
}

type wireEnd struct {
	Branch struct{ Name string }
	Commit struct{ Hash string }
	// Repository is null when a fork was deleted.
	Repository struct {
		UUID     string
		FullName string `json:"full_name"`
	}
}

// pullRequest checks and converts. A hash may be missing where nothing is left
// to build: the fork is gone, or the pull request is closed.
func (w wirePullRequest) pullRequest() (ci.PullRequest, error) {
	pr := ci.PullRequest{
		ID: w.ID, Title: plain(w.Title, 200), Open: strings.EqualFold(w.State, "OPEN"),
		SourceBranch: w.Source.Branch.Name, SourceHash: w.Source.Commit.Hash, SourceRepository: w.Source.Repository.UUID,
		SourceFullName: plain(w.Source.Repository.FullName, 200),
		TargetBranch:   w.Destination.Branch.Name, TargetHash: w.Destination.Commit.Hash, TargetRepository: w.Destination.Repository.UUID,
		Author: w.Author.name(), UpdatedAt: w.UpdatedOn.Time,
	}
	buildable := pr.Open && pr.SourceRepository != ""
	switch {
	case pr.ID <= 0:
		return ci.PullRequest{}, fault.Field("pullrequest.id", "not a positive number")
	case !isUUID(pr.TargetRepository):
		return ci.PullRequest{}, notUUID("pullrequest.destination.repository.uuid")
	case pr.SourceRepository != "" && !isUUID(pr.SourceRepository):
		return ci.PullRequest{}, notUUID("pullrequest.source.repository.uuid")
	case !isRefName(pr.TargetBranch):
		return ci.PullRequest{}, notRef("pullrequest.destination.branch.name")
	case (buildable || pr.SourceBranch != "") && !isRefName(pr.SourceBranch):
		return ci.PullRequest{}, notRef("pullrequest.source.branch.name")
	case (buildable || pr.SourceHash != "") && !isHash(pr.SourceHash, 7):
		return ci.PullRequest{}, fault.Field("pullrequest.source.commit.hash", "not a commit hash")
	case pr.TargetHash != "" && !isHash(pr.TargetHash, 7):
		return ci.PullRequest{}, fault.Field("pullrequest.destination.commit.hash", "not a commit hash")
	}
	return pr, nil
}

func notRef(field string) error { return fault.Field(field, "not the name of a branch or a tag") }

// OpenPullRequests lists the open pull requests to repo whose source branch has
// the name, also those of forks (see [ci.PullRequest.Fork]). Scope pullrequest.
func (c *Client) OpenPullRequests(ctx context.Context, repo, sourceBranch string) ([]ci.PullRequest, error) {
	if !isRefName(sourceBranch) {
		return nil, notRef("branch")
	}
	r, err := inRepository("listing pull requests", http.MethodGet, repo, "pullrequests")
	if err != nil {
		return nil, err
	}
	// Without fields, a page of long descriptions can pass the cap on answers.
	fields := "next"
	for _, f := range []string{
		"id", "title", "state", "updated_on", "author.display_name", "author.nickname",
		"source.branch.name", "source.commit.hash", "source.repository.uuid", "source.repository.full_name",
		"destination.branch.name", "destination.commit.hash", "destination.repository.uuid",
	} {
		fields += ",values." + f
	}
	r.query = url.Values{
		"state": {"OPEN"}, "pagelen": {maxPulls}, "fields": {fields},
		"q": {"source.branch.name=" + quote(sourceBranch)},
	}
	return listAll(ctx, c, r, wirePullRequest.pullRequest)
}

// maxPulls is the most pull requests that Bitbucket puts on a page; of other lists it puts 100.
const maxPulls = "50"

// Head is what an open pull request is at.
type Head struct {
	ID        int
	Source    string    // hash of the source's head, of 7 characters or more; Bitbucket shortens it
	Target    string    // branch
	UpdatedAt time.Time // the last change, of whatever kind
}

// Heads lists what the open pull requests to repo are at, the last changed first, also those of forks. One
// of which Bitbucket does not say all of it is left out. Scope pullrequest.
func (c *Client) Heads(ctx context.Context, repo, cursor string) (Page[Head], error) {
	r, err := inRepository("listing open pull requests", http.MethodGet, repo, "pullrequests")
	if err != nil {
		return Page[Head]{}, err
	}
	r.query = url.Values{
		"state": {"OPEN"}, "sort": {"-updated_on"}, "pagelen": {maxPulls},
		"fields": {"next,values.id,values.updated_on,values.source.commit.hash,values.destination.branch.name"},
	}
	page, err := list(ctx, c, r, cursor, func(w wirePullRequest) (Head, error) {
		return Head{w.ID, w.Source.Commit.Hash, w.Destination.Branch.Name, w.UpdatedOn.Time}, nil
	})
	page.Items = slices.DeleteFunc(page.Items, func(h Head) bool {
		return h.ID <= 0 || !isHash(h.Source, 7) || !isRefName(h.Target) || h.UpdatedAt.IsZero()
	})
	return page, err
}

// PullRequest reads one as it stands now; its Action is empty. Scope pullrequest.
func (c *Client) PullRequest(ctx context.Context, repo string, id int) (ci.PullRequest, error) {
	if id <= 0 {
		return ci.PullRequest{}, fault.Field("id", "not a positive number")
	}
	r, err := inRepository("reading a pull request", http.MethodGet, repo, "pullrequests", strconv.Itoa(id))
	if err != nil {
		return ci.PullRequest{}, err
	}
	var w wirePullRequest
	if err := c.call(ctx, r, &w); err != nil {
		return ci.PullRequest{}, err
	}
	pr, err := w.pullRequest()
	if err != nil {
		return ci.PullRequest{}, r.fail(fault.Unavailable, err, "an answer of another shape than documented")
	}
	return pr, nil
}
