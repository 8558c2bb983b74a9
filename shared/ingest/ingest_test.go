package ingest_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/ingest"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	queues "runnerhub/shared/queue/sqlite"
	"runnerhub/shared/store"
	"runnerhub/shared/store/storetest"
	"runnerhub/shared/vault"
	"runnerhub/shared/vault/keyfile"
)

// bench is an Ingest that counts what it asks for.
type bench struct {
	*storetest.Bench
	t      *testing.T
	ingest *ingest.Ingest
	vault  *keyfile.Vault
	queue  *publisher

	mu    sync.Mutex
	reads int
	opens int
	fails error // of reading a hook
}

func (b *bench) Hook(ctx context.Context, id string) (store.Hook, error) {
	b.mu.Lock()
	b.reads++
	err := b.fails
	b.mu.Unlock()
	if err != nil {
		return store.Hook{}, err
	}
	return b.Store.Hook(ctx, id)
}

func (b *bench) Sealer(ctx context.Context, of vault.Binding) (vault.Sealer, error) {
	return b.vault.Sealer(ctx, of)
}

func (b *bench) Open(ctx context.Context, of vault.Binding, sealed []byte) ([]byte, error) {
	b.mu.Lock()
	b.opens++
	b.mu.Unlock()
	return b.vault.Open(ctx, of, sealed)
}

// count answers the reads and openings since the last time.
func (b *bench) count() (reads, opens int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	reads, opens = b.reads, b.opens
	b.reads, b.opens = 0, 0
	return reads, opens
}

type publisher struct {
	queue.Queue
	refuse error
}

