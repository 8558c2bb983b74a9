package template

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	functionARN = serverlessFunction + ".Arn"
	queueARN    = "AWS::SQS::Queue.Arn"
	roleARN     = "AWS::IAM::Role.Arn"
)

// builder makes a stack of scopes. What one resource says of another is linked when all are
// known.
type builder struct {
	*problems
	stack        *Stack
	ids          map[string]Resource // by what Ref, and by what its Arn answers
	links        []func()
	last         []func()                // after the links
	integrations map[string]*integration // by what Ref answers
}

// scope adds the resources of a document.
func (b *builder) scope(s *scope) {
	for _, r := range s.doc.resources {
		if !s.there(r) {
			continue
		}
		full := Resource{s.doc.prefix + r.id, r.kind}
		if r.nested != nil {
			b.scope(s.within(r))
			continue
		}
		n := s.eval(r.properties)
		v := &view{problems: b.problems, place: r.place, n: n, shape: r.of.properties, resource: full.ID, seen: map[string]bool{}}
		x := &made{builder: b, scope: s, resource: r, view: v, id: full.ID}
		b.name(full, s.attribute(r, ""), "")
		if r.of.attributes["Arn"] != "" {
			b.name(full, s.attribute(r, "Arn"), ".Arn")
		}
		if x.build(); r.of.name != "" {
			v.seen[r.of.name] = true
		}
		b.links = append(b.links, v.done)
	}
}

// name notes what answers a resource: Ref, or its attribute ".Arn".
func (b *builder) name(r Resource, value, attribute string) { b.ids[r.Type+attribute+"\n"+value] = r }

// made is a resource being built.
type made struct {
	*builder
	scope    *scope
	resource *resource
	view     *view
	id       string
}

func (m *made) ref() string { return m.scope.attribute(m.resource, "") }
func (m *made) arn() string { return m.scope.attribute(m.resource, "Arn") }
func (m *made) name() string {
	return m.scope.name(m.resource)
}

// later looks for the resource that a value stands for, when all are known. It may be what Ref
// answers for one of these types, or its ARN where ".Arn" follows the type.
func (m *made) later(v *view, key, value string, set func(Resource), types ...string) {
	m.links = append(m.links, func() {
		for _, t := range types {
			if r, ok := m.ids[t+"\n"+value]; ok {
				set(r)
				return
			}
		}
		v.wrong(key, "%s is no %s of the template", shown(value), strings.Join(types, " or "))
	})
}

// deadLetter answers the ARN of a queue of the template.
func (m *made) deadLetter(v *view, key string) string {
	arn := v.text(key)
	if v.given(key) {
		m.later(v, key, arn, func(Resource) {}, queueARN)
	}
	return arn
}

