package lambdahost

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// asked is what a request asks of a service, and which permissions that needs
// (https://docs.aws.amazon.com/service-authorization/latest/reference/).
type asked struct {
	service string
	action  string
	needs   []need
}

// need is one permission.
type need struct {
	action, resource string
	context          map[string][]string
}

// resource names what the call is about, for people.
func (a asked) resource() string {
	if len(a.needs) == 0 {
		return ""
	}
	if keys := a.needs[0].context["dynamodb:LeadingKeys"]; len(keys) > 0 {
		return keys[0]
	}
	return a.needs[0].resource
}

// describe reads a request: who asks, by the access key, and what.
func (g *gateway) describe(r *http.Request, body []byte) (key string, a asked, err error) {
	// Credential=AKIA…/date/region/service/aws4_request
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	scope, _, _ = strings.Cut(scope, ",")
	parts := strings.Split(scope, "/")
	if len(parts) != 5 {
		return "", a, fmt.Errorf("a request to %s is not signed", r.URL.Path)
	}
	key, a.service = parts[0], parts[3]
	if _, action, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok {
		a.action = action
	}
	arn := func(service, resource string) string {
		return "arn:aws:" + service + ":" + g.host.Region + ":" + g.host.Account + ":" + resource
	}
	switch a.service {
	case "dynamodb":
		a.needs, err = tableNeeds(a.action, body, func(table string) string { return arn("dynamodb", "table/"+table) })
	case "sqs":
		var in struct {
			QueueURL string `json:"QueueUrl"`
		}
		err = json.Unmarshal(body, &in)
		a.needs = []need{{action: "sqs:" + a.action, resource: arn("sqs", in.QueueURL[strings.LastIndex(in.QueueURL, "/")+1:])}}
	case "kms":
		var in struct {
			KeyID   string            `json:"KeyId"`
			Context map[string]string `json:"EncryptionContext"`
		}
		err = json.Unmarshal(body, &in)
		n := need{action: "kms:" + a.action, resource: in.KeyID, context: map[string][]string{}}
		for name, value := range in.Context {
			n.context["kms:EncryptionContext:"+name] = []string{value}
			n.context["kms:EncryptionContextKeys"] = append(n.context["kms:EncryptionContextKeys"], name)
		}
		a.needs = []need{n}
	case "logs":
		var in struct {
			Group  string `json:"logGroupName"`
			Stream string `json:"logStreamName"`
		}
		err = json.Unmarshal(body, &in)
		if a.action == "CreateLogStream" || a.action == "DescribeLogStreams" {
			in.Stream = "" // these are asked of the group
		}
		a.needs = []need{{action: "logs:" + a.action, resource: arn("logs", "log-group:"+in.Group+":log-stream:"+in.Stream)}}
	case "secretsmanager":
		var in struct {
			Secret string `json:"SecretId"`
		}
		err = json.Unmarshal(body, &in)
		a.needs = []need{{action: "secretsmanager:" + a.action, resource: in.Secret}}
	case "codebuild":
		a.needs, err = buildNeeds(a.action, body, func(project string) string { return arn("codebuild", "project/"+project) })
	case "scheduler":
		a.action, a.needs, err = scheduleNeeds(r, body, func(name string) string { return arn("scheduler", "schedule/"+name) })
	default:
		err = fmt.Errorf("service %q is none that functions use", a.service)
	}
	if err != nil {
		return key, a, fmt.Errorf("%s %s: %w", a.service, a.action, err)
	}
	return key, a, nil
}

