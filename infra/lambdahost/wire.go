package lambdahost

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// wire speaks to services in their JSON protocols, for what the host does in the
// place of AWS. The SDK stays in drivers; what is asked here is little.
type wire struct {
	url    string
	client *http.Client
}

func newWire(url string) *wire {
	return &wire{url: url, client: &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
}

// credential is what MiniStack finds the service by where the request does not tell.
func credential(key, region, service string) string {
	return "AWS4-HMAC-SHA256 Credential=" + key + "/20260101/" + region + "/" + service + "/aws4_request, SignedHeaders=host, Signature=0"
}

// call asks for an operation, named as in X-Amz-Target.
func (c *wire) call(ctx context.Context, service, target string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("X-Amz-Target", target)
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	if service == "dynamodb" || service == "sqs" {
		request.Header.Set("Content-Type", "application/x-amz-json-1.0")
	}
	request.Header.Set("Authorization", credential("host", "us-east-1", service))
	return c.do(request, target, out)
}

// send asks for what a method and a path name.
func (c *wire) send(ctx context.Context, method, service, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("Authorization", credential("host", "us-east-1", service))
	return c.do(request, method+" "+path, out)
}

func (c *wire) do(request *http.Request, what string, out any) error {
	answer, err := c.client.Do(request)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 32<<20))
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s %.500s", what, answer.Status, text)
	}
	if out == nil || len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
