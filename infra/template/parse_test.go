package template

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"
)

// parseTexts parses template.yaml of these files, whose lines are indented with spaces as
// YAML needs.
func parseTexts(files map[string]string) (*Template, error) {
	in := fstest.MapFS{}
	for name, text := range files {
		in[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return ParseFS(in, "template.yaml")
}

// one is a template of one resource; body is its inner lines.
func one(kind, body string) string {
	return "Resources:\n  It:\n    Type: " + kind + "\n" + body
}

// TestRefusals shows the reader what it does not understand or what AWS would refuse: each is
// told with its place.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const queue = "AWS::SQS::Queue"
	for name, test := range map[string]struct {
		template string
		want     []string
	}{
		"not YAML":           {"a: b: c", []string{"template.yaml: yaml: mapping values are not allowed in this context"}},
		"nothing":            {"", []string{"template.yaml: the file is empty"}},
		"two documents":      {"a: b\n---\nc: d", []string{"template.yaml: more than one document"}},
		"no template":        {"- a", []string{"template.yaml:1: found a list, expected the sections of a template"}},
		"an alias":           {"Description: &a x\nMetadata: *a\n" + one(queue, ""), []string{"template.yaml:1: anchors", "template.yaml:2: anchors"}},
		"a foreign tag":      {"Description: !!binary x\n" + one(queue, ""), []string{"template.yaml:1: the tag"}},
		"an unknown section": {"Mappings: {}\nHooks: {}\n" + one(queue, ""), []string{"template.yaml:1: Mappings: ", "template.yaml:2: Hooks: "}},
		"another transform":  {"Transform: AWS::LanguageExtensions\n" + one(queue, ""), []string{"template.yaml:1: Transform: expected AWS::Serverless"}},
		"no resources":       {"Description: x", []string{"template.yaml:1: Resources: CloudFormation takes 1"}},
		"a key twice":        {one(queue, "    Type: "+queue+"\n"), []string{`template.yaml:4: "Type" is given twice: in line 3, too`}},
		"an unknown type":    {one("AWS::SQS::Queues", ""), []string{`template.yaml:2: It: Type: "AWS::SQS::Queues" is not understood`}},
		"an API of SAM":      {one("AWS::Serverless::HttpApi", ""), []string{"template.yaml:2: It: Type: AWS::Serverless::HttpApi is not understood: functions"}},
		"no type":            {"Resources:\n  It: {Properties: {}}", []string{"template.yaml:2: It: Type: is missing"}},
		"a bad name":         {"Resources:\n  It-is: {Type: " + queue + "}", []string{"template.yaml:2: Resources.It-is: a name is of letters and digits alone"}},
		"around properties": {
			one(queue, "    CreationPolicy: {}\n    DependsOn: [Other]\n    Condition: Never\n    DeletionPolicy: Keep\n    Metadata: {Odd: 1}\n"),
			[]string{"2: It: Condition: there is no condition \"Never\"", "2: It: DependsOn: there is no resource \"Other\"", "4: It: CreationPolicy: not", "7: It: DeletionPolicy: found \"Keep\"", "8: It: Metadata.Odd: not"},
		},
		"a typo": {
			one(queue, "    Properties:\n      VisibilityTimeOut: 30\n      RedrivePolicy: {deadLetterTargetARN: x}\n      Tags: [{Key: a, Valeu: b}]\n"),
			[]string{
				"5: It: VisibilityTimeOut: not understood here", "6: It: RedrivePolicy.deadLetterTargetARN: not understood here", "6: It: RedrivePolicy.deadLetterTargetArn: is missing",
				"6: It: RedrivePolicy.maxReceiveCount: is missing", "7: It: Tags.Valeu: not understood here", "7: It: Tags.Value: is missing",
			},
		},
		"values of another kind": {
			one(queue, "    Properties:\n      QueueName: [a]\n      VisibilityTimeout: 3s\n      SqsManagedSseEnabled: yes\n      RedrivePolicy: x\n      Tags: {Key: a}\n      DelaySeconds:\n"),
			[]string{
				"5: It: QueueName: found a list, expected a text", `6: It: VisibilityTimeout: found "3s", expected a whole number`,
				`7: It: SqsManagedSseEnabled: found "yes", expected true or false`, "8: It: RedrivePolicy: found a text, expected a map", "9: It: Tags: found a map, expected a list",
				"10: It: DelaySeconds: has no value",
			},
		},
		"words": {
			one("AWS::ApiGatewayV2::Api", "    Properties: {ProtocolType: WEBSOCKET, Tags: {a: b}}\n"),
			[]string{`4: It: ProtocolType: found "WEBSOCKET", expected HTTP`},
		},
		"references": {
			one(queue, "    Properties:\n      QueueName: !Ref Nobody\n      KmsMasterKeyId: !GetAtt It.Name\n      RedrivePolicy: {deadLetterTargetArn: !GetAtt [It, ARN], maxReceiveCount: !Sub '${It.Size}${!x}${AWS::Rigeon}'}\n"),
			[]string{
				"2: It: circular dependency between resources: It → It", `5: It: QueueName: Ref: there is no resource or parameter "Nobody"`, "6: It: KmsMasterKeyId: not understood here",
				`7: It: RedrivePolicy.deadLetterTargetArn: Fn::GetAtt: no attribute "ARN" of It`, `7: It: RedrivePolicy.maxReceiveCount: Fn::Sub: no attribute "Size" of It`, `7: It: RedrivePolicy.maxReceiveCount: Fn::Sub: there is no resource or parameter "AWS::Rigeon"`,
			},
		},
		"functions": {
			one(queue, "    Properties:\n      QueueName: !ImportValue x\n      DelaySeconds: !If [Never, 1, 2]\n      VisibilityTimeout: !If [Never]\n      Tags: !Split [',', a]\n      RedrivePolicy: !Sub x\n      MaximumMessageSize: !Split [',', a]\n      MessageRetentionPeriod: {Fn::Join: ['']}\n      ReceiveMessageWaitTimeSeconds: !Select [a, [b]]\n"),
			[]string{
				"5: It: QueueName: Fn::ImportValue: is not understood here", `6: It: DelaySeconds: Fn::If: there is no condition "Never"`, "7: It: VisibilityTimeout: Fn::If takes the name",
				"8: It: Tags: Fn::Split gives a list, expected a list", "9: It: RedrivePolicy: Fn::Sub gives a text, expected a map", "10: It: MaximumMessageSize: Fn::Split gives a list, expected a whole number",
				"11: It: MessageRetentionPeriod: Fn::Join: takes a separator and a list", `12: It: ReceiveMessageWaitTimeSeconds: found "a", expected a whole number`,
			},
		},
		"parameters": {
			"Parameters:\n  A: {Type: String, Defalt: x}\n  B: {Default: x}\n  C: {Type: 'AWS::SSM::Parameter::Value<String>'}\n  D: {Type: Number, Default: x}\n  E: {Type: String, AllowedPattern: '['}\n  F: {Type: String, AllowedValues: [a, b], Default: c}\n  G: {Type: Number, MinValue: 3, Default: 2}\n  It: {Type: String, MinLength: 1, Default: ''}\n" + one(queue, ""),
			[]string{
				"2: Parameters.A.Defalt: not understood", "3: Parameters.B.Type: is missing", `4: Parameters.C.Type: found "AWS::SSM`, "5: Parameters.D.Default: the value is no number", "6: Parameters.E.AllowedPattern: error parsing regexp",
				"7: Parameters.F.Default: the value is none of a, b", "8: Parameters.G.Default: the value is below 3", "9: Parameters.It.Default: the value is below 1 characters", "11: It: a parameter in line 9 has the same name",
			},
		},
		"conditions": {
			"Conditions:\n  A: !Not [!Condition B]\n  B: !And [!Condition A, {Condition: Nobody}]\n  C: !Equals [!Ref It, a]\n  D: !Equals [a]\n  E: !Ref AWS::Region\n  F: true\n  G: !Or [!Equals [a, b], x]\n" + one(queue, ""),
			[]string{
				"2: Conditions: a circle: A → B → A", `3: Conditions.B: there is no condition "Nobody"`, "4: Conditions.C: a condition cannot refer to a resource",
				"5: Conditions.D: Fn::Equals takes a list of 2 to 2", "6: Conditions.E: Ref is no condition", "7: Conditions.F: found a text, expected a condition", "8: Conditions.G: found a text, expected a condition",
			},
		},
		"outputs": {
			one(queue, "") + "Outputs:\n  A: {Value: !Ref Nobody, Condition: Never}\n  B: {Export: {Name: x}, Value: y}\n  C: {}\n  D: x\n  E: {Value: x, Condition: [a]}\n",
			[]string{
				`5: Outputs.A.Condition: there is no condition "Never"`, `5: Outputs.A.Value: Ref: there is no`, "6: Outputs.B.Export: not understood", "7: Outputs.C.Value: is missing", "8: Outputs.D: found a text", "9: Outputs.E.Condition: found a list",
			},
		},
		"globals": {
			"Globals:\n  Api: {}\n  Function: {Policies: [], Timeout: x}\n" + one("AWS::Serverless::Function", "    Properties: {Handler: x}\n"),
			[]string{"2: Globals.Api: not understood", "3: Globals.Function.Policies: not understood here", `3: Globals.Function.Timeout: found "x"`, `3: It: Timeout: found "x"`},
		},
		"policies of a function": {
			one("AWS::Serverless::Function", "    Properties:\n      Policies:\n        - AmazonDynamoDBFullAccess\n        - SQSPollerPolicy: {QueueName: x}\n        - Statement: [{Effect: Allow, NotAction: x, Resource: '*'}]\n        - Statement: {Effect: allow, Action: 's3:*', NotResource: y, Condition: {StringLikes: {a: b}, StringLike: {a: {b: c}}}}\n        - [AWSLambdaBasicExecutionRole]\n"),
			[]string{
				`6: It: Policies: "AmazonDynamoDBFullAccess" is not understood`, `7: It: Policies: "SQSPollerPolicy" is a policy template`, "8: It: Policies.Statement.Action: is missing", "8: It: Policies.Statement.NotAction: not understood here",
				"9: It: Policies.Statement.Condition.StringLike.a: found a map", `9: It: Policies.Statement.Condition.StringLikes: the operator "StringLikes"`, `9: It: Policies.Statement.Effect: found "allow"`, "9: It: Policies.Statement.NotResource: not",
				"10: It: Policies: found a list in a list",
			},
		},
		"events of a function": {
			one("AWS::Serverless::Function", "    Properties:\n      Events:\n        A: {Type: HttpApi, Properties: {Path: /, Method: GET}}\n        B: {Type: SQS}\n        C: {Type: SQS, Properties: {Queue: x, FilterCriteria: {}}}\n        D: {Properties: {}}\n"),
			[]string{`6: It: Events.A.Type: "HttpApi" is not understood`, "7: It: Events.B.Properties: is missing", "8: It: Events.C.Properties.FilterCriteria: not understood here", "9: It: Events.D.Type: is missing"},
		},
		"a circle": {
			"Resources:\n  F:\n    Type: AWS::Serverless::Function\n    Properties: {Environment: {Variables: {URL: !GetAtt A.ApiEndpoint}}}\n  A:\n    Type: AWS::ApiGatewayV2::Api\n    Properties: {ProtocolType: HTTP, Name: !Ref I}\n  I:\n    Type: AWS::ApiGatewayV2::Integration\n    Properties: {ApiId: !Ref A, IntegrationType: AWS_PROXY, IntegrationUri: !GetAtt F.Arn, PayloadFormatVersion: '2.0'}\n",
			[]string{"5: A: circular dependency between resources: A → I → A", "5: A: circular dependency between resources: A → I → F → A"},
		},
		"a circle by DependsOn": {
			"Resources:\n  A: {Type: 'AWS::SQS::Queue', DependsOn: B}\n  B: {Type: 'AWS::SQS::Queue', Properties: {QueueName: !Ref A}}\n",
			[]string{"2: A: circular dependency between resources: A → B → A"},
		},
		"a circle through a role": {
			"Resources:\n  F:\n    Type: AWS::Serverless::Function\n    Properties: {Policies: [{Statement: [{Effect: Allow, Action: 'lambda:InvokeFunction', Resource: !GetAtt F.Arn}]}]}\n",
			[]string{"2: F: circular dependency between resources: F → FRole → F"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseTexts(map[string]string{"template.yaml": test.template})
			compareProblems(t, err, test.want)
		})
	}
}

// compareProblems wants each problem in its place, by a part of it; places are given without
// the file's name, too.
func compareProblems(t *testing.T, err error, want []string) {
	t.Helper()
	var got Problems
	if err != nil && !errors.As(err, &got) {
		t.Fatal(err)
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(want):
			t.Errorf("complains needlessly: %v", got[i])
		case i >= len(got):
			t.Errorf("does not complain: %s", want[i])
		case !strings.Contains(got[i].String(), want[i]):
			t.Errorf("complains\n %v, not\n %s", got[i], want[i])
		}
	}
}

