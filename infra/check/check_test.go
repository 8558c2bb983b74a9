package check

import (
	"strings"
	"testing"
)

// rule judges a tree and answers what is wrong: where, and what to do about it.
type rule func(*tree) []string

// rules are all there are, by name.
func rules() map[string]rule {
	return map[string]rule{
		"every package has its layer":            everyPackageHasItsLayer,
		"imports go one way":                     importsGoOneWay,
		"suites are for tests":                   suitesAreForTests,
		"one package speaks to a service of AWS": oneImporterOfAWS,
		"no init and no state of packages":       noPackageState,
		"packages are named for what they do":    packageNames,
		"packages say what they are":             packageComments,
		"exported names have comments":           exportedComments,
		"interfaces are small":                   smallInterfaces,
		"no functional options":                  noOptions,
		"tests neither sleep nor skip":           noSleepNoSkip,
		"functions are wiring only":              thinFunctions,
		"functions say their rules":              functionsSayTheirRules,
		"functions have sample events":           functionsHaveSamples,
		"no paths of a machine, no registries":   noForeignAddresses,
		"links lead somewhere":                   linksLeadSomewhere,
		"every decision is listed":               decisionsAreListed,
		"commands in documents exist":            commandsExist,
		"settings and their document agree":      settingsAreDocumented,
		"the architecture knows every package":   packagesAreDescribed,
		"tests run side by side":                 testsAreParallel,
		"template and environments agree":        environmentsAgree,
		"template and programs agree":            functionsAreDeployed,
		"template and routes agree":              routesAgree,
	}
}

func TestTree(t *testing.T) {
	t.Parallel()
	tr := readTree(t)
	for name, judge := range rules() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, wrong := range judge(tr) {
				t.Error(wrong)
			}
		})
	}
}

