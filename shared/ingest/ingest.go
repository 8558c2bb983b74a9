// Package ingest takes webhook requests in: it verifies the signature over the raw
// bytes and puts the request into a queue, and no more. It decodes nothing, calls no
// Bitbucket and starts no build. What it acknowledged is durable.
package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
	"runnerhub/shared/vault"
)

// MaxBody is the longest body in bytes that is taken. Bitbucket sends at most 256 KB.
const MaxBody = 512 << 10

// SecretPurpose is the purpose that hook secrets are sealed for; the owner is the
// hook's id.
const SecretPurpose = "hook-secret"

// ping is Data Center's test of an address: unsigned even where a secret is set.
const ping = "diagnostics:ping"

// maxHeader is the longest header in bytes that is kept as it came.
const maxHeader = 128

// maxSecrets bounds the opened secrets kept in memory.
const maxSecrets = 10_000

// Hooks is what Ingest reads: one row, at most once a request.
type Hooks interface {
	Hook(ctx context.Context, id string) (store.Hook, error)
}

// Deps is what an Ingest needs.
type Deps struct {
	Hooks Hooks
	Vault vault.Vault // of hook secrets; it opens nothing else
	Queue queue.Publisher
	Now   func() time.Time
}

// Ingest accepts webhook requests.
type Ingest struct {
	Deps

	mu      sync.Mutex
	secrets map[string]opened
}

// opened is a hook's secret and what it was opened from: a version alone would be
// the same again after the row was made anew.
type opened struct {
	sealed []byte
	secret secret.Text
}

// Request is one webhook request.
type Request struct {
	Hook      string // from the path
	Event     string // X-Event-Key
	RequestID string // X-Request-UUID, X-Request-Id on Data Center
	Signature string // X-Hub-Signature
	Attempt   int    // X-Attempt-Number; 0 when absent
	Body      []byte // the raw bytes, decoded from base64 where a gateway encoded them
}

// New makes an Ingest.
func New(d Deps) (*Ingest, error) {
	if d.Hooks == nil || d.Vault == nil || d.Queue == nil || d.Now == nil {
		return nil, errors.New("ingest: Hooks, Vault, Queue and Now are needed")
	}
	return &Ingest{Deps: d, secrets: map[string]opened{}}, nil
}

// Accept answers nil once the request is durable. A request that is not from who
// it should be from is fault.Unauthenticated, in the same words whether the hook is unknown or the
// signature wrong; a body over MaxBody is fault.TooLarge; anything else means that it could
// not be stored, and has to be sent again.
func (i *Ingest) Accept(ctx context.Context, r Request) error {
	if len(r.Body) > MaxBody {
		return fault.New(fault.TooLarge, "the body is over %d bytes", MaxBody)
	}
	if r.Signature == "" {
		if r.Event == ping {
			return nil
		}
		return refused()
	}
	hook, err := i.Hooks.Hook(ctx, r.Hook)
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) {
		// The same work as for a known hook: the time tells nothing either.
		bitbucket.Verify(secret.New("no such hook"), r.Body, r.Signature)
		return refused()
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the hook could not be read")
	}
	key, err := i.open(ctx, hook)
	if err != nil {
		return err
	}
	if !bitbucket.Verify(key, r.Body, r.Signature) {
		return refused()
	}
	r.RequestID, r.Event = requestID(r), short(r.Event)
	err = message.Send(ctx, i.Queue, message.Dispatch{Delivery: &message.Delivery{
		ID: deliveryID(r.Hook, r.RequestID), Hook: hook.ID, App: hook.App, Workspace: hook.Workspace,
		Event: r.Event, RequestID: r.RequestID, Attempt: r.Attempt, ReceivedAt: i.Now().UTC(), Body: r.Body,
	}}, 0)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the delivery could not be stored; send it again")
	}
	return nil
}

func refused() error {
	return fault.New(fault.Unauthenticated, "unknown hook or wrong signature")
}

// requestID names the delivery; without a name of its own, after its body. The headers
// are not signed and go into records and lists.
func requestID(r Request) string {
	if r.RequestID == "" {
		sum := sha256.Sum256(r.Body)
		return "body-" + hex.EncodeToString(sum[:16])
	}
	return short(r.RequestID)
}

// short answers a header that fits where it is kept, or a hash in its place.
func short(header string) string {
	if len(header) <= maxHeader && utf8.ValidString(header) && strings.IndexFunc(header, unicode.IsControl) < 0 {
		return header
	}
	sum := sha256.Sum256([]byte(header))
	return "sha256-" + hex.EncodeToString(sum[:16])
}

// deliveryID is the same for every attempt of one delivery, so that a repeat finds
// the record of the first.
func deliveryID(hook, request string) string {
	sum := sha256.Sum256([]byte(hook + "\n" + request))
	return hex.EncodeToString(sum[:16])
}

// open answers the secret of a hook, opened once for each sealing of it.
func (i *Ingest) open(ctx context.Context, hook store.Hook) (secret.Text, error) {
	i.mu.Lock()
	known, ok := i.secrets[hook.ID]
	i.mu.Unlock()
	if ok && bytes.Equal(known.sealed, hook.Sealed) {
		return known.secret, nil
	}
	plain, err := i.Vault.Open(ctx, vault.Binding{Owner: hook.ID, Purpose: SecretPurpose}, hook.Sealed)
	if err != nil {
		// Not the sender's fault, whatever the kind: he has to send it again.
		return secret.Text{}, fault.Wrap(fault.Unavailable, fmt.Errorf("opening the secret of hook %s: %w", hook.ID, err), "the hook's secret could not be opened")
	}
	key := secret.New(string(plain))
	i.mu.Lock()
	if len(i.secrets) >= maxSecrets {
		clear(i.secrets)
	}
	i.secrets[hook.ID] = opened{hook.Sealed, key}
	i.mu.Unlock()
	return key, nil
}