// TestNesting goes wrong between templates.
func TestNesting(t *testing.T) {
	t.Parallel()
	stack := func(body string) string { return one("AWS::CloudFormation::Stack", "    Properties:\n"+body) }
	inner := "Parameters: {A: {Type: String}, B: {Type: String, Default: x}}\nResources: {Q: {Type: 'AWS::SQS::Queue'}}\nOutputs: {Q: {Value: !GetAtt Q.Arn}}\n"
	for name, test := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"sound":                {map[string]string{"template.yaml": stack("      TemplateURL: a/b.yaml\n      Parameters: {A: x}\n") + "Outputs: {O: {Value: !GetAtt It.Outputs.Q}}", "a/b.yaml": inner}, nil},
		"no such file":         {map[string]string{"template.yaml": stack("      TemplateURL: b.yaml\n")}, []string{"b.yaml: file does not exist", "template.yaml:5: It: TemplateURL: b.yaml is no template"}},
		"outside":              {map[string]string{"template.yaml": stack("      TemplateURL: ../b.yaml\n")}, []string{"5: It: TemplateURL: \"../b.yaml\" is outside"}},
		"from the root":        {map[string]string{"template.yaml": stack("      TemplateURL: /b.yaml\n")}, []string{"5: It: TemplateURL: \"/b.yaml\" is outside"}},
		"elsewhere":            {map[string]string{"template.yaml": stack("      TemplateURL: https://example.com/b.yaml\n")}, []string{"5: It: TemplateURL: expected the path"}},
		"computed":             {map[string]string{"template.yaml": stack("      TemplateURL: !Sub x\n")}, []string{"5: It: TemplateURL: expected the path"}},
		"itself":               {map[string]string{"template.yaml": stack("      TemplateURL: template.yaml\n")}, []string{"5: It: TemplateURL: template.yaml is nested in itself"}},
		"each other":           {map[string]string{"template.yaml": stack("      TemplateURL: b.yaml\n"), "b.yaml": stack("      TemplateURL: template.yaml\n")}, []string{"b.yaml:5: It.It: TemplateURL: template.yaml is nested in itself"}},
		"parameters":           {map[string]string{"template.yaml": stack("      TemplateURL: b.yaml\n      Parameters: {C: x}\n"), "b.yaml": inner}, []string{"2: It: Parameters.A: is missing: b.yaml has no default", "6: It: Parameters.C: b.yaml has no such parameter"}},
		"outputs":              {map[string]string{"template.yaml": stack("      TemplateURL: b.yaml\n      Parameters: {A: x}\n") + "Outputs: {O: {Value: !GetAtt It.Outputs.P}, P: {Value: !GetAtt It.Arn}}", "b.yaml": inner}, []string{`7: Outputs.O.Value: Fn::GetAtt: b.yaml has no output "P"`, "7: Outputs.P.Value: Fn::GetAtt: no attribute"}},
		"problems inside":      {map[string]string{"template.yaml": stack("      TemplateURL: b.yaml\n"), "b.yaml": one("AWS::SQS::Queue", "    Properties: {Odd: 1}\n")}, []string{"b.yaml:4: It.It: Odd: not understood here"}},
		"too many, one by one": {manyNested(), []string{"c.yaml: more than 50 templates"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseTexts(test.files)
			if name == "too many, one by one" {
				if err == nil || !strings.Contains(err.Error(), test.want[0]) {
					t.Error(err)
				}
				return
			}
			compareProblems(t, err, test.want)
		})
	}
}