func (m *made) build() {
	v, out := m.view, m.stack
	switch m.resource.kind {
	case serverlessFunction:
		m.function()
	case "AWS::Serverless::LayerVersion":
		out.Layers = append(out.Layers, Layer{m.id, m.name(), m.ref(), v.text("ContentUri"), m.resource.built, v.texts("CompatibleArchitectures")})
	case "AWS::Lambda::EventSourceMapping":
		m.source(v, "EventSourceArn", func(s *Source) *string { return &s.Function })
	case "AWS::Lambda::Permission":
		m.permission()
	case "AWS::ApiGatewayV2::Api":
		m.api()
	case "AWS::ApiGatewayV2::Stage":
		m.stage()
	case "AWS::ApiGatewayV2::Integration":
		m.integration()
	case "AWS::ApiGatewayV2::Route":
		m.route()
	case "AWS::SQS::Queue":
		m.queue()
	case "AWS::SQS::QueuePolicy":
		policy := m.document(v, "PolicyDocument", v.get("PolicyDocument"), ofResource)
		for _, url := range v.texts("Queues") {
			m.later(v, "Queues", url, func(r Resource) {
				i := slices.IndexFunc(out.Queues, func(q Queue) bool { return q.ID == r.ID })
				out.Queues[i].Policy = append(out.Queues[i].Policy, policy...)
			}, "AWS::SQS::Queue")
		}
	case "AWS::DynamoDB::Table":
		m.table()
	case "AWS::S3::Bucket":
		m.bucket()
	case "AWS::S3::BucketPolicy":
		policy := m.document(v, "PolicyDocument", v.get("PolicyDocument"), ofResource)
		m.later(v, "Bucket", v.text("Bucket"), func(r Resource) {
			i := slices.IndexFunc(out.Buckets, func(b Bucket) bool { return b.ID == r.ID })
			out.Buckets[i].Policy = append(out.Buckets[i].Policy, policy...)
		}, "AWS::S3::Bucket")
	case "AWS::KMS::Key":
		out.Keys = append(out.Keys, Key{
			ID: m.id, Key: m.ref(), ARN: m.arn(), Rotates: v.flag("EnableKeyRotation"), RotationDays: v.between("RotationPeriodInDays", 365, 90, 2560),
			PendingDays: v.between("PendingWindowInDays", 30, 7, 30), Policy: m.document(v, "KeyPolicy", v.get("KeyPolicy"), ofResource), Deletion: m.resource.deletion,
		})
	case "AWS::KMS::Alias":
		m.later(v, "TargetKeyId", v.text("TargetKeyId"), func(r Resource) {
			i := slices.IndexFunc(out.Keys, func(k Key) bool { return k.ID == r.ID })
			out.Keys[i].Aliases = append(out.Keys[i].Aliases, m.name())
		}, "AWS::KMS::Key", "AWS::KMS::Key.Arn")
	case "AWS::SecretsManager::Secret":
		out.Secrets = append(out.Secrets, Secret{m.id, m.name(), m.ref(), v.text("SecretString"), v.text("KmsKeyId"), m.resource.deletion})
	case "AWS::IAM::Role":
		m.role()
	case "AWS::IAM::RolePolicy":
		policy := m.document(v, "PolicyDocument", v.get("PolicyDocument"), ofRole)
		v.text("PolicyName")
		m.later(v, "RoleName", v.text("RoleName"), func(r Resource) { m.extend(r.ID, policy) }, "AWS::IAM::Role")
	case "AWS::CodeBuild::Project":
		m.project()
	case "AWS::Logs::LogGroup":
		out.LogGroups = append(out.LogGroups, LogGroup{m.id, m.name(), m.arn(), v.whole("RetentionInDays", 0), v.text("KmsKeyId"), m.resource.deletion})
	case "AWS::Scheduler::ScheduleGroup":
		out.ScheduleGroups = append(out.ScheduleGroups, ScheduleGroup{m.id, m.name(), m.arn()})
	case "AWS::Events::Rule":
		m.rule()
	case "AWS::CloudWatch::Alarm":
		m.alarm()
	case "AWS::SNS::Topic":
		out.Topics = append(out.Topics, Topic{ID: m.id, Name: m.name(), ARN: m.ref(), Key: v.text("KmsMasterKeyId")})
	case "AWS::SNS::TopicPolicy":
		policy := m.document(v, "PolicyDocument", v.get("PolicyDocument"), ofResource)
		for _, arn := range v.texts("Topics") {
			m.later(v, "Topics", arn, func(r Resource) {
				i := slices.IndexFunc(out.Topics, func(t Topic) bool { return t.ID == r.ID })
				out.Topics[i].Policy = append(out.Topics[i].Policy, policy...)
			}, "AWS::SNS::Topic")
		}
	case "AWS::Logs::MetricFilter":
		m.filter()
	case "AWS::SNS::Subscription": // nothing of it matters here
	default:
		v.wrong("", "%s is known and not built: the reader is incomplete", m.resource.kind)
	}
}

// extend adds to what a role may do, and with it to what the functions with the role may.
func (b *builder) extend(role string, policy Policy) {
	for i := range b.stack.Roles {
		if b.stack.Roles[i].ID == role {
			b.stack.Roles[i].Policy = append(b.stack.Roles[i].Policy, policy...)
		}
	}
}

