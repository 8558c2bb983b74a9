package template

import "time"

// Stack is what a template makes at a site, in the order of the templates. IDs are as in
// Resource; times that the template leaves out are as AWS has them.
type Stack struct {
	Functions      []Function
	API            API // its ID is empty where there is none
	Routes         []Route
	Sources        []Source
	Rules          []Rule
	Rates          []Rate
	Queues         []Queue
	Tables         []Table
	Buckets        []Bucket
	Keys           []Key
	Secrets        []Secret
	Projects       []Project
	LogGroups      []LogGroup
	Layers         []Layer
	ScheduleGroups []ScheduleGroup
	Roles          []Role
	Permissions    []Permission
	Topics         []Topic
	Alarms         []Alarm
	Filters        []Filter
	Outputs        map[string]string // of the root template
}

// Function is a Lambda function.
type Function struct {
	ID, Name, ARN string
	Runtime       string
	Handler       string
	Code          string // CodeUri, below the folder of its template
	Built         string // BuildMethod
	Environment   map[string]string
	Timeout       time.Duration
	Memory        int // MB
	Concurrency   int // reserved; 0 for none reserved
	Architecture  string
	Layers        []string // ids, the first beneath the others
	Role          string   // id; of one that SAM makes, that of the function and "Role"
	Policy        Policy   // its role's
	LogGroup      string   // name
	// Recursive is whether Lambda lets the function go on that leaves messages in its own queue:
	// by default it stops such a chain after some 16 steps.
	Recursive bool
	// Async says what becomes of events that the function fails on: those of rules and rates.
	// A dead letter is the event as it came, with the error in its attributes.
	Async Retry
}

// Retry says how often something is tried again, how long, and what becomes of it then.
type Retry struct {
	Retries    int
	MaxAge     time.Duration
	DeadLetter string // ARN of a queue; empty: it is lost
}

// API is the HTTP API.
type API struct {
	ID       string
	Key      string // API Gateway's id of it
	Endpoint string
	Throttle Throttle            // of routes that have none of their own
	Routes   map[string]Throttle // by route key, such as "POST /hooks/{hook}"
	LogGroup string              // ARN, of its access log
	Logged   string              // a line of it, with variables such as $context.status
}

// Throttle is how many requests a route takes; 0 leaves it to the account.
type Throttle struct {
	Rate  float64 // requests a second
	Burst int
}

// Route leads requests to a function.
type Route struct {
	Method, Path string // both empty for $default
	Function     string // id
	Timeout      time.Duration
}

// Source brings a queue's messages to a function.
type Source struct {
	Function, Queue string // ids
	BatchSize       int
	Window          time.Duration
	Concurrency     int // 0 is unbounded
	ReportsFailures bool
}

// Rule brings events to a function, or to a queue.
type Rule struct {
	Function, Queue string // ids; one of them
	ARN             string
	Pattern         map[string]any
	Retry
}

// Rate calls a function again and again.
type Rate struct {
	Function string // id
	Caller   string // ARN of the rule; empty for a schedule of EventBridge Scheduler
	Every    time.Duration
	Retry
}

// Queue is an SQS queue.
type Queue struct {
	ID, Name, URL, ARN    string
	Visibility, Retention time.Duration
	Delay, Wait           time.Duration
	MaxBytes              int    // of a message
	DeadLetter            string // ARN of a queue, after MaxReceives
	MaxReceives           int
	Encrypted             bool
	Policy                Policy // the queue's own
}

// Table is a DynamoDB table, paid by request.
type Table struct {
	ID, Name, ARN       string
	Partition, Sort     string            // names of its key's attributes
	Types               map[string]string // of these attributes: S, N or B
	Expiry              string            // the attribute that says when an item ends
	PointInTimeRecovery bool
	Encrypted           bool // with a key of KMS; all tables are with one of DynamoDB
	DeletionProtection  bool
	Deletion            string // Delete, Retain or RetainExceptOnCreate: what becomes of it when the template drops it
}

// Bucket is an S3 bucket.
type Bucket struct {
	ID, Name, ARN string
	Encryption    string // AES256 or aws:kms
	KeyID         string
	Lifecycle     []Lifecycle
	PublicBlocked bool // in all four ways
	OwnerEnforced bool
	Versioned     bool
	Policy        Policy // the bucket's own
	Deletion      string
}

// Lifecycle is one rule of a bucket's; the numbers are days, 0 for never.
type Lifecycle struct {
	ID, Prefix                          string
	Enabled                             bool
	Expire, ExpireOld, AbandonedUploads int
}

// Key is a KMS key.
type Key struct {
	ID, Key, ARN string // Key is KMS's id of it
	Rotates      bool
	RotationDays int
	PendingDays  int // before it is deleted
	Aliases      []string
	Policy       Policy // the key's own, KeyPolicy
	Deletion     string
}

// Secret is a secret of Secrets Manager.
type Secret struct {
	ID, Name, ARN string
	Value         string // SecretString
	Key           string // of KMS; empty for Secrets Manager's
	Deletion      string
}

// Project is a CodeBuild project without a source: its buildspec stands in it.
type Project struct {
	ID, Name, ARN        string
	Role                 string // id
	BuildSpec            string
	Image, Compute, Kind string
	Environment          map[string]string
	Privileged           bool
	Timeout, Queued      time.Duration
	Concurrency          int    // 0 is the account's
	LogGroup, LogStream  string // names
	Key                  string
}

// LogGroup is one of CloudWatch Logs.
type LogGroup struct {
	ID, Name, ARN string
	RetentionDays int // 0 is for ever
	Key           string
	Deletion      string
}

// Layer is a Lambda layer.
type Layer struct {
	ID, Name, ARN string
	Content       string // ContentUri, below the folder of its template
	Built         string // BuildMethod
	Architectures []string
}

// ScheduleGroup is one of EventBridge Scheduler.
type ScheduleGroup struct{ ID, Name, ARN string }

// Role is an IAM role, of the template or of those that SAM makes.
type Role struct {
	ID, Name, ARN string
	Trust         Policy   // who may take it
	Policy        Policy   // what it may do
	Managed       []string // ARNs of managed policies, whose statements are in Policy
}

// Permission lets a service call a function.
type Permission struct {
	Function  string // id
	Principal string
	Source    string // ARN, with wildcards
}

// Topic is an SNS topic.
type Topic struct {
	ID, Name, ARN string
	Key           string
	Policy        Policy
}

// Alarm is one of CloudWatch.
type Alarm struct {
	ID, Name          string
	Description       string
	Namespace, Metric string
	Dimensions        map[string]string
	Metrics           []any  // of an alarm on an expression
	Missing           string // what no data is taken for
	Actions           []string
}

// Filter counts the lines of a log that match a pattern, as a metric.
type Filter struct {
	ID                string
	LogGroup          string // name
	Pattern           string
	Namespace, Metric string
	Dimensions        map[string]string // fields of a line, such as $.route, by the names of dimensions
}

// Function answers a function by id.
func (s *Stack) Function(id string) (Function, bool) {
	return find(s.Functions, func(f Function) bool { return f.ID == id })
}

// Queue answers a queue by id.
func (s *Stack) Queue(id string) (Queue, bool) {
	return find(s.Queues, func(q Queue) bool { return q.ID == id })
}

// Role answers a role by id.
func (s *Stack) Role(id string) (Role, bool) {
	return find(s.Roles, func(r Role) bool { return r.ID == id })
}

func find[T any](list []T, is func(T) bool) (T, bool) {
	for _, x := range list {
		if is(x) {
			return x, true
		}
	}
	var none T
	return none, false
}
