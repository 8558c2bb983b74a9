package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"runnerhub/infra/visitor"
	"runnerhub/shared/bitbucket"
	"runnerhub/shared/datafile"
	"runnerhub/shared/fault"
	"runnerhub/shared/ingest"
	"runnerhub/shared/random"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
	tablefile "runnerhub/shared/table/sqlite"
	"runnerhub/shared/vault"
	"runnerhub/shared/vault/keyfile"
)

// nowhere takes messages and drops them: what a queue costs is not ingest's.
type nowhere struct{}

func (nowhere) Publish(context.Context, []byte, time.Duration) error { return nil }

// known answers one hook from memory: what a table costs is not ingest's either.
type known store.Hook

func (k known) Hook(context.Context, string) (store.Hook, error) { return store.Hook(k), nil }

// benchIngest measures the processor time of taking one push in.
func benchIngest(ctx context.Context, dir string, rounds int) (_ []figure, err error) {
	file, err := datafile.Open(datafile.Deps{Path: filepath.Join(dir, "ingest.db")})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	items, err := tablefile.New(tablefile.Deps{File: file, Now: time.Now})
	if err != nil {
		return nil, err
	}
	stored, err := store.New(store.Deps{Table: items, Now: time.Now, NewID: random.ID})
	if err != nil {
		return nil, err
	}
	hooks, err := keyfile.New(keyfile.Deps{Path: filepath.Join(dir, "key"), Name: "hooks"})
	if err != nil {
		return nil, err
	}
	const key = "a hook secret of thirty-two bytes"
	sealed, err := vault.Seal(ctx, hooks, vault.Binding{Owner: "hook", Purpose: ingest.SecretPurpose}, []byte(key))
	if err != nil {
		return nil, err
	}
	if err := stored.PutHook(ctx, store.Hook{ID: "hook", App: "app", Workspace: "workspace", Sealed: sealed}); err != nil {
		return nil, err
	}
	row, err := stored.Hook(ctx, "hook")
	if err != nil {
		return nil, err
	}
	whole, err := ingest.New(ingest.Deps{Hooks: stored, Vault: hooks, Queue: nowhere{}, Now: time.Now})
	if err != nil {
		return nil, err
	}
	alone, err := ingest.New(ingest.Deps{Hooks: known(row), Vault: hooks, Queue: nowhere{}, Now: time.Now})
	if err != nil {
		return nil, err
	}
	const hash = "4d6f70a1b2c3d4e5f60718293a4b5c6d7e8f9001"
	e, err := push(repository{Repository: visitor.Repository{UUID: "{7b1d3f62-1111-4222-8333-944455556666}", FullName: "acme/shop"}}, branchName, hash, hash)
	if err != nil {
		return nil, err
	}
	good := ingest.Request{Hook: "hook", Event: e.key, RequestID: random.ID(), Signature: sign(key, e.body), Attempt: 1, Body: e.body}
	bad := good
	bad.Signature = sign("another secret", e.body)
	refused := func(i *ingest.Ingest) func() error {
		return func() error {
			if err := i.Accept(ctx, bad); !fault.Is(err, fault.Unauthenticated) {
				return fmt.Errorf("a wrong signature was answered %v", err)
			}
			return nil
		}
	}
	work := []func() error{
		func() error {
			if !bitbucket.Verify(secret.New(key), e.body, good.Signature) {
				return errors.New("the signature is wrong")
			}
			return nil
		},
		func() error { _, err := bitbucket.ParseEvent(e.key, e.body); return err },
		func() error { return whole.Accept(ctx, good) },
		func() error { return alone.Accept(ctx, good) },
		refused(whole),
		refused(alone),
	}
	spent := make([]sample, len(work))
	for range rounds {
		for i, do := range work {
			took, err := processorTime(200, do)
			if err != nil {
				return nil, fmt.Errorf("measuring ingest: %w", err)
			}
			spent[i] = append(spent[i], took)
		}
	}
	hmac, decode, accept, acceptAlone, refuse, refuseAlone := spent[0], spent[1], spent[2], spent[3], spent[4], spent[5]
	least := hmac.median() + decode.median()
	accepting, refusing := ratio(accept.median(), least), ratio(refuseAlone.median(), hmac.median())
	return []figure{
		{
			what: "ingest, CPU a push", measured: short(accept.median()), floor: short(least), ratio: fmt.Sprintf("%.2f", accepting),
			reach: "at most 2 × (HMAC + one decode)", reached: accepting <= 2,
			notes: []string{
				"accepted, with the hook's row read from SQLite: " + accept.spread(),
				"accepted, with the row at hand:                 " + acceptAlone.spread(),
				"floor, HMAC of the body:                        " + hmac.spread(),
				"floor, one decode of the event:                 " + decode.spread(),
			},
		},
		{
			what: "ingest, CPU a bad signature", measured: short(refuseAlone.median()), floor: short(hmac.median()), ratio: fmt.Sprintf("%.2f", refusing),
			reach: "the HMAC alone (within 1.2 ×)", reached: refusing <= 1.2,
			notes: []string{
				"refused, with the row at hand:                 " + refuseAlone.spread(),
				"refused, with the hook's row read from SQLite: " + refuse.spread(),
			},
		},
	}, nil
}

// processorTime answers what one of n runs of do costs this process in processor
// time, its garbage included.
func processorTime(n int, do func() error) (time.Duration, error) {
	before, err := spentHere()
	if err != nil {
		return 0, err
	}
	for range n {
		if err := do(); err != nil {
			return 0, err
		}
	}
	after, err := spentHere()
	return (after - before) / time.Duration(n), err
}

func spentHere() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