func (m *made) function() {
	v := m.view
	f := Function{
		ID: m.id, Name: m.name(), ARN: m.arn(), Runtime: v.text("Runtime"), Handler: v.text("Handler"), Code: v.text("CodeUri"),
		Built: m.resource.built, Environment: v.table("Environment").pairs("Variables"), Timeout: v.seconds("Timeout", 3, 1, 900),
		Memory: v.between("MemorySize", 128, 128, 10240), Architecture: "x86_64", Async: m.async(), Recursive: v.text("RecursiveLoop") == "Allow",
	}
	logging := v.table("LoggingConfig")
	f.LogGroup = logging.textOr("LogGroup", "/aws/lambda/"+f.Name)
	if v.given("ReservedConcurrentExecutions") {
		f.Concurrency = v.between("ReservedConcurrentExecutions", 0, 1, 1000) // 0 turns a function off
	}
	if a := v.texts("Architectures"); len(a) == 1 {
		f.Architecture = a[0]
	} else if len(a) > 1 {
		v.wrong("Architectures", "%d of them: a function has one", len(a))
	}
	v.text("Tracing")
	i := len(m.stack.Functions)
	for _, arn := range v.texts("Layers") {
		m.later(v, "Layers", arn, func(r Resource) {
			m.stack.Functions[i].Layers = append(m.stack.Functions[i].Layers, r.ID)
		}, "AWS::Serverless::LayerVersion")
	}
	queues := m.events()
	if v.given("Role") {
		if v.get("Policies") != nil {
			v.wrong("Policies", "SAM ignores them where there is a Role")
		}
		m.later(v, "Role", v.text("Role"), func(r Resource) { f.Role = r.ID }, roleARN)
	} else {
		f.Role = m.ownRole(f.Async.DeadLetter, queues)
	}
	m.stack.Functions = append(m.stack.Functions, f)
	m.links = append(m.links, func() {
		m.stack.Functions[i].Role = f.Role
		m.last = append(m.last, func() {
			role, _ := m.stack.Role(f.Role)
			m.stack.Functions[i].Policy = role.Policy
			m.mayDo(v, "DeadLetterQueue", f.ID, "sqs:SendMessage", f.Async.DeadLetter)
		})
	})
}

// ownRole makes the role that SAM makes for a function that names none: it lets the function do
// what its Policies say, leave dead letters, and what SAM takes managed policies for.
func (m *made) ownRole(deadLetter string, queues bool) (id string) {
	v, role := m.view, m.scope.role(m.resource)
	made := Role{ID: m.id + "Role", Name: m.scope.name(role), ARN: m.scope.attribute(role, "Arn"), Trust: Policy{{
		Effect: allow, Actions: []string{"sts:AssumeRole"}, Principals: []string{"Service:lambda.amazonaws.com"},
	}}, Managed: []string{basicExecution}}
	if queues {
		made.Managed = append(made.Managed, queueExecution)
	}
	for _, n := range v.list("Policies") {
		if n.kind == scalar {
			made.Managed = append(made.Managed, arnOfManaged(n.text))
			continue
		}
		made.Policy = append(made.Policy, m.document(v, "Policies", n, ofRole)...)
	}
	if deadLetter != "" {
		made.Policy = append(made.Policy, Statement{Effect: allow, Actions: []string{"sqs:SendMessage"}, Resources: []string{deadLetter}})
	}
	for _, arn := range made.Managed {
		made.Policy = append(made.Policy, managed(arn)...)
	}
	own := Resource{made.ID, role.kind}
	m.builder.name(own, m.scope.attribute(role, ""), "")
	m.builder.name(own, made.ARN, ".Arn")
	m.stack.Roles = append(m.stack.Roles, made)
	return made.ID
}

// async reads what becomes of an event that the function fails on.
func (m *made) async() Retry {
	v, dead := m.view.table("EventInvokeConfig"), m.view.table("DeadLetterQueue")
	dead.text("Type")
	return Retry{
		Retries:    v.between("MaximumRetryAttempts", 2, 0, 2),
		MaxAge:     v.seconds("MaximumEventAgeInSeconds", 6*60*60, 60, 6*60*60),
		DeadLetter: m.deadLetter(dead, "TargetArn"),
	}
}

