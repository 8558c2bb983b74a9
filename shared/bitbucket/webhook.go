package bitbucket

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

// Verify reports whether header, the request's X-Hub-Signature, signs the raw
// body: "sha256=" and the HMAC-SHA256 in hex. It takes the same time for every
// well-formed header. Without a secret or a header the answer is no.
func Verify(secret secret.Text, body []byte, header string) bool {
	const scheme = "sha256="
	var claimed, computed [sha256.Size]byte
	if secret.Empty() || len(header) != len(scheme)+hex.EncodedLen(len(claimed)) || !strings.HasPrefix(header, scheme) {
		return false
	}
	if _, err := hex.Decode(claimed[:], []byte(header[len(scheme):])); err != nil {
		return false
	}
	mac := hmac.New(sha256.New, []byte(secret.Reveal()))
	mac.Write(body)
	return hmac.Equal(mac.Sum(computed[:0]), claimed[:])
}

// maxChanges is far above what one push was seen to hold, and bounds the work
// that one delivery can cause.
const maxChanges = 1000

type wireEvent struct {
	Actor      wireUser
	Repository struct {
		UUID     string
		FullName string `json:"full_name"`
	}
	Push        *struct{ Changes []json.RawMessage } // each is read by itself
	PullRequest *wirePullRequest
}

type wireChange struct {
	Old    *wireRef
	New    *wireRef
	Forced bool
}

type wireRef struct {
	Type   string
	Name   string
	Target wireCommit
}

// ParseEvent reads a verified body; eventKey is the request's X-Event-Key. What
// cannot be acted on safely is Invalid, with the field named: hashes, UUIDs and
// names are checked here and nowhere later. Of a push, a change that is odd costs none
// of the others: it comes back with its problem. Events about something else than
// pushes and pull requests come back as [ci.EventOther].
//
// The lists of commits in a push are not read: they hold five at most.
func ParseEvent(eventKey string, body []byte) (ci.Event, error) {
	if !isEventKey(eventKey) {
		return ci.Event{}, fault.Field("X-Event-Key", "not an event key")
	}
	var w wireEvent
	if err := json.Unmarshal(body, &w); err != nil {
		return ci.Event{}, fault.Wrap(fault.Invalid, err, "the body is no JSON of the documented shape")
	}
	if !isUUID(w.Repository.UUID) {
		return ci.Event{}, notUUID("repository.uuid")
	}
	event := ci.Event{
		Kind: ci.EventOther, Key: eventKey, Repository: w.Repository.UUID,
		FullName: plain(w.Repository.FullName, 255), Actor: w.Actor.name(),
	}
	var err error
	switch {
	case eventKey == "repo:push":
		event.Kind = ci.EventPush
		event.Changes, event.LeftOut, err = w.changes()
	case strings.HasPrefix(eventKey, "pullrequest:"):
		event.Kind = ci.EventPullRequest
		event.PullRequest, err = w.pullRequest(eventKey)
	}
	if err != nil {
		return ci.Event{}, err
	}
	return event, nil
}

func isEventKey(s string) bool {
	return s != "" && len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return r != ':' && r != '_' && (r > unicode.MaxASCII || !unicode.IsLetter(r))
	}) < 0
}

// changes answers every change of a push: one delivery can hold several, and none.
// Those past maxChanges are counted.
func (w wireEvent) changes() (changes []ci.Change, leftOut int, err error) {
	if w.Push == nil {
		return nil, 0, fault.Field("push", "missing")
	}
	for i, raw := range w.Push.Changes[:min(len(w.Push.Changes), maxChanges)] {
		changes = append(changes, parseChange(fmt.Sprintf("push.changes[%d]", i), raw))
	}
	return changes, len(w.Push.Changes) - len(changes), nil
}

func parseChange(field string, raw json.RawMessage) ci.Change {
	var w wireChange
	if err := json.Unmarshal(raw, &w); err != nil {
		return ci.Change{Name: w.name(), Problem: field + ": not of the documented shape"}
	}
	change, err := w.change(field)
	if err != nil {
		problem, _ := fault.Public(err)
		return ci.Change{Name: w.name(), Problem: problem}
	}
	return change
}

// name is what a change that cannot be read calls its ref, for people.
func (c wireChange) name() string {
	for _, ref := range []*wireRef{c.New, c.Old} {
		if ref != nil && ref.Name != "" {
			return plain(ref.Name, 100)
		}
	}
	return ""
}

func (c wireChange) change(field string) (ci.Change, error) {
	change := ci.Change{Forced: c.Forced}
	for _, side := range []struct {
		field string
		ref   *wireRef
		hash  *string
	}{{field + ".old", c.Old, &change.Old}, {field + ".new", c.New, &change.New}} {
		if side.ref == nil {
			continue
		}
		switch kind := ci.RefKind(side.ref.Type); {
		case kind != ci.RefBranch && kind != ci.RefTag:
			return ci.Change{}, fault.Field(side.field+".type", "neither branch nor tag")
		case !isRefName(side.ref.Name):
			return ci.Change{}, notRef(side.field + ".name")
		case !isHash(side.ref.Target.Hash, 40):
			return ci.Change{}, fault.Field(side.field+".target.hash", "not a full commit hash")
		default:
			change.Kind, change.Name, *side.hash = kind, side.ref.Name, side.ref.Target.Hash
		}
	}
	if change.Kind == "" {
		return ci.Change{}, fault.Field(field, "neither old nor new")
	}
	if c.New != nil {
		change.Message, change.Author = firstLine(c.New.Target.Message), c.New.Target.Author.name()
		change.Marks = ci.SkipMarker(c.New.Target.Message)
	}
	return change, nil
}

func (w wireEvent) pullRequest(eventKey string) (*ci.PullRequest, error) {
	if w.PullRequest == nil {
		return nil, fault.Field("pullrequest", "missing")
	}
	pr, err := w.PullRequest.pullRequest()
	if err != nil {
		return nil, err
	}
	if pr.TargetRepository != w.Repository.UUID {
		return nil, fault.Field("pullrequest.destination.repository.uuid", "another repository than the event's")
	}
	switch eventKey {
	case "pullrequest:created":
		pr.Action = ci.PullRequestOpened
	case "pullrequest:updated", "pullrequest:push":
		// What pullrequest:push says is not documented. Read as an update it can do
		// no harm, since an update without a new commit builds nothing.
		pr.Action = ci.PullRequestUpdated
	case "pullrequest:fulfilled", "pullrequest:rejected":
		pr.Action = ci.PullRequestClosed
	default:
		pr.Action = ci.PullRequestOther
	}
	return &pr, nil
}