// TestRulesComplain shows each rule something that breaks it, and something near
// that does not.
func TestRulesComplain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rule  rule
		texts map[string]string
		want  []string // part of each complaint, in order; none: it is sound
	}{
		"a package without a layer": {
			everyPackageHasItsLayer,
			map[string]string{"shared/stuff/a.go": "package stuff", "shared/ci/a.go": "package ci", "other/a.go": "package other"},
			[]string{"other: ", "shared/stuff: "},
		},
		"too deep": {
			everyPackageHasItsLayer,
			map[string]string{"shared/store/deep/a.go": "package deep", "shared/table/x/y/a.go": "package y", "shared/table/dynamo/a.go": "package dynamo"},
			[]string{"shared/store/deep: ", "shared/table/x/y: "},
		},
		"upwards": {
			importsGoOneWay,
			map[string]string{"shared/ci/a.go": "package ci\nimport \"runnerhub/shared/store\"", "shared/store/a.go": "package store\nimport \"runnerhub/shared/ci\""},
			[]string{"shared/ci/a.go:2: "},
		},
		"between use cases": {
			importsGoOneWay,
			map[string]string{"shared/dispatch/a.go": "package dispatch\nimport \"runnerhub/shared/report\"\nimport \"runnerhub/shared/message\""},
			[]string{"shared/dispatch/a.go:2: "},
		},
		"a use case and a driver": {
			importsGoOneWay,
			map[string]string{
				"shared/sweep/a.go":      "package sweep\nimport \"runnerhub/shared/queue/sqlite\"",
				"shared/sweep/a_test.go": "package sweep\nimport \"runnerhub/shared/queue/sqlite\"",
				"infra/standalone/a.go":  "package main\nimport \"runnerhub/shared/queue/sqlite\"",
			},
			[]string{"shared/sweep/a.go:2: "},
		},
		"a driver and a driver": {
			importsGoOneWay,
			map[string]string{"shared/timetable/timers/a.go": "package timers\nimport (\n\"runnerhub/shared/timetable\"\n\"runnerhub/shared/table/sqlite\"\n)"},
			[]string{"shared/timetable/timers/a.go:4: "},
		},
		"a main": {
			importsGoOneWay,
			map[string]string{"shared/bitbucket/a.go": "package bitbucket\nimport \"runnerhub/infra/sandbox\"", "shared/bitbucket/a_test.go": "package bitbucket\nimport \"runnerhub/infra/sandbox\""},
			[]string{"shared/bitbucket/a.go:2: "},
		},
		"testing in the program": {
			suitesAreForTests,
			map[string]string{
				"shared/ci/a.go":                 "package ci\nimport \"testing\"",
				"shared/store/a.go":              "package store\nimport \"runnerhub/shared/table/tabletest\"",
				"shared/table/tabletest/a.go":    "package tabletest\nimport \"testing\"\nimport \"runnerhub/shared/crashtest\"",
				"shared/table/sqlite/my_test.go": "package sqlite\nimport \"testing\"",
			},
			[]string{"shared/ci/a.go:2: ", "shared/store/a.go:2: "},
		},
		"AWS in two places, and in the wrong one": {
			oneImporterOfAWS,
			map[string]string{
				"shared/table/dynamo/a.go": "package dynamo\nimport \"github.com/aws/aws-sdk-go-v2/service/dynamodb\"\nimport \"github.com/aws/aws-sdk-go-v2/service/dynamodb/types\"",
				"shared/queue/sqs/a.go":    "package sqs\nimport \"github.com/aws/aws-sdk-go-v2/service/sqs\"",
				"shared/blob/s3/a.go":      "package s3\nimport \"github.com/aws/aws-sdk-go-v2/service/sqs\"",
				"shared/store/a.go":        "package store\nimport \"github.com/aws/aws-sdk-go-v2/service/kms\"",
			},
			[]string{"shared/queue/sqs/a.go:2: ", "shared/store/a.go:2: "},
		},
		"package state": {
			noPackageState,
			map[string]string{"shared/ci/a.go": `package ci
var count int
var known = map[string]int{}
var ErrA, limit = errors.New("a"), 5
var pattern = regexp.MustCompile("x")
var _ fmt.Stringer = (*T)(nil)
//go:embed x
var text string
const most = 3
func init() {}
func (t T) init() {}
`},
			[]string{"a.go:2: ", "a.go:3: ", "a.go:4: ", "a.go:10: "},
		},
		"names that say nothing": {
			packageNames,
			map[string]string{"shared/util/a.go": "package util", "shared/ci/a.go": "package helpers", "shared/ci/a_test.go": "package ci_test"},
			[]string{"shared/ci/a.go:1: ", "shared/util/a.go:1: "},
		},
		"a package that says nothing": {
			packageComments,
			map[string]string{"shared/ci/a.go": "package ci", "shared/fault/a.go": "// Package fault is.\npackage fault", "shared/fault/b.go": "package fault", "infra/check/a_test.go": "package check"},
			[]string{"shared/ci: "},
		},
		"exported and silent": {
			exportedComments,
			map[string]string{"shared/ci/a.go": `package ci
type A struct{}
func (A) B() {}
func (a *A) String() string { return "" }
func C() {}
const (
	D = 1 // Said.
	E = 2
)
// F and G.
const (
	F = 1
	G = 2
)
type b struct{}
func (b) H() {}
// I is.
type I int
const (
	J I = iota
	K
)
type l int
const (
	M l = iota
	N
)
`},
			[]string{"a.go:2: ", "a.go:3: ", "a.go:5: ", "a.go:8: ", "a.go:25: ", "a.go:26: "},
		},
		"a god interface": {
			smallInterfaces,
			map[string]string{"shared/ci/a.go": "package ci\ntype A interface { a(); b(); c(); d(); e() }\ntype B interface { A; f() }\ntype C interface { ~int | ~string }"},
			[]string{"a.go:3: "},
		},
		"options": {
			noOptions,
			map[string]string{"shared/ci/a.go": "package ci\nfunc WithA() func(*T) { return nil }\nfunc WithB(t T) T { return t }\ntype Option func(*T)\ntype Handler func(int)\nfunc withC() Option { return nil }"},
			[]string{"a.go:2: ", "a.go:4: ", "a.go:6: "},
		},
		"sleeping and skipping": {
			noSleepNoSkip,
			map[string]string{
				"shared/ci/a_test.go": "package ci\nimport (\n\"time\"\n\"testing\"\n)\nfunc TestA(t *testing.T) {\ntime.Sleep(1)\nt.Skip()\nt.Skipf(\"\")\n}",
				"shared/ci/b_test.go": "package ci\nimport (\n\"time\"\n\"testing/synctest\"\n)\nfunc f() { time.Sleep(1) }",
				"shared/ci/c_test.go": "package ci\nfunc f() { for !done() && time.Now().Before(end) {\ntime.Sleep(1)\n}\nfor !done() {\ntime.Sleep(1)\n}\n}",
				"shared/ci/a.go":      "package ci\nfunc f() { rest.Skip(1) }",
			},
			[]string{"a_test.go:7: ", "a_test.go:8: ", "a_test.go:9: ", "c_test.go:6: "},
		},
		"one test after the other": {
			testsAreParallel,
			map[string]string{
				"shared/ci/a_test.go":        "package ci\nfunc TestA(t *testing.T) {}\nfunc TestB(t *testing.T) { t.Parallel() }\nfunc TestC(t *testing.T) { t.Setenv(\"A\", \"\") }\nfunc TestMain(m *testing.M) {}",
				"infra/standalone/a_test.go": "package main\nfunc TestA(t *testing.T) {}",
			},
			[]string{"a_test.go:2: "},
		},
		"a thick function": {
			thinFunctions,
			map[string]string{"functions/webhook/main.go": "package main\n" + strings.Repeat("\n", 80), "functions/auth/main.go": "package main\n", "functions/auth/more.go": "package main\n"},
			[]string{"functions/auth/more.go: ", "functions/webhook/main.go: "},
		},
		"a function that says nothing": {
			functionsSayTheirRules,
			map[string]string{
				"functions/auth/main.go":    "// Command auth is.\n//\n// Trigger: x Timeout: x Retries: none.\n//\n//\tsuccess refusal failure crash\npackage main",
				"functions/webhook/main.go": "// Trigger: x Timeout: x crash, timeout\npackage main",
				"functions/sweep/main.go":   "// Trigger: x Timeout: x Retries: x success refusal failure crash timeout\npackage main",
				"infra/standalone/main.go":  "package main",
			},
			[]string{"auth/main.go: its package comment says nothing of \"timeout\"", "webhook/main.go: its package comment says nothing of \"Retries:\""},
		},
		"a function without a sample": {
			functionsHaveSamples,
			map[string]string{
				"functions/auth/main.go": "package main", "functions/sweep/main.go": "package main", "events/README.md": "",
				"events/sweep/tick.json": "{}", "events/nobody/tick.json": "{}", "events/sweep/a.json": "{", "events/b.json": "{}",
			},
			[]string{"events/b.json: ", "events/nobody/tick.json: ", "events/sweep/a.json: ", "functions/auth/main.go: "},
		},
		"addresses": {
			noForeignAddresses,
			map[string]string{"a.md": "see /home/" + "anna/x\nhttps://pypi" + ".org/simple\n/homepage\nin /opt/checkout/bin", "web/x.json": "registry.np" + "mjs.org"},
			[]string{"a.md:1: ", "a.md:2: ", "a.md:4: ", "web/x.json:1: "},
		},
		"links": {
			linksLeadSomewhere,
			map[string]string{
				"docs/a.md": "# A title, with `code`\n[b](b.md) [c](c.md)\n[top](#a-title-with-code) [x](#x) [out](https://example.com/y)\n[b two](b.md#two) [b three](b.md#three) [up](../shared) `[no](no.md)`",
				"docs/b.md": "## Two\n```\n[no](no.md)\n```\n\n    [no](no.md)\n", "shared/a.txt": "",
			},
			[]string{"docs/a.md:2: ", "docs/a.md:3: ", "docs/a.md:4: "},
		},
		"a decision nobody finds": {
			decisionsAreListed,
			map[string]string{"docs/architecture.md": "[1](decisions/0001-a.md)", "docs/decisions/0001-a.md": "# 1", "docs/decisions/0002-b.md": "# 2", "docs/decisions/3.md": ""},
			[]string{"docs/decisions/0002-b.md: ", "docs/decisions/3.md: ", "docs/decisions/3.md: "},
		},
		"commands": {
			commandsExist,
			map[string]string{"Makefile": "all: run ## x\nrun:\nGO := go\n", "README.md": "`make run` and make do\n\n    make all\n    make fly\n\n`make demo`"},
			[]string{"README.md:4: ", "README.md:6: "},
		},
		"settings": {
			settingsAreDocumented,
			map[string]string{
				"infra/standalone/a.go":      "package main\nvar x = e[\"RUNNERHUB_A\"] + e.Or(\"SANDBOX_B\", \"\") + os.Getenv(\"PATH\") + m[\"lower\"]",
				"infra/standalone/a_test.go": "package main\nvar y = e[\"RUNNERHUB_TEST\"]",
				"docs/operations.md":         "| setting | default |\n|---|---|\n| `RUNNERHUB_A` | x |\n| `RUNNERHUB_C` | |\n| PATH | |\n| `data/key` | `RUNNERHUB_D` |",
			},
			[]string{"docs/operations.md:4: ", "infra/standalone/a.go:2: ", "infra/standalone/a.go:2: "},
		},
		"functions that are not deployed": {
			functionsAreDeployed,
			map[string]string{
				"template.yaml":          "Resources: {AuthFunction: {Type: 'AWS::Serverless::Function'}, AppsFunction: {Type: 'AWS::Serverless::Function'}}",
				"functions/auth/main.go": "package main", "functions/webhook/main.go": "package main", "infra/x/main.go": "package main",
			},
			[]string{"template.yaml: AppsFunction has no program functions/apps/main.go", "functions/webhook/main.go: "},
		},
		"no template": {
			functionsAreDeployed,
			map[string]string{"functions/auth/main.go": "package main"},
			[]string{"template.yaml: file does not exist"},
		},
		"environments": {
			environmentsAgree,
			map[string]string{
				"template.yaml":          "Resources:\n  AuthFunction: {Type: 'AWS::Serverless::Function', Properties: {Environment: {Variables: {RUNNERHUB_TABLE: a, RUNNERHUB_QUEUE: b, RUNNERHUB_OLD: c}}}}",
				"functions/auth/main.go": "package main\nimport (\n\"runnerhub/infra/aws\"\n\"runnerhub/infra/aws/queues\"\n)\nfunc start(e aws.Environment) { aws.Store(e); aws.Read(); queues.All(e) }",
				"infra/aws/queues/a.go":  "package queues\nimport \"runnerhub/infra/aws\"\nfunc All(e aws.Environment) { open(e, \"RUNNERHUB_ALL\") }\nfunc Other() { _ = \"RUNNERHUB_X\" }\nfunc open(e aws.Environment, name string) { aws.Other() }",
				"infra/aws/a.go": `package aws
func Store(e Environment) { e.need("RUNNERHUB_TABLE", "the RUNNERHUB_REMEDY"); open(e) }
func open(e Environment) { e.queue("RUNNERHUB_QUEUE"); e.deep() }
func (e Environment) deep() { _ = e.variables["RUNNERHUB_DEEP"]; open(e) }
func Read() { _ = e.variables["AWS_REGION"] }
func Other() { e.need("RUNNERHUB_OTHER") }
`,
				"infra/aws/a_test.go": "package aws\nfunc Store() { _ = \"RUNNERHUB_TEST\" }",
			},
			[]string{"functions/auth/main.go: reads RUNNERHUB_ALL, ", "functions/auth/main.go: reads RUNNERHUB_DEEP, ", "functions/auth/main.go: reads RUNNERHUB_OTHER, ", "template.yaml: AuthFunction gets RUNNERHUB_OLD, "},
		},
		"routes": {
			routesAgree,
			map[string]string{
				"template.yaml": `Resources:
  A: {Type: 'AWS::ApiGatewayV2::Api', Properties: {ProtocolType: HTTP}}
  AuthFunction: {Type: 'AWS::Serverless::Function'}
  AppsFunction: {Type: 'AWS::Serverless::Function'}
  AuthP: {Type: 'AWS::Lambda::Permission', Properties: {FunctionName: !Ref AuthFunction, Action: lambda:InvokeFunction, Principal: apigateway.amazonaws.com, SourceArn: !Sub 'arn:aws:execute-api:r:1:${A}/*'}}
  AppsP: {Type: 'AWS::Lambda::Permission', Properties: {FunctionName: !Ref AppsFunction, Action: lambda:InvokeFunction, Principal: apigateway.amazonaws.com, SourceArn: !Sub 'arn:aws:execute-api:r:1:${A}/*'}}
  AuthI: {Type: 'AWS::ApiGatewayV2::Integration', Properties: {ApiId: !Ref A, IntegrationType: AWS_PROXY, IntegrationUri: !GetAtt AuthFunction.Arn, PayloadFormatVersion: '2.0'}}
  AppsI: {Type: 'AWS::ApiGatewayV2::Integration', Properties: {ApiId: !Ref A, IntegrationType: AWS_PROXY, IntegrationUri: !GetAtt AppsFunction.Arn, PayloadFormatVersion: '2.0'}}
  R1: {Type: 'AWS::ApiGatewayV2::Route', Properties: {ApiId: !Ref A, RouteKey: 'GET /', Target: !Sub 'integrations/${AuthI}'}}
  R2: {Type: 'AWS::ApiGatewayV2::Route', Properties: {ApiId: !Ref A, RouteKey: 'GET /apps/{app}', Target: !Sub 'integrations/${AuthI}'}}
  R3: {Type: 'AWS::ApiGatewayV2::Route', Properties: {ApiId: !Ref A, RouteKey: 'GET /old', Target: !Sub 'integrations/${AppsI}'}}
`,
				"functions/auth/main.go": "package main\nimport \"runnerhub/shared/httpapi\"\nvar _ = httpapi.Auth(nil)",
				"functions/apps/main.go": "package main\nimport api \"runnerhub/shared/httpapi\"\nvar _ = api.Apps()",
				"shared/httpapi/a.go": `package httpapi
type authGroup struct{}
func Auth(x any) Group { return authGroup{} }
func (authGroup) routes() []route { return []route{
{http.MethodGet, "/{$}"},
{http.MethodPost, "/login"},
} }
type appsGroup struct{}
func Apps() Group { return &appsGroup{} }
func (*appsGroup) routes() []route { return []route{
{http.MethodGet, "/apps/{app}"},
} }
type lostGroup struct{}
func Lost() Group { return lostGroup{} }
func (lostGroup) routes() []route { return []route{
{http.MethodGet, "/lost"},
} }
`,
			},
			[]string{
				"httpapi/a.go:11: template.yaml leads GET /apps/{app} to AuthFunction; functions/apps", "httpapi/a.go:16: no function serves GET /lost", "httpapi/a.go:6: template.yaml leads POST /login nowhere",
				"template.yaml: GET /old leads to AppsFunction",
			},
		},
		"packages the architecture does not know": {
			packagesAreDescribed,
			map[string]string{"shared/ci/a.go": "package ci", "shared/table/sqlite/a.go": "package sqlite", "docs/architecture.md": "| `shared/ci` | |\n| `shared/gone` | |"},
			[]string{"docs/architecture.md:2: ", "shared/table/sqlite: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr, err := newTree("/opt/checkout", test.texts)
			if err != nil {
				t.Fatal(err)
			}
			got := test.rule(tr)
			for i := range max(len(got), len(test.want)) {
				switch {
				case i >= len(test.want):
					t.Errorf("complains needlessly: %s", got[i])
				case i >= len(got):
					t.Errorf("does not complain of %q", test.want[i])
				case !strings.Contains(got[i], test.want[i]):
					t.Errorf("complains of %q instead of %q", got[i], test.want[i])
				}
			}
		})
	}
}