// retry reads how EventBridge goes on when it could not hand an event over. caller is the ARN
// of what hands it over; empty for EventBridge Scheduler, which does that with a role.
func (m *made) retry(v *view, caller string) Retry {
	policy := v.table("RetryPolicy")
	dead := v.table("DeadLetterConfig")
	if dead.given("Arn") && caller != "" {
		m.last = append(m.last, func() {
			for _, q := range m.stack.Queues {
				if q.ARN == dead.text("Arn") {
					m.reachable(dead, "Arn", caller, "", q.ID)
				}
			}
		})
	}
	return Retry{
		Retries:    policy.between("MaximumRetryAttempts", 185, 0, 185),
		MaxAge:     policy.seconds("MaximumEventAgeInSeconds", 24*60*60, 60, 24*60*60),
		DeadLetter: m.deadLetter(dead, "Arn"),
	}
}

// events reads a function's events, and reports whether a queue is among them.
func (m *made) events() (queues bool) {
	names, events := m.view.named("Events")
	for i, event := range events {
		kind := event.text("Type")
		p := event.n.get("Properties")
		event.seen["Properties"] = true
		v := event.open(p, event.shape.choices[kind], "Events."+names[i]+".Properties")
		if v.shape == nil {
			continue // refused
		}
		switch kind {
		case "SQS":
			queues = true
			m.source(v, "Queue", nil)
		case "Schedule":
			m.rate(v, "Schedule", Rate{Function: m.id, Caller: m.eventRule(names[i], v.text("Name"))})
		case "ScheduleV2":
			m.rate(v, "ScheduleExpression", Rate{Function: m.id})
		default:
			v.text("State")
			m.stack.Rules = append(m.stack.Rules, Rule{
				Function: m.id, ARN: m.eventRule(names[i], v.text("RuleName")), Pattern: pattern(v, "Pattern"),
				Retry: m.retry(v, m.eventRule(names[i], v.text("RuleName"))),
			})
		}
	}
	return queues
}

// eventRule answers the ARN of the rule that SAM makes for a function's event.
func (m *made) eventRule(event, name string) string {
	rule := &resource{id: m.resource.id + event, kind: "AWS::Events::Rule", of: m.scope.catalogue.types["AWS::Events::Rule"], properties: &node{kind: table}}
	if name != "" {
		rule.properties = &node{kind: table, keys: []*node{{kind: scalar, text: "Name"}}, items: []*node{{kind: scalar, text: name}}}
	}
	return m.scope.attribute(rule, "Arn")
}

func pattern(v *view, key string) map[string]any {
	p, ok := v.any(key).(map[string]any)
	if !ok || len(p) == 0 {
		v.wrong(key, "expected a pattern")
	}
	return p
}

// source reads what brings a queue's messages to a function: to m itself, or to the one that
// m names.
func (m *made) source(v *view, queue string, other func(*Source) *string) {
	s := Source{
		Function: m.id, BatchSize: v.between("BatchSize", 10, 1, 10000), Window: v.seconds("MaximumBatchingWindowInSeconds", 0, 0, 300),
		ReportsFailures: len(v.texts("FunctionResponseTypes")) > 0,
	}
	if s.BatchSize > 10 && s.Window == 0 {
		v.wrong("BatchSize", "more than 10 take a MaximumBatchingWindowInSeconds")
	}
	if scaling := v.table("ScalingConfig"); v.given("ScalingConfig") {
		s.Concurrency = scaling.between("MaximumConcurrency", 2, 2, 1000)
	}
	i := len(m.stack.Sources)
	m.stack.Sources = append(m.stack.Sources, s)
	m.last = append(m.last, func() {
		for _, action := range []string{"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"} {
			q, _ := m.stack.Queue(m.stack.Sources[i].Queue)
			m.mayDo(v, queue, m.stack.Sources[i].Function, action, q.ARN)
		}
	})
	m.later(v, queue, v.text(queue), func(r Resource) { m.stack.Sources[i].Queue = r.ID }, queueARN)
	if other != nil {
		m.later(v, "FunctionName", v.text("FunctionName"), func(r Resource) { m.stack.Sources[i].Function = r.ID }, serverlessFunction, functionARN)
	}
}