// tableNeeds are the permissions of a call to DynamoDB: a transaction needs those of its parts.
func tableNeeds(action string, body []byte, arn func(table string) string) ([]need, error) {
	type key map[string]struct{ S string }
	type part struct {
		TableName string
		Key, Item key
	}
	var in struct {
		part
		RequestItems              map[string]struct{ Keys []key }
		TransactItems             []map[string]part
		KeyConditionExpression    string
		ExpressionAttributeNames  map[string]string
		ExpressionAttributeValues key
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	one := func(action string, p part) need {
		leading := p.Key["pk"].S
		if leading == "" {
			leading = p.Item["pk"].S
		}
		return need{"dynamodb:" + action, arn(p.TableName), map[string][]string{"dynamodb:LeadingKeys": {leading}}}
	}
	switch action {
	case "GetItem":
		return []need{one(action, in.part)}, nil
	case "Query":
		m := regexp.MustCompile(`(#?\w+)\s*=\s*(:\w+)`).FindStringSubmatch(in.KeyConditionExpression)
		if m == nil {
			return nil, fmt.Errorf("no partition in %q", in.KeyConditionExpression)
		}
		return []need{one(action, part{TableName: in.TableName, Key: key{"pk": in.ExpressionAttributeValues[m[2]]}})}, nil
	case "BatchGetItem":
		var needs []need
		for table, request := range in.RequestItems {
			n := need{"dynamodb:BatchGetItem", arn(table), map[string][]string{}}
			for _, k := range request.Keys {
				n.context["dynamodb:LeadingKeys"] = append(n.context["dynamodb:LeadingKeys"], k["pk"].S)
			}
			needs = append(needs, n)
		}
		return needs, nil
	case "TransactWriteItems", "TransactGetItems":
		names := map[string]string{"Put": "PutItem", "Delete": "DeleteItem", "Update": "UpdateItem", "ConditionCheck": "ConditionCheckItem", "Get": "GetItem"}
		var needs []need
		for _, item := range in.TransactItems {
			for kind, p := range item {
				if names[kind] == "" {
					return nil, fmt.Errorf("a transaction has the part %q", kind)
				}
				needs = append(needs, one(names[kind], p))
			}
		}
		return needs, nil
	}
	return nil, fmt.Errorf("no permission is known for it")
}

// units is what a call to DynamoDB is charged (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/capacity-mode.html): two
// write units for each begun KB of each item in a transaction, one read unit for each begun 4 KB of a consistent read. An item that is
// deleted is not seen, and taken for a short one.
func units(action string, body, answer []byte) int {
	if action != "TransactWriteItems" {
		return max(1, (len(answer)+4095)/4096)
	}
	type values map[string]struct{ S, N string }
	var in struct {
		TransactItems []map[string]struct {
			Key                       values
			ExpressionAttributeValues values
		}
	}
	if json.Unmarshal(body, &in) != nil {
		return 0 // it was read before
	}
	all := 0
	for _, item := range in.TransactItems {
		for _, part := range item {
			size := len("pkskversionbodywritten_by")
			for _, v := range part.Key {
				size += len(v.S) + len(v.N)
			}
			for _, v := range part.ExpressionAttributeValues {
				size += len(v.S) + len(v.N)
			}
			all += 2 * ((size + 1023) / 1024)
		}
	}
	return all
}

// buildNeeds are those of a call to CodeBuild, which are about projects.
func buildNeeds(action string, body []byte, arn func(project string) string) ([]need, error) {
	var in struct {
		ProjectName string   `json:"projectName"`
		ID          string   `json:"id"`
		IDs         []string `json:"ids"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	if in.ID != "" {
		in.IDs = append(in.IDs, in.ID)
	}
	var needs []need
	if in.ProjectName != "" {
		needs = append(needs, need{action: "codebuild:" + action, resource: arn(in.ProjectName)})
	}
	for _, id := range in.IDs {
		project, _, _ := strings.Cut(id, ":")
		needs = append(needs, need{action: "codebuild:" + action, resource: arn(project)})
	}
	if len(needs) == 0 {
		return nil, fmt.Errorf("it names no project and no build")
	}
	return needs, nil
}

// scheduleNeeds are those of a call to EventBridge Scheduler. Whoever makes a schedule passes a role on.
func scheduleNeeds(r *http.Request, body []byte, arn func(name string) string) (string, []need, error) {
	actions := map[string]string{
		http.MethodPost: "CreateSchedule", http.MethodPut: "UpdateSchedule", http.MethodGet: "GetSchedule", http.MethodDelete: "DeleteSchedule",
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/schedules/")
	action := actions[r.Method]
	if !ok || action == "" {
		return "", nil, fmt.Errorf("%s %s is no call about a schedule", r.Method, r.URL.Path)
	}
	var in struct {
		GroupName string
		Target    struct{ RoleArn string }
	}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &in); err != nil {
			return action, nil, err
		}
	}
	group := in.GroupName
	if group == "" {
		group = r.URL.Query().Get("groupName")
	}
	needs := []need{{action: "scheduler:" + action, resource: arn(group + "/" + name)}}
	if in.Target.RoleArn != "" {
		needs = append(needs, need{
			action: "iam:PassRole", resource: in.Target.RoleArn,
			context: map[string][]string{"iam:PassedToService": {"scheduler.amazonaws.com"}},
		})
	}
	return action, needs, nil
}
