package codebuild

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// Limits of PutLogEvents.
const (
	maxEvents     = 10000
	maxEventBytes = 1 << 20
	eventOverhead = 26 // bytes that each event counts beside its text
)

// CloudWatchDeps is what a CloudWatch needs. All of it is required.
type CloudWatchDeps struct {
	Endpoint string // of something that stands for AWS: requests carry no signature
	Region   string
	Key      string // access key id that requests name
	HTTP     *http.Client
}

// CloudWatch brings lines to CloudWatch Logs. It makes streams, and no groups.
type CloudWatch struct {
	deps CloudWatchDeps

	mu    sync.Mutex
	there map[[2]string]bool // streams, by group and name
}

// NewCloudWatch makes one; it calls nobody.
func NewCloudWatch(deps CloudWatchDeps) (*CloudWatch, error) {
	if deps.Endpoint == "" || deps.Region == "" || deps.Key == "" || deps.HTTP == nil {
		return nil, errors.New("new codebuild: CloudWatch needs Endpoint, Region, Key and HTTP")
	}
	return &CloudWatch{deps: deps, there: map[[2]string]bool{}}, nil
}

// Lines fits Deps.Lines. After an error some of the lines may be there already.
func (c *CloudWatch) Lines(ctx context.Context, group, stream string, lines []Line) error {
	if err := c.makeStream(ctx, group, stream); err != nil {
		return err
	}
	type logEvent struct {
		Timestamp int64  `json:"timestamp"`
		Message   string `json:"message"`
	}
	for len(lines) > 0 {
		var events []logEvent
		size := 0
		for len(lines) > 0 && len(events) < maxEvents {
			if size += len(lines[0].Text) + eventOverhead; size > maxEventBytes {
				break
			}
			events = append(events, logEvent{lines[0].Time.UnixMilli(), lines[0].Text})
			lines = lines[1:]
		}
		answer, err := c.call(ctx, "PutLogEvents", map[string]any{"logGroupName": group, "logStreamName": stream, "logEvents": events})
		if err != nil {
			return err
		}
		var out struct {
			Rejected json.RawMessage `json:"rejectedLogEventsInfo"`
		}
		if err := json.Unmarshal(answer, &out); err != nil {
			return fmt.Errorf("reading the answer to PutLogEvents: %w", err)
		}
		if len(out.Rejected) > 0 && string(out.Rejected) != "null" {
			return fmt.Errorf("PutLogEvents rejected events: %s", out.Rejected)
		}
	}
	return nil
}

func (c *CloudWatch) makeStream(ctx context.Context, group, stream string) error {
	key := [2]string{group, stream}
	c.mu.Lock()
	there := c.there[key]
	c.mu.Unlock()
	if there {
		return nil
	}
	answer, err := c.call(ctx, "CreateLogStream", map[string]any{"logGroupName": group, "logStreamName": stream})
	if err != nil && !bytes.Contains(answer, []byte("ResourceAlreadyExistsException")) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.there[key] = true
	return nil
}

// call answers what the service said, with an error too when it was a refusal.
func (c *CloudWatch) call(ctx context.Context, operation string, in any) ([]byte, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", operation, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.deps.Endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", operation, err)
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	request.Header.Set("X-Amz-Target", "Logs_20140328."+operation)
	request.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/20160101/%s/logs/aws4_request, SignedHeaders=host, Signature=none", c.deps.Key, c.deps.Region))
	response, err := c.deps.HTTP.Do(request)
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", operation, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxRequest))
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", operation, err)
	}
	if response.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("%s answered %d: %.300s", operation, response.StatusCode, answer)
	}
	return answer, nil
}