func (m *made) rate(v *view, key string, r Rate) {
	v.text("State")
	every, ok := parseRate(v.text(key))
	if !ok {
		v.wrong(key, "found %s: rate(5 minutes) and the like are understood", shown(v.text(key)))
	}
	r.Every, r.Retry = every, m.retry(v, r.Caller)
	m.stack.Rates = append(m.stack.Rates, r)
}

// parseRate reads rate(1 minute), rate(12 hours), rate(7 days).
func parseRate(text string) (time.Duration, bool) {
	inner, ok := strings.CutPrefix(text, "rate(")
	inner, ok2 := strings.CutSuffix(inner, ")")
	number, unit, ok3 := strings.Cut(inner, " ")
	n, err := strconv.Atoi(number)
	if !ok || !ok2 || !ok3 || err != nil || n < 1 || n > 10000 || (n == 1) == strings.HasSuffix(unit, "s") {
		return 0, false
	}
	each := map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}[strings.TrimSuffix(unit, "s")]
	return time.Duration(n) * each, each > 0
}

func (m *made) permission() {
	v := m.view
	v.text("Action")
	p := Permission{Principal: v.text("Principal"), Source: v.text("SourceArn")}
	if account := v.text("SourceAccount"); account != "" && account != m.scope.site.Account {
		v.wrong("SourceAccount", "is another account")
	}
	if p.Source == "" {
		v.wrong("SourceArn", "without it anybody's %s may call the function", p.Principal)
	}
	i := len(m.stack.Permissions)
	m.stack.Permissions = append(m.stack.Permissions, p)
	m.later(v, "FunctionName", v.text("FunctionName"), func(r Resource) { m.stack.Permissions[i].Function = r.ID }, serverlessFunction, functionARN)
}

func (m *made) api() {
	if m.stack.API.ID != "" {
		m.view.wrong("", "a second API is not understood")
	}
	m.view.text("ProtocolType")
	m.stack.API.ID, m.stack.API.Key = m.id, m.ref()
	m.stack.API.Endpoint = m.scope.attribute(m.resource, "ApiEndpoint")
}

// ofAPI checks that a part of the API is of the one there is.
func (m *made) ofAPI() {
	m.later(m.view, "ApiId", m.view.text("ApiId"), func(Resource) {}, "AWS::ApiGatewayV2::Api")
}

func (m *made) stage() {
	v := m.view
	m.ofAPI()
	v.text("AutoDeploy")
	throttle := func(v *view) Throttle {
		return Throttle{v.number("ThrottlingRateLimit", 0), v.whole("ThrottlingBurstLimit", 0)}
	}
	api := &m.stack.API
	api.Throttle, api.Routes = throttle(v.table("DefaultRouteSettings")), map[string]Throttle{}
	keys, settings := v.named("RouteSettings")
	for i, key := range keys {
		api.Routes[key] = throttle(settings[i])
		m.links = append(m.links, func() {
			if !slices.ContainsFunc(m.stack.Routes, func(r Route) bool { return r.Method+" "+r.Path == key }) {
				v.wrong("RouteSettings", "there is no route %s", shown(key))
			}
		})
	}
	access := v.table("AccessLogSettings")
	api.LogGroup = access.text("DestinationArn")
	api.Logged = access.text("Format")
}

// integration has no place of its own: routes name it, and it names the function.
func (m *made) integration() {
	v := m.view
	m.ofAPI()
	v.text("IntegrationType")
	v.text("PayloadFormatVersion")
	i := integration{timeout: time.Duration(v.between("TimeoutInMillis", 30000, 50, 30000)) * time.Millisecond}
	uri := v.text("IntegrationUri")
	if _, after, ok := strings.Cut(uri, ":lambda:path/2015-03-31/functions/"); ok {
		uri = strings.TrimSuffix(after, "/invocations")
	}
	m.integrations[m.ref()] = &i
	m.later(v, "IntegrationUri", uri, func(r Resource) { i.function = r.ID }, functionARN)
}

type integration struct {
	function string
	timeout  time.Duration
}

