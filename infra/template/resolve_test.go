package template

import (
	"reflect"
	"strings"
	"testing"
)

// TestFunctions evaluates each function of a template in an output.
func TestFunctions(t *testing.T) {
	t.Parallel()
	head := strings.Join([]string{
		"Parameters:",
		"  Text: {Type: String, Default: word}",
		"  Empty: {Type: String, Default: ''}",
		"  Many: {Type: CommaDelimitedList, Default: 'a, b,c'}",
		"Conditions:",
		"  Yes: !Equals [!Ref Text, word]",
		"  No: !Not [!Condition Yes]",
		"  Both: !And [!Condition Yes, {Condition: No}]",
		"  Either: {'Fn::Or': [{Condition: No}, {Condition: Yes}]}",
		"Resources:",
		"  Q: {Type: 'AWS::SQS::Queue', Properties: {QueueName: !Sub '${AWS::StackName}-q'}}",
		"  K: {Type: 'AWS::KMS::Key', Properties: {KeyPolicy: {Statement: []}}}",
		"  B: {Type: 'AWS::S3::Bucket'}",
		"  F: {Type: 'AWS::Serverless::Function'}",
		"Outputs:",
		"  Out: {Value: ",
	}, "\n")
	for expression, want := range map[string]string{
		"plain":                    "plain",
		"1.50":                     "1.50", // as it stands there
		"!Ref Text":                "word",
		"{Ref: Text}":              "word",
		"!Ref AWS::Region":         "eu-central-1",
		"!Ref AWS::AccountId":      "123456789012",
		"!Ref AWS::StackName":      "hub",
		"!Ref AWS::Partition":      "aws",
		"!Ref AWS::URLSuffix":      "amazonaws.com",
		"!Ref Q":                   "https://sqs.eu-central-1.amazonaws.com/123456789012/hub-q",
		"!GetAtt Q.Arn":            "arn:aws:sqs:eu-central-1:123456789012:hub-q",
		"!GetAtt [Q, QueueName]":   "hub-q",
		"{'Fn::GetAtt': [Q, Arn]}": "arn:aws:sqs:eu-central-1:123456789012:hub-q",
		"{'Fn::GetAtt': Q.Arn}":    "arn:aws:sqs:eu-central-1:123456789012:hub-q",
		"!Ref FRole":               "hub-FRole-LUSPKKVXG7QW",
		"!GetAtt FRole.Arn":        "arn:aws:iam::123456789012:role/hub-FRole-LUSPKKVXG7QW",
		"!Sub 'a-${Text}-${Q.Arn}-${AWS::Region}'":     "a-word-arn:aws:sqs:eu-central-1:123456789012:hub-q-eu-central-1",
		"!Sub '${!Text} $Text {Text} ${Empty}.'":       "${Text} $Text {Text} .",
		"!Sub ['${x}-${Text}', {x: !Ref Empty}]":       "-word",
		"!Sub ['${Text}', {Text: other}]":              "other",
		"{'Fn::Sub': '${Text}'}":                       "word",
		"!Join ['-', [a, !Ref Text, !GetAtt Q.Arn]]":   "a-word-arn:aws:sqs:eu-central-1:123456789012:hub-q",
		"!Join ['', !Ref Many]":                        "abc",
		"!Join ['+', !Split ['/', a/b//c]]":            "a+b++c",
		"!Select [1, !Ref Many]":                       "b",
		"!Select ['0', !Split [':', !GetAtt Q.Arn]]":   "arn",
		"!If [Yes, a, b]":                              "a",
		"!If [No, a, !If [Either, c, d]]":              "c",
		"!If [Both, a, !Ref Text]":                     "word",
		"!Join ['-', [a, !Ref AWS::NoValue, b]]":       "a-b",
		"!Sub '${Text}${AWS::NoValue}'":                "word",
		"{'Fn::If': [Yes, {Ref: Text}, x]}":            "word",
		"!Select [0, !Split ['-', !Ref K]]":            "4cf9d277",
		"!Ref B":                                       "hub-b-z7loeodlirug",
		"!Ref AWS::StackId":                            "arn:aws:cloudformation:eu-central-1:123456789012:stack/hub/08d33503-ee27-44c1-a055-d0cefec5e730",
		"!Sub '${B.RegionalDomainName}'":               "hub-b-z7loeodlirug.s3.eu-central-1.amazonaws.com",
		"!GetAtt [K, Arn]":                             "arn:aws:kms:eu-central-1:123456789012:key/4cf9d277-e6a0-41c2-a271-6c12bf8bc0c3",
		"!Join ['', [!Select [2, [a, b, c]], 'x: y']]": "cx: y",
	} {
		t.Run(expression, func(t *testing.T) {
			t.Parallel()
			parsed, err := parseTexts(map[string]string{"template.yaml": head + expression + "}\n"})
			if err != nil {
				t.Fatal(err)
			}
			s := site()
			s.Parameters = nil
			stack, err := parsed.Resolve(s)
			if err != nil {
				t.Fatal(err)
			}
			if got := stack.Outputs["Out"]; got != want {
				t.Errorf("%s is %q, not %q", expression, got, want)
			}
		})
	}
}

