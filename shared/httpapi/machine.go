package httpapi

import (
	"context"
	"strconv"

	"runnerhub/shared/ingest"
	"runnerhub/shared/runner"
)

// Ingest takes webhook requests in. Nil means that the request is durable.
type Ingest interface {
	Accept(ctx context.Context, r ingest.Request) error
}

// Report is what a build's agent talks to.
type Report interface {
	Claim(ctx context.Context, r runner.ClaimRequest) (runner.Claim, error)
	Steps(ctx context.Context, r runner.Report) (runner.ReportAnswer, error)
}

// What machines call: webhooks, the agents of builds, and whoever asks for health. None
// of them has a session.

func (a authGroup) health(*call) (answer, error) {
	return reply(map[string]string{"status": "ok"}, nil)
}

// hook hands the raw bytes on: nothing is decoded before the signature is verified.
func (a webhookGroup) hook(c *call) (answer, error) {
	body, err := c.body(ingest.MaxBody)
	if err != nil {
		return nil, err
	}
	request := c.Header.Get("X-Request-UUID")
	if request == "" {
		request = c.Header.Get("X-Request-Id")
	}
	attempt, err := strconv.Atoi(c.Header.Get("X-Attempt-Number"))
	if err != nil {
		attempt = 0
	}
	err = a.ingest.Accept(c.Context(), ingest.Request{
		Hook: c.PathValue("hook"), Event: c.Header.Get("X-Event-Key"), RequestID: request,
		Signature: c.Header.Get("X-Hub-Signature"), Attempt: attempt, Body: body,
	})
	return reply(map[string]bool{"accepted": true}, err)
}

func (a buildsGroup) claim(c *call) (answer, error) {
	var in runner.ClaimRequest
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return reply(a.report.Claim(c.Context(), in))
}

func (a buildsGroup) steps(c *call) (answer, error) {
	var in runner.Report
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return reply(a.report.Steps(c.Context(), in))
}
