package lambdahost

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"runnerhub/infra/template"
)

// Provisioning is how a template is made real in MiniStack.
type Provisioning struct {
	Services string // URL of MiniStack
	Template *template.Template
	// Site names the stack and gives parameters. Its Value is asked first.
	Site template.Site
	// Visibility replaces that of the queues whose messages functions get, where a test cannot wait
	// that long for a function that died; 0: as the template has it.
	Visibility time.Duration
}

// Provision makes what the template declares, as far as functions need it: tables, queues, keys,
// buckets, secrets, log groups and schedule groups. It answers the template resolved with what they are known by.
func Provision(ctx context.Context, p Provisioning) (*template.Stack, error) {
	declared, err := p.Template.Resolve(p.Site)
	if err != nil {
		return nil, err
	}
	m := &maker{Provisioning: p, wire: newWire(p.Services), values: map[string]string{}}
	for _, step := range []func(context.Context, *template.Stack) error{m.keys, m.queues, m.tables, m.buckets, m.secrets, m.groups} {
		if err := step(ctx, declared); err != nil {
			return nil, fmt.Errorf("provisioning %s: %w", p.Site.Name, err)
		}
	}
	known := p.Site
	known.Value = func(r template.Resource, attribute string) string {
		if p.Site.Value != nil {
			if v := p.Site.Value(r, attribute); v != "" {
				return v
			}
		}
		return m.values[r.ID+"."+attribute]
	}
	return p.Template.Resolve(known)
}

type maker struct {
	Provisioning
	wire   *wire
	values map[string]string // id and attribute → what MiniStack calls it
}

func (m *maker) keys(ctx context.Context, s *template.Stack) error {
	for _, k := range s.Keys {
		var out struct {
			KeyMetadata struct {
				KeyID string `json:"KeyId"`
				ARN   string `json:"Arn"`
			}
		}
		if err := m.wire.call(ctx, "kms", "TrentService.CreateKey", map[string]any{"Description": k.ID}, &out); err != nil {
			return err
		}
		m.values[k.ID+"."], m.values[k.ID+".Arn"], m.values[k.ID+".KeyId"] = out.KeyMetadata.KeyID, out.KeyMetadata.ARN, out.KeyMetadata.KeyID
	}
	return nil
}

func (m *maker) queues(ctx context.Context, s *template.Stack) error {
	fed := map[string]bool{}
	for _, source := range s.Sources {
		fed[source.Queue] = true
	}
	// Those for dead letters first: another one names them.
	ordered := slices.SortedStableFunc(slices.Values(s.Queues), func(a, b template.Queue) int { return cmp.Compare(len(a.DeadLetter), len(b.DeadLetter)) })
	for _, q := range ordered {
		visibility := q.Visibility
		if fed[q.ID] && m.Visibility > 0 {
			visibility = m.Visibility
		}
		attributes := map[string]string{
			"VisibilityTimeout":      strconv.Itoa(int(visibility / time.Second)),
			"MessageRetentionPeriod": strconv.Itoa(int(q.Retention / time.Second)),
		}
		if q.DeadLetter != "" {
			policy, err := json.Marshal(map[string]any{"deadLetterTargetArn": q.DeadLetter, "maxReceiveCount": q.MaxReceives})
			if err != nil {
				return err
			}
			attributes["RedrivePolicy"] = string(policy)
		}
		var out struct {
			QueueURL string `json:"QueueUrl"`
		}
		if err := m.wire.call(ctx, "sqs", "AmazonSQS.CreateQueue", map[string]any{"QueueName": q.Name, "Attributes": attributes}, &out); err != nil {
			return err
		}
		m.values[q.ID+"."], m.values[q.ID+".QueueUrl"] = out.QueueURL, out.QueueURL
	}
	return nil
}

func (m *maker) tables(ctx context.Context, s *template.Stack) error {
	for _, t := range s.Tables {
		in := map[string]any{
			"TableName": t.Name, "BillingMode": "PAY_PER_REQUEST",
			"AttributeDefinitions": []map[string]string{{"AttributeName": t.Partition, "AttributeType": "S"}, {"AttributeName": t.Sort, "AttributeType": "S"}},
			"KeySchema":            []map[string]string{{"AttributeName": t.Partition, "KeyType": "HASH"}, {"AttributeName": t.Sort, "KeyType": "RANGE"}},
		}
		if err := m.wire.call(ctx, "dynamodb", "DynamoDB_20120810.CreateTable", in, nil); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) buckets(ctx context.Context, s *template.Stack) error {
	for _, b := range s.Buckets {
		if err := m.wire.send(ctx, http.MethodPut, "s3", "/"+b.Name, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) secrets(ctx context.Context, s *template.Stack) error {
	for _, secret := range s.Secrets {
		var out struct{ ARN string }
		in := map[string]any{"Name": secret.Name, "SecretString": secret.Value, "ClientRequestToken": requestID()}
		if err := m.wire.call(ctx, "secretsmanager", "secretsmanager.CreateSecret", in, &out); err != nil {
			return err
		}
		m.values[secret.ID+"."], m.values[secret.ID+".Id"] = out.ARN, out.ARN
	}
	return nil
}

func (m *maker) groups(ctx context.Context, s *template.Stack) error {
	for _, g := range s.LogGroups {
		if err := m.wire.call(ctx, "logs", "Logs_20140328.CreateLogGroup", map[string]any{"logGroupName": g.Name}, nil); err != nil {
			return err
		}
	}
	for _, g := range s.ScheduleGroups {
		if err := m.wire.send(ctx, http.MethodPost, "scheduler", "/schedule-groups/"+g.Name, map[string]any{}, nil); err != nil {
			return err
		}
	}
	return nil
}