func (m *made) route() {
	v := m.view
	m.ofAPI()
	key, target := v.text("RouteKey"), v.text("Target")
	r := Route{}
	if key != "$default" {
		ok := false
		r.Method, r.Path, ok = strings.Cut(key, " ")
		if !ok || !strings.HasPrefix(r.Path, "/") || r.Method != strings.ToUpper(r.Method) {
			v.wrong("RouteKey", `found %s, expected "METHOD /path" or $default`, shown(key))
		}
	}
	if slices.ContainsFunc(m.stack.Routes, func(o Route) bool { return o.Method == r.Method && o.Path == r.Path }) {
		v.wrong("RouteKey", "a second route %s", key)
	}
	i := len(m.stack.Routes)
	m.stack.Routes = append(m.stack.Routes, r)
	m.last = append(m.last, func() {
		name, ok := strings.CutPrefix(target, "integrations/")
		to := m.integrations[name]
		if !ok || to == nil {
			v.wrong("Target", "%s is no integration of the template", shown(target))
			return
		}
		m.stack.Routes[i].Function, m.stack.Routes[i].Timeout = to.function, to.timeout
		if !m.callable(to.function, r) {
			v.wrong("Target", "no AWS::Lambda::Permission lets the API call %s for this route", to.function)
		}
	})
}

// mayDo complains where a function's role does not allow what Lambda does with it, without which
// AWS refuses to make the function or its source.
func (m *made) mayDo(v *view, key, function, action, resource string) {
	f, ok := m.stack.Function(function)
	role, ok2 := m.stack.Role(f.Role)
	if ok && ok2 && resource != "" && !m.stack.May(role, action, resource, nil) {
		v.wrong(key, "%s may not %s on %s", f.Role, action, resource)
	}
}

// reachable complains where EventBridge may not bring a rule's events to their target.
func (m *made) reachable(v *view, key, rule, function, queue string) {
	const service = "events.amazonaws.com"
	if q, ok := m.stack.Queue(queue); ok {
		context := map[string][]string{"aws:SourceArn": {rule}, "aws:SecureTransport": {"true"}}
		if !q.Policy.For("Service:"+service).Allows("sqs:SendMessage", q.ARN, context) {
			v.wrong(key, "no AWS::SQS::QueuePolicy lets EventBridge send to %s", queue)
		}
	}
	if _, ok := m.stack.Function(function); ok && !slices.ContainsFunc(m.stack.Permissions, func(p Permission) bool {
		return p.Function == function && p.Principal == service && wildcard(p.Source, rule)
	}) {
		v.wrong(key, "no AWS::Lambda::Permission lets the rule call %s", function)
	}
}

// callable reports whether API Gateway may call a function for a route.
func (b *builder) callable(function string, r Route) bool {
	// The parts of an execution's ARN: stage, method, and the path as the route has it.
	method, path := r.Method, strings.TrimPrefix(r.Path, "/")
	if method == "" {
		path = "$default"
	}
	return slices.ContainsFunc(b.stack.Permissions, func(p Permission) bool {
		parts := strings.SplitN(p.Source, ":", 6)
		return p.Function == function && p.Principal == "apigateway.amazonaws.com" && len(parts) == 6 && parts[2] == "execute-api" &&
			wildcard(parts[5], b.stack.API.Key+"/$default/"+method+"/"+path)
	})
}

func (m *made) queue() {
	v := m.view
	redrive := v.table("RedrivePolicy")
	q := Queue{
		ID: m.id, Name: m.name(), URL: m.ref(), ARN: m.arn(),
		Visibility: v.seconds("VisibilityTimeout", 30, 0, 12*60*60), Retention: v.seconds("MessageRetentionPeriod", 4*24*60*60, 60, 14*24*60*60),
		Delay: v.seconds("DelaySeconds", 0, 0, 900), Wait: v.seconds("ReceiveMessageWaitTimeSeconds", 0, 0, 20),
		MaxBytes:   v.between("MaximumMessageSize", 256<<10, 1<<10, 1<<20), // of a queue that is not told, the older ones' default
		DeadLetter: m.deadLetter(redrive, "deadLetterTargetArn"), MaxReceives: redrive.between("maxReceiveCount", 1, 1, 1000),
		Encrypted: v.flag("SqsManagedSseEnabled") || !v.given("SqsManagedSseEnabled"), // the default since 2022
	}
	if q.DeadLetter == "" {
		q.MaxReceives = 0
	}
	m.stack.Queues = append(m.stack.Queues, q)
}