// TestSite overrides what is made up, in every place that refers to it.
func TestSite(t *testing.T) {
	t.Parallel()
	parsed, err := Parse("testdata/service/template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := site()
	asked := map[Resource]bool{}
	s.Value = func(r Resource, attribute string) string {
		asked[r] = true
		switch {
		case r == Resource{"Deliveries", "AWS::SQS::Queue"} && attribute == "":
			return "http://127.0.0.1:1/q"
		case r.ID == "Data.HooksKey" && attribute == "Arn":
			return "arn:aws:kms:eu-central-1:000000000000:key/mine"
		}
		return ""
	}
	stack, err := parsed.Resolve(s)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := stack.Function("WebhookFunction")
	if got := f.Environment["DELIVERIES"]; got != "http://127.0.0.1:1/q" {
		t.Errorf("the queue is %s", got)
	}
	const key = "arn:aws:kms:eu-central-1:000000000000:key/mine"
	if f.Environment["HOOKS_KEY"] != key || stack.Keys[0].ARN != key {
		t.Errorf("the key is %s, %s", f.Environment["HOOKS_KEY"], stack.Keys[0].ARN)
	}
	if q, _ := stack.Queue("Deliveries"); q.URL != "http://127.0.0.1:1/q" || q.ARN == "" {
		t.Errorf("the queue is %+v", q)
	}
	hook := map[string][]string{"kms:EncryptionContext:purpose": {"hook"}}
	if !f.Policy.Allows("kms:Decrypt", key, hook) || f.Policy.Allows("kms:Decrypt", key, nil) {
		t.Errorf("the policy is %+v", f.Policy)
	}
	if !asked[Resource{"DispatchFunctionRole", "AWS::IAM::Role"}] {
		t.Error("the site was not asked for a role that SAM makes")
	}

	// Another site is another place for the same names.
	t.Run("prod", func(t *testing.T) {
		s := site()
		s.Parameters["Stage"] = "prod"
		stack, err := parsed.Resolve(s)
		if err != nil {
			t.Fatal(err)
		}
		f, _ := stack.Function("DispatchFunction")
		w, _ := stack.Function("WebhookFunction")
		if f.Concurrency != 20 || !stack.Tables[0].DeletionProtection || len(stack.Alarms) != 1 || stack.Outputs["First"] != "" || len(w.Policy) != 3 {
			t.Errorf("prod is %+v", stack)
		}
	})
	again, err := parsed.Resolve(site())
	if err != nil {
		t.Fatal(err)
	}
	once, _ := parsed.Resolve(site())
	if !reflect.DeepEqual(again, once) {
		t.Error("twice the same site is two stacks")
	}
}

// TestUnresolved has templates that are in order, and values that are not.
func TestUnresolved(t *testing.T) {
	t.Parallel()
	const (
		api   = "  A: {Type: 'AWS::ApiGatewayV2::Api', Properties: {ProtocolType: HTTP}}\n  I: {Type: 'AWS::ApiGatewayV2::Integration', Properties: {ApiId: !Ref A, IntegrationType: AWS_PROXY, IntegrationUri: !GetAtt F.Arn, PayloadFormatVersion: '2.0'}}\n  F: {Type: 'AWS::Serverless::Function'}\n"
		allow = "  P: {Type: 'AWS::Lambda::Permission', Properties: {FunctionName: !Ref F, Action: lambda:InvokeFunction, Principal: apigateway.amazonaws.com, SourceArn: !Sub 'arn:aws:execute-api:${AWS::Region}:${AWS::AccountId}:${A}/*/GET/x'}}\n"
	)
	route := func(key, target string) string {
		return "  R: {Type: 'AWS::ApiGatewayV2::Route', Properties: {ApiId: !Ref A, RouteKey: '" + key + "', Target: " + target + "}}\n"
	}
	for name, test := range map[string]struct {
		template   string
		parameters map[string]string
		want       []string
	}{
		"parameters": {
			"Parameters:\n  A: {Type: String}\n  B: {Type: String, AllowedPattern: '[a-z]+'}\n  C: {Type: Number, MaxValue: 3}\nResources: {Q: {Type: 'AWS::SQS::Queue'}}\n",
			map[string]string{"B": "a1", "C": "4", "D": ""},
			[]string{"template.yaml: Parameters.D: there is no such parameter", "2: Parameters.A: has no value and no default", "3: Parameters.B: the value does not match AllowedPattern", "4: Parameters.C: the value is above 3"},
		},
		"a secret is not repeated": {
			"Parameters:\n  B: {Type: String, NoEcho: true, AllowedPattern: '[a-z]+'}\nResources: {Q: {Type: 'AWS::SQS::Queue'}}\n",
			map[string]string{"B": "a1"},
			[]string{"2: Parameters.B: the value does not match AllowedPattern"},
		},
		"what is not there": {
			"Parameters: {A: {Type: String, Default: a}}\nConditions: {No: !Equals [!Ref A, b]}\nResources:\n  Q: {Type: 'AWS::SQS::Queue', Condition: No}\n  R: {Type: 'AWS::SQS::Queue', Properties: {QueueName: !GetAtt Q.QueueName}}\n", nil,
			[]string{"5: Fn::GetAtt refers to Q, which is not there: its condition No"},
		},
		"numbers of parameters": {
			"Parameters: {A: {Type: String, Default: 31}, B: {Type: String, Default: x}}\nResources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {ReceiveMessageWaitTimeSeconds: !Ref A, DelaySeconds: !Ref B, SqsManagedSseEnabled: !Ref B}}\n", nil,
			[]string{`3: Q: DelaySeconds: found "x", expected a whole number`, "3: Q: ReceiveMessageWaitTimeSeconds: 31 is not between 0 and 20", `3: Q: SqsManagedSseEnabled: found "x", expected true or false`},
		},
		"words of parameters": {
			"Parameters: {A: {Type: String, Default: riscv}}\nResources:\n  F: {Type: 'AWS::Serverless::Function', Properties: {RecursiveLoop: !Ref A, ReservedConcurrentExecutions: 0, Architectures: [arm64, x86_64]}}\n", nil,
			[]string{"3: F: Architectures: 2 of them", `3: F: RecursiveLoop: found "riscv", expected Allow or Terminate`, "3: F: ReservedConcurrentExecutions: 0 is not between 1"},
		},
		"links": {
			"Resources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {RedrivePolicy: {deadLetterTargetArn: 'arn:aws:sqs:a:b:c', maxReceiveCount: 1}}}\n  F: {Type: 'AWS::Serverless::Function', Properties: {Role: x, Layers: [y], Events: {A: {Type: SQS, Properties: {Queue: !Ref Q}}}}}\n", nil,
			[]string{`2: Q: RedrivePolicy.deadLetterTargetArn: "arn:aws:sqs:a:b:c" is no AWS::SQS::Queue.Arn`, `3: F: Events.A.Properties.Queue: "https://sqs.eu-central-1.amazonaws.com/123456789012/hub-Q-`, `3: F: Layers: "y" is no AWS::Serverless::LayerVersion`, `3: F: Role: "x" is no AWS::IAM::Role`},
		},
		"a role and policies": {
			"Resources:\n  R: {Type: 'AWS::IAM::Role', Properties: {AssumeRolePolicyDocument: {Statement: []}, ManagedPolicyArns: ['arn:aws:iam::aws:policy/AdministratorAccess']}}\n  F: {Type: 'AWS::Serverless::Function', Properties: {Role: !GetAtt R.Arn, Policies: []}}\n", nil,
			[]string{`2: R: ManagedPolicyArns: "arn:aws:iam::aws:policy/AdministratorAccess" is not understood`, "3: F: Policies: SAM ignores them"},
		},
		"statements": {
			"Resources:\n  R:\n    Type: AWS::IAM::Role\n    Properties:\n      AssumeRolePolicyDocument: {Statement: []}\n      Policies:\n        - PolicyName: x\n          PolicyDocument:\n            Statement:\n              - {Effect: Allow, Action: '*', Resource: x}\n              - {Effect: Allow, Action: GetItem, Resource: '*', Principal: '*'}\n              - {Effect: Allow, Action: 's3:*'}\n              - {Effect: Allow, Action: 's3:*', Resource: 'arn:aws:s3:::${aws:username}'}\n  P: {Type: 'AWS::SQS::QueuePolicy', Properties: {Queues: [], PolicyDocument: {Statement: {Effect: Deny, Action: 'sqs:*', Resource: '*'}}}}\n", nil,
			[]string{
				`10: R: Policies[0].PolicyDocument: "x" is no ARN`, "11: R: Policies[0].PolicyDocument: there is a Principal, and", `11: R: Policies[0].PolicyDocument: "GetItem" is no action`,
				"12: R: Policies[0].PolicyDocument: there is no Resource", "13: R: Policies[0].PolicyDocument: the variable in \"arn:aws:s3:::${aws:username}\"",
				"14: P: PolicyDocument: there is no Principal",
			},
		},
		"rates": {
			"Resources:\n  F: {Type: 'AWS::Serverless::Function', Properties: {Events: {A: {Type: Schedule, Properties: {Schedule: 'cron(0 * * * ? *)'}}, B: {Type: Schedule, Properties: {Schedule: rate(1 minutes)}}, C: {Type: EventBridgeRule, Properties: {Pattern: {}}}}}}\n", nil,
			[]string{`2: F: Events.A.Properties.Schedule: found "cron`, `2: F: Events.B.Properties.Schedule: found "rate(1 minutes)"`, "2: F: Events.C.Properties.Pattern: expected a pattern"},
		},
		"a route":                      {"Resources:\n" + api + allow + route("GET /x", "!Sub 'integrations/${I}'"), nil, nil},
		"a route without a permission": {"Resources:\n" + api + allow + route("GET /y", "!Sub 'integrations/${I}'"), nil, []string{"6: R: Target: no AWS::Lambda::Permission lets the API call F"}},
		"a route to nowhere":           {"Resources:\n" + api + route("GET /y", "integrations/x"), nil, []string{`5: R: Target: "integrations/x" is no integration`}},
		"a route that is none":         {"Resources:\n" + api + allow + route("get x", "!Sub 'integrations/${I}'"), nil, []string{`6: R: RouteKey: found "get x"`, "6: R: Target: no AWS::Lambda::Permission"}},
		"routes of the stage": {
			"Resources:\n" + api + "  S: {Type: 'AWS::ApiGatewayV2::Stage', Properties: {ApiId: nobody, StageName: $default, AutoDeploy: true, RouteSettings: {GET /z: {ThrottlingBurstLimit: 1}}}}\n", nil,
			[]string{`5: S: ApiId: "nobody" is no AWS::ApiGatewayV2::Api`, `5: S: RouteSettings: there is no route "GET /z"`},
		},
		"what may not be done": {
			"Resources:\n  Q: {Type: 'AWS::SQS::Queue'}\n  R: {Type: 'AWS::IAM::Role', Properties: {AssumeRolePolicyDocument: {Statement: []}}}\n" +
				"  F: {Type: 'AWS::Serverless::Function', Properties: {Role: !GetAtt R.Arn, DeadLetterQueue: {Type: SQS, TargetArn: !GetAtt Q.Arn}, Events: {A: {Type: SQS, Properties: {Queue: !GetAtt Q.Arn}}, B: {Type: EventBridgeRule, Properties: {Pattern: {a: [b]}, DeadLetterConfig: {Arn: !GetAtt Q.Arn}}}}}}\n" +
				"  E: {Type: 'AWS::Events::Rule', Properties: {EventPattern: {a: [b]}, Targets: [{Id: a, Arn: !GetAtt Q.Arn}, {Id: b, Arn: !GetAtt F.Arn}]}}\n", nil,
			[]string{
				"4: F: DeadLetterQueue: R may not sqs:SendMessage", "4: F: Events.A.Properties.Queue: R may not sqs:ReceiveMessage on arn", "4: F: Events.A.Properties.Queue: R may not sqs:DeleteMessage", "4: F: Events.A.Properties.Queue: R may not sqs:GetQueueAttributes",
				"4: F: Events.B.Properties.DeadLetterConfig.Arn: no AWS::SQS::QueuePolicy lets EventBridge send to Q", "5: E: Targets[0].Arn: no AWS::SQS::QueuePolicy lets EventBridge send to Q", "5: E: Targets[1].Arn: no AWS::Lambda::Permission lets the rule call F",
			},
		},
		"a permission for everybody": {
			"Resources:\n  F: {Type: 'AWS::Serverless::Function'}\n  P: {Type: 'AWS::Lambda::Permission', Properties: {FunctionName: !Ref F, Action: lambda:InvokeFunction, Principal: s3.amazonaws.com}}\n", nil,
			[]string{"3: P: SourceArn: without it anybody's s3.amazonaws.com"},
		},
		"select": {
			"Parameters: {A: {Type: CommaDelimitedList, Default: a}}\nResources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {QueueName: !Select [1, !Ref A]}}\n", nil,
			[]string{"3: Fn::Select: the list has no such item"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parsed, err := parseTexts(map[string]string{"template.yaml": test.template})
			if err != nil {
				t.Fatal(err)
			}
			s := site()
			s.Parameters = test.parameters
			_, err = parsed.Resolve(s)
			compareProblems(t, err, test.want)
			if err != nil && strings.Contains(err.Error(), "a1") {
				t.Error("an error repeats a parameter's value")
			}
		})
	}
	parsed, err := parseTexts(map[string]string{"template.yaml": one("AWS::SQS::Queue", "")})
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []Site{{}, {Name: "hub", Region: "here", Account: "123456789012"}, {Name: "hub", Region: "us-gov-west-1", Account: "1"}, {Name: "a b", Region: "eu-central-1", Account: "123456789012"}} {
		if _, err := parsed.Resolve(wrong); err == nil {
			t.Errorf("resolves for %+v", wrong)
		}
	}
}