// manyNested nests 10 templates that nest 10.
func manyNested() map[string]string {
	of := func(file string) string {
		text := "Resources:\n"
		for i := range 10 {
			text += fmt.Sprintf("  N%d: {Type: 'AWS::CloudFormation::Stack', Properties: {TemplateURL: %s}}\n", i, file)
		}
		return text
	}
	return map[string]string{"template.yaml": of("b.yaml"), "b.yaml": of("c.yaml"), "c.yaml": "Resources: {Q: {Type: 'AWS::SQS::Queue'}}\n"}
}

// TestCatalogue looks for mistakes in shapes.yaml: each type is built, and what is not put
// aside is read by somebody. The golden template cannot tell of a property it does not have.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	c, err := readCatalogue(shapesText)
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("builder.go")
	if err != nil {
		t.Fatal(err)
	}
	says := func(word string) bool { return strings.Contains(string(code), `"`+word+`"`) }
	var walk func(at string, s *shape)
	walk = func(at string, s *shape) {
		for _, name := range slices.Sorted(maps.Keys(s.fields)) {
			f := s.fields[name]
			if f.aside || f.shape == c.of["document"] { // policyOf reads documents
				continue
			}
			if !says(name) {
				t.Errorf("%s.%s: nobody reads it", at, name)
			}
			walk(at+"."+name, f.shape)
		}
		for _, name := range slices.Sorted(maps.Keys(s.choices)) {
			walk(at+"."+name, s.choices[name])
		}
		if s.of != nil {
			walk(at, s.of)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.types)) {
		of := c.types[name]
		if name == nestedStack || name == nestedApplication {
			continue
		}
		if name != serverlessFunction && !says(name) {
			t.Errorf("%s is not built", name)
		}
		if of.name != "" {
			delete(of.properties.fields, of.name) // read by name()
		}
		walk(name, of.properties)
		for _, pattern := range append(slices.Collect(maps.Values(of.attributes)), of.ref) {
			rest := strings.NewReplacer("{region}", "", "{account}", "", "{stack}", "", "{name}", "", "{id}", "", "{six}", "", "{uuid}", "").Replace(pattern)
			if pattern == "" || strings.ContainsAny(rest, "{}") {
				t.Errorf("%s: the pattern %q", name, pattern)
			}
		}
	}
	for _, wrong := range []string{"types: {A: {properties: {a: nobody}}}", "types: {A: {properties: {a: [text, text]}}}", "shapes: {document: document}", "types: x", "shapes: {document: {a: text}}"} {
		if _, err := readCatalogue([]byte(wrong)); err == nil {
			t.Errorf("%s is taken for a catalogue", wrong)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"testdata/service/template.yaml", "testdata/service/infra/data.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add(one("AWS::SQS::Queue", "    Properties: {QueueName: !Sub ['${a}', {a: !Join ['', [!Ref It]]}]}\n"))
	f.Add("Conditions: {A: !Or [!Equals [a, b], !Condition A]}\n" + one("AWS::SQS::Queue", "    Condition: A\n"))
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := parseTexts(map[string]string{"template.yaml": text, "infra/data.yaml": text})
		if (parsed == nil) == (err == nil) {
			t.Fatalf("%v, %v", parsed, err)
		}
		var problems Problems
		if err != nil && !errors.As(err, &problems) {
			t.Fatal(err)
		}
		if len(problems) > maxProblems+1 {
			t.Errorf("%d problems", len(problems))
		}
		for _, p := range problems {
			if p.Message == "" || p.File == "" || p.Line < 0 || !utf8.ValidString(p.String()) {
				t.Errorf("%+v", p)
			}
		}
		if parsed == nil {
			return
		}
		s := site()
		s.Parameters = nil
		stack, err := parsed.Resolve(s)
		if (stack == nil) == (err == nil) {
			t.Fatalf("%v, %v", stack, err)
		}
	})
}