func (m *made) table() {
	v := m.view
	t := Table{ID: m.id, Name: m.name(), ARN: m.arn(), Types: map[string]string{}, DeletionProtection: v.flag("DeletionProtectionEnabled"), Deletion: m.resource.deletion}
	if v.text("BillingMode") != "PAY_PER_REQUEST" {
		v.wrong("BillingMode", "PAY_PER_REQUEST is understood")
	}
	for _, a := range v.tables("AttributeDefinitions") {
		t.Types[a.text("AttributeName")] = a.text("AttributeType")
	}
	for _, k := range v.tables("KeySchema") {
		name := k.text("AttributeName")
		if k.text("KeyType") == "HASH" {
			t.Partition = name
		} else {
			t.Sort = name
		}
		if t.Types[name] == "" {
			v.wrong("AttributeDefinitions", "%s is missing", name)
		}
	}
	expiry := v.table("TimeToLiveSpecification")
	t.Expiry = expiry.text("AttributeName")
	expiry.text("Enabled")
	recovery := v.table("PointInTimeRecoverySpecification")
	t.PointInTimeRecovery = recovery.flag("PointInTimeRecoveryEnabled")
	recovery.whole("RecoveryPeriodInDays", 35)
	encryption := v.table("SSESpecification")
	t.Encrypted = encryption.flag("SSEEnabled")
	encryption.text("SSEType")
	encryption.text("KMSMasterKeyId")
	m.stack.Tables = append(m.stack.Tables, t)
}

func (m *made) bucket() {
	v := m.view
	b := Bucket{ID: m.id, Name: m.name(), ARN: m.arn(), Deletion: m.resource.deletion}
	for _, rule := range v.table("BucketEncryption").tables("ServerSideEncryptionConfiguration") {
		how := rule.table("ServerSideEncryptionByDefault")
		b.Encryption, b.KeyID = how.text("SSEAlgorithm"), how.text("KMSMasterKeyID")
	}
	for _, rule := range v.table("LifecycleConfiguration").tables("Rules") {
		b.Lifecycle = append(b.Lifecycle, Lifecycle{
			ID: rule.text("Id"), Prefix: rule.text("Prefix"), Enabled: rule.text("Status") == "Enabled", Expire: rule.whole("ExpirationInDays", 0),
			ExpireOld:        rule.table("NoncurrentVersionExpiration").whole("NoncurrentDays", 0),
			AbandonedUploads: rule.table("AbortIncompleteMultipartUpload").whole("DaysAfterInitiation", 0),
		})
	}
	block := v.table("PublicAccessBlockConfiguration")
	b.PublicBlocked = true
	for _, way := range []string{"BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"} {
		b.PublicBlocked = block.flag(way) && b.PublicBlocked
	}
	for _, rule := range v.table("OwnershipControls").tables("Rules") {
		b.OwnerEnforced = rule.text("ObjectOwnership") == "BucketOwnerEnforced"
	}
	b.Versioned = v.table("VersioningConfiguration").text("Status") == "Enabled"
	m.stack.Buckets = append(m.stack.Buckets, b)
}

func (m *made) role() {
	v := m.view
	r := Role{ID: m.id, Name: m.name(), ARN: m.arn(), Trust: m.document(v, "AssumeRolePolicyDocument", v.get("AssumeRolePolicyDocument"), ofTrust), Managed: v.texts("ManagedPolicyArns")}
	for _, p := range v.tables("Policies") {
		p.text("PolicyName")
		r.Policy = append(r.Policy, m.document(p, "PolicyDocument", p.get("PolicyDocument"), ofRole)...)
	}
	for _, arn := range r.Managed {
		if managed(arn) == nil {
			v.wrong("ManagedPolicyArns", "%s is not understood: what a managed policy allows does not stand here, so write the statements", shown(arn))
		}
		r.Policy = append(r.Policy, managed(arn)...)
	}
	m.stack.Roles = append(m.stack.Roles, r)
}