func (p *publisher) Publish(ctx context.Context, body []byte, delay time.Duration) error {
	if p.refuse != nil {
		return p.refuse
	}
	return p.Queue.Publish(ctx, body, delay)
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{Bench: storetest.New(t), t: t}
	var err error
	if b.vault, err = keyfile.New(keyfile.Deps{Path: filepath.Join(t.TempDir(), "key"), Name: "hooks"}); err != nil {
		t.Fatal(err)
	}
	real, err := queues.New(queues.Deps{File: b.File, Name: "deliveries", Visibility: time.Minute, MaxAttempts: 3, Now: b.Clock.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b.queue = &publisher{Queue: real}
	if b.ingest, err = ingest.New(ingest.Deps{Hooks: b, Vault: b, Queue: b.queue, Now: b.Clock.Now}); err != nil {
		t.Fatal(err)
	}
	b.hook("hook", "It's a Secret to Everybody")
	return b
}

// hook stores a hook with a secret, or a new secret for it.
func (b *bench) hook(id, secret string) {
	b.t.Helper()
	sealed, err := vault.Seal(b.t.Context(), b.vault, vault.Binding{Owner: id, Purpose: ingest.SecretPurpose}, []byte(secret))
	if err == nil {
		err = b.PutHook(b.t.Context(), store.Hook{ID: id, App: "app", Workspace: "w", Sealed: sealed})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// taken answers the deliveries in the queue.
func (b *bench) taken() []message.Delivery {
	b.t.Helper()
	messages, err := b.queue.Receive(b.t.Context(), 10, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	var out []message.Delivery
	for _, m := range messages {
		read, err := message.Read[message.Dispatch](m)
		if err != nil || read.Delivery == nil {
			b.t.Fatalf("%s: %v", m.Body, err)
		}
		out = append(out, *read.Delivery)
	}
	return out
}

// vector is the example of Bitbucket's documentation on securing webhooks.
func vector() ingest.Request {
	return ingest.Request{
		Hook: "hook", Event: "repo:push", RequestID: "uuid", Attempt: 2, Body: []byte("Hello World!"),
		Signature: "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9",
	}
}

func TestAccept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if err := b.ingest.Accept(t.Context(), vector()); err != nil {
		t.Fatal(err)
	}
	got := b.taken()
	if len(got) != 1 || string(got[0].Body) != "Hello World!" || got[0].App != "app" || got[0].Workspace != "w" || got[0].Hook != "hook" ||
		got[0].Event != "repo:push" || got[0].RequestID != "uuid" || got[0].Attempt != 2 || !got[0].ReceivedAt.Equal(b.Clock.Now()) {
		t.Errorf("%+v", got)
	}
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	unknown := ""
	for name, test := range map[string]struct {
		change func(*ingest.Request)
		kind   fault.Kind
	}{
		"no signature":       {func(r *ingest.Request) { r.Signature = "" }, fault.Unauthenticated},
		"a wrong signature":  {func(r *ingest.Request) { r.Signature = sign("guess", r.Body) }, fault.Unauthenticated},
		"half a signature":   {func(r *ingest.Request) { r.Signature = r.Signature[:30] }, fault.Unauthenticated},
		"another scheme":     {func(r *ingest.Request) { r.Signature = "sha1=" + r.Signature[7:] }, fault.Unauthenticated},
		"another body":       {func(r *ingest.Request) { r.Body = []byte("Hello World?") }, fault.Unauthenticated},
		"an unknown hook":    {func(r *ingest.Request) { r.Hook = "other" }, fault.Unauthenticated},
		"no hook":            {func(r *ingest.Request) { r.Hook = "" }, fault.Unauthenticated},
		"a hook that cannot": {func(r *ingest.Request) { r.Hook = "a\x00b" }, fault.Unauthenticated},
		"a long hook":        {func(r *ingest.Request) { r.Hook = strings.Repeat("h", 2000) }, fault.Unauthenticated},
		"a long body":        {func(r *ingest.Request) { r.Body = make([]byte, ingest.MaxBody+1) }, fault.TooLarge},
		"a false ping":       {func(r *ingest.Request) { r.Event, r.Signature = "diagnostics:ping", "sha256=00" }, fault.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			r := vector()
			test.change(&r)
			err := b.ingest.Accept(t.Context(), r)
			if !fault.Is(err, test.kind) {
				t.Errorf("%v", err)
			}
			if test.kind == fault.Unauthenticated {
				if unknown == "" {
					unknown = err.Error()
				}
				if err.Error() != unknown {
					t.Errorf("%q tells more than %q", err, unknown)
				}
			}
			if got := b.taken(); len(got) != 0 {
				t.Errorf("%+v", got)
			}
			if reads, opens := b.count(); reads > 1 || opens > 1 {
				t.Errorf("%d reads, %d openings", reads, opens)
			}
		})
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if err := b.ingest.Accept(t.Context(), ingest.Request{Hook: "whatever", Event: "diagnostics:ping", Body: []byte(`{"test": true}`)}); err != nil {
		t.Error(err)
	}
	if reads, opens := b.count(); reads+opens+len(b.taken()) != 0 {
		t.Error("something was done")
	}
}

func TestTheLongestBody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := vector()
	r.Body = bytes.Repeat([]byte{0xff}, ingest.MaxBody)
	r.Signature = sign("It's a Secret to Everybody", r.Body)
	if err := b.ingest.Accept(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got := b.taken(); len(got) != 1 || !bytes.Equal(got[0].Body, r.Body) {
		t.Error("not what was sent")
	}
}

func TestTheSecretIsOpenedOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := vector()
	for i := range 5 {
		if err := b.ingest.Accept(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		reads, opens := b.count()
		if want := map[bool]int{true: 1}[i == 0]; reads != 1 || opens != want {
			t.Errorf("request %d: %d reads, %d openings", i, reads, opens)
		}
	}
	b.hook("hook", "another secret")
	if err := b.ingest.Accept(t.Context(), r); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("under the old secret: %v", err)
	}
	r.Signature = sign("another secret", r.Body)
	if err := b.ingest.Accept(t.Context(), r); err != nil {
		t.Error(err)
	}
	if reads, opens := b.count(); reads != 2 || opens != 1 {
		t.Errorf("%d reads, %d openings", reads, opens)
	}
}

// Bitbucket's attempts at one delivery are one delivery.
func TestIDs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.hook("hook2", "It's a Secret to Everybody")
	id := func(change func(*ingest.Request)) string {
		t.Helper()
		r := vector()
		change(&r)
		r.Signature = sign("It's a Secret to Everybody", r.Body)
		if err := b.ingest.Accept(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		return b.taken()[0].ID
	}
	first := id(func(*ingest.Request) {})
	if again := id(func(r *ingest.Request) { r.Attempt = 3 }); again != first {
		t.Error("another attempt is another delivery")
	}
	bare := id(func(r *ingest.Request) { r.RequestID = "" })
	if again := id(func(r *ingest.Request) { r.RequestID = "" }); again != bare {
		t.Error("without a request id, the same body is another delivery")
	}
	seen := map[string]bool{first: true, bare: true}
	for _, other := range []string{
		id(func(r *ingest.Request) { r.RequestID = "other" }),
		id(func(r *ingest.Request) { r.Hook = "hook2" }),
		id(func(r *ingest.Request) { r.RequestID, r.Body = "", []byte("other") }),
	} {
		if seen[other] {
			t.Error("two deliveries have one id")
		}
		seen[other] = true
	}
}

// The headers are not signed: what is odd about them is not kept, and two stay two.
func TestOddHeaders(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	accept := func(header string) message.Delivery {
		t.Helper()
		r := vector()
		r.RequestID, r.Event = header, header
		if err := b.ingest.Accept(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		return b.taken()[0]
	}
	longest := strings.Repeat("x", 128)
	if got := accept(longest); got.RequestID != longest || got.Event != longest {
		t.Errorf("%+v", got)
	}
	seen := map[string]bool{}
	for _, header := range []string{strings.Repeat("x", 129), strings.Repeat("x", 60_000), "a\tb", "a\x7f", "a\u0085b", "\xff"} {
		got := accept(header)
		if !strings.HasPrefix(got.RequestID, "sha256-") || len(got.RequestID) != 39 || got.Event != got.RequestID {
			t.Errorf("%.10q: %+v", header, got)
		}
		if again := accept(header); again.ID != got.ID || seen[got.ID] {
			t.Errorf("%.10q is not one delivery", header)
		}
		seen[got.ID] = true
	}
}

func TestWhatCannotBeStoredComesAgain(t *testing.T) {
	t.Parallel()
	for name, breakIt := range map[string]func(*bench){
		"the queue":        func(b *bench) { b.queue.refuse = fault.New(fault.Unknown, "the answer was lost") },
		"the queue's size": func(b *bench) { b.queue.refuse = fault.New(fault.TooLarge, "too large") },
		"the table":        func(b *bench) { b.fails = fault.New(fault.Internal, "broken") },
		"the vault": func(b *bench) {
			if err := b.PutHook(b.t.Context(), store.Hook{ID: "hook", App: "app", Sealed: []byte("damaged")}); err != nil {
				b.t.Fatal(err)
			}
		},
	} {
		b := newBench(t)
		breakIt(b)
		if err := b.ingest.Accept(t.Context(), vector()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
