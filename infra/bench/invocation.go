package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"runnerhub/infra/visitor"
	"runnerhub/shared/bitbucket"
	"runnerhub/shared/httpapi"
	"runnerhub/shared/ingest"
	"runnerhub/shared/lambdaio"
	"runnerhub/shared/random"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
	"runnerhub/shared/vault"
	"runnerhub/shared/vault/keyfile"
)

// benchInvocation measures the processor time of one warm invocation of the webhook function, from the event's bytes to those of the answer: all
// that the function has, over services that take no time.
func benchInvocation(ctx context.Context, dir string, rounds int) ([]figure, error) {
	hooks, err := keyfile.New(keyfile.Deps{Path: filepath.Join(dir, "invocation-key"), Name: "hooks"})
	if err != nil {
		return nil, err
	}
	const key = "a hook secret of thirty-two bytes"
	sealed, err := vault.Seal(ctx, hooks, vault.Binding{Owner: "hook", Purpose: ingest.SecretPurpose}, []byte(key))
	if err != nil {
		return nil, err
	}
	row := store.Hook{ID: "hook", App: "app", Workspace: "workspace", Sealed: sealed}
	accept, err := ingest.New(ingest.Deps{Hooks: known(row), Vault: hooks, Queue: nowhere{}, Now: time.Now})
	if err != nil {
		return nil, err
	}
	api, err := httpapi.New(httpapi.Deps{
		Groups: []httpapi.Group{httpapi.Webhook(accept)}, PublicURL: "https://ci.example.com", Now: time.Now, NewRef: random.Ref,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	handler := lambdaio.HTTP(api)
	payload, err := envelope(key)
	if err != nil {
		return nil, err
	}
	work := []func() error{
		func() error {
			out, err := handler.Invoke(ctx, payload)
			if err != nil {
				return err
			}
			if !bytes.Contains(out, []byte(`"statusCode":200`)) {
				return fmt.Errorf("a push was answered %s", out)
			}
			return nil
		},
		func() error {
			var e events.APIGatewayV2HTTPRequest
			if err := json.Unmarshal(payload, &e); err != nil {
				return err
			}
			if !bitbucket.Verify(secret.New(key), []byte(e.Body), e.Headers["x-hub-signature"]) {
				return errors.New("the signature is wrong")
			}
			return nil
		},
	}
	spent := make([]sample, len(work))
	for range rounds {
		for i, do := range work {
			took, err := processorTime(200, do)
			if err != nil {
				return nil, fmt.Errorf("measuring an invocation: %w", err)
			}
			spent[i] = append(spent[i], took)
		}
	}
	whole, least := spent[0], spent[1]
	// Each round compares what was measured side by side: a load of others comes and goes.
	ratios := make([]float64, len(whole))
	for i := range ratios {
		ratios[i] = ratio(whole[i], least[i])
	}
	slices.Sort(ratios)
	r := ratios[len(ratios)/2]
	return []figure{{
		what: "webhook invocation, CPU, warm", measured: short(whole.median()), floor: short(least.median()), ratio: fmt.Sprintf("%.2f", r),
		reach: "at most 1.5 × (envelope decode + HMAC)", reached: r <= 1.5,
		notes: []string{
			fmt.Sprintf("an event of %d bytes to its answer:     %s", len(payload), whole.spread()),
			"floor, AWS's type decoded, and the HMAC:  " + least.spread(),
			fmt.Sprintf("round by round: %.2f to %.2f", ratios[0], ratios[len(ratios)-1]),
		},
	}}, nil
}

// envelope is a push as the HTTP API hands it to the function.
func envelope(key string) ([]byte, error) {
	const hash = "4d6f70a1b2c3d4e5f60718293a4b5c6d7e8f9001"
	e, err := push(repository{Repository: visitor.Repository{UUID: "{7b1d3f62-1111-4222-8333-944455556666}", FullName: "acme/shop"}}, branchName, hash, hash)
	if err != nil {
		return nil, err
	}
	const domain = "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com"
	event := events.APIGatewayV2HTTPRequest{
		Version: "2.0", RouteKey: "POST /hooks/{hook}", RawPath: "/hooks/hook", Body: string(e.body),
		Headers: map[string]string{
			"accept": "*/*", "content-length": fmt.Sprint(len(e.body)), "content-type": "application/json", "host": domain, "user-agent": "Bitbucket-Webhooks/2.0",
			"x-amzn-trace-id": "Root=1-6924d5a0-3f2a9c5b7d1e4f6a8b0c2d4e", "x-attempt-number": "1", "x-event-key": e.key,
			"x-forwarded-for": "192.0.2.17", "x-forwarded-port": "443", "x-forwarded-proto": "https",
			"x-hook-uuid": "{b1c2d3e4-f5a6-4b7c-8d9e-0f1a2b3c4d5e}", "x-hub-signature": sign(key, e.body), "x-request-uuid": "3d0f7c1e-94a2-4b7a-8c55-1e2f3a4b5c6d",
		},
		PathParameters: map[string]string{"hook": "hook"},
	}
	event.RequestContext.AccountID, event.RequestContext.APIID, event.RequestContext.DomainName = "123456789012", "a1b2c3d4e5", domain
	event.RequestContext.RouteKey, event.RequestContext.Stage, event.RequestContext.RequestID = event.RouteKey, "$default", "VQv3xhq3IAMEbKQ="
	event.RequestContext.HTTP = events.APIGatewayV2HTTPRequestContextHTTPDescription{
		Method: "POST", Path: event.RawPath, Protocol: "HTTP/1.1", SourceIP: "192.0.2.17", UserAgent: "Bitbucket-Webhooks/2.0",
	}
	return json.Marshal(event)
}