func (m *made) project() {
	v := m.view
	source, environment, logs := v.table("Source"), v.table("Environment"), v.table("LogsConfig").table("CloudWatchLogs")
	source.text("Type")
	v.table("Artifacts").text("Type")
	logs.text("Status")
	p := Project{
		ID: m.id, Name: m.name(), ARN: m.arn(), BuildSpec: source.text("BuildSpec"), Image: environment.text("Image"),
		Compute: environment.text("ComputeType"), Kind: environment.text("Type"), Environment: map[string]string{},
		Privileged:  environment.flag("PrivilegedMode"),
		Timeout:     time.Duration(v.between("TimeoutInMinutes", 60, 5, 2160)) * time.Minute,
		Queued:      time.Duration(v.between("QueuedTimeoutInMinutes", 480, 5, 480)) * time.Minute,
		Concurrency: v.whole("ConcurrentBuildLimit", 0), LogGroup: logs.text("GroupName"), LogStream: logs.text("StreamName"),
		Key: v.text("EncryptionKey"),
	}
	for _, e := range environment.tables("EnvironmentVariables") {
		e.text("Type")
		p.Environment[e.text("Name")] = e.text("Value")
	}
	i := len(m.stack.Projects)
	m.stack.Projects = append(m.stack.Projects, p)
	m.later(v, "ServiceRole", v.text("ServiceRole"), func(r Resource) { m.stack.Projects[i].Role = r.ID }, roleARN)
}

func (m *made) rule() {
	v := m.view
	v.text("State")
	if v.given("EventPattern") == v.given("ScheduleExpression") {
		v.wrong("EventPattern", "expected it or ScheduleExpression")
		return
	}
	for _, target := range v.tables("Targets") {
		target.text("Id")
		arn, retry := target.text("Arn"), m.retry(target, m.arn())
		if v.given("ScheduleExpression") {
			every, ok := parseRate(v.text("ScheduleExpression"))
			if !ok {
				v.wrong("ScheduleExpression", "found %s: rate(5 minutes) and the like are understood", shown(v.text("ScheduleExpression")))
			}
			i := len(m.stack.Rates)
			m.stack.Rates = append(m.stack.Rates, Rate{Every: every, Caller: m.arn(), Retry: retry})
			m.later(target, "Arn", arn, func(r Resource) { m.stack.Rates[i].Function = r.ID }, functionARN)
			m.last = append(m.last, func() { m.reachable(target, "Arn", m.arn(), m.stack.Rates[i].Function, "") })
			continue
		}
		i := len(m.stack.Rules)
		m.stack.Rules = append(m.stack.Rules, Rule{ARN: m.arn(), Pattern: pattern(v, "EventPattern"), Retry: retry})
		m.later(target, "Arn", arn, func(r Resource) {
			if r.Type == serverlessFunction {
				m.stack.Rules[i].Function = r.ID
			} else {
				m.stack.Rules[i].Queue = r.ID
			}
		}, functionARN, queueARN)
		m.last = append(m.last, func() {
			m.reachable(target, "Arn", m.arn(), m.stack.Rules[i].Function, m.stack.Rules[i].Queue)
		})
	}
}

func (m *made) alarm() {
	v := m.view
	a := Alarm{
		ID: m.id, Name: m.name(), Description: v.text("AlarmDescription"), Namespace: v.text("Namespace"), Metric: v.text("MetricName"),
		Dimensions: map[string]string{}, Actions: v.texts("AlarmActions"), Missing: v.text("TreatMissingData"),
	}
	for _, d := range v.tables("Dimensions") {
		a.Dimensions[d.text("Name")] = d.text("Value")
	}
	a.Metrics, _ = v.any("Metrics").([]any)
	m.stack.Alarms = append(m.stack.Alarms, a)
}

func (m *made) filter() {
	v := m.view
	for _, metric := range v.tables("MetricTransformations") {
		f := Filter{
			ID: m.id, LogGroup: v.text("LogGroupName"), Pattern: v.text("FilterPattern"),
			Namespace: metric.text("MetricNamespace"), Metric: metric.text("MetricName"), Dimensions: map[string]string{},
		}
		for _, d := range metric.tables("Dimensions") {
			f.Dimensions[d.text("Key")] = d.text("Value")
		}
		m.stack.Filters = append(m.stack.Filters, f)
	}
}
