package secretsmanager

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"runnerhub/infra/ministack"
	"runnerhub/shared/amazon/amazontest"
	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

// clock is one that a test moves.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func open(t *testing.T, config aws.Config, id string) (*Credential, *clock) {
	t.Helper()
	c := &clock{time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	credential, err := New(Deps{Config: config, ID: id, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	return credential, c
}

func want(t *testing.T, c *Credential, refused, want string) {
	t.Helper()
	if got, err := c.Get(t.Context(), secret.New(refused)); err != nil || got.Reveal() != want {
		t.Errorf("the secret is %q, %v; want %q", got.Reveal(), err, want)
	}
}

func TestOnMiniStack(t *testing.T) {
	t.Parallel()
	server, err := ministack.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	config := ministack.Config(server.URL())
	client, name := secretsmanager.NewFromConfig(config), rand.Text()
	made, err := client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: &name, SecretString: aws.String("first\n")})
	if err != nil {
		t.Fatal(err)
	}
	c, clock := open(t, config, *made.ARN)
	want(t, c, "", "first")
	if _, err := client.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: &name, SecretString: aws.String("second")}); err != nil {
		t.Fatal(err)
	}
	want(t, c, "", "first")
	clock.now = clock.now.Add(keep)
	want(t, c, "", "second")
	absent, _ := open(t, config, "absent")
	if _, err := absent.Get(t.Context(), secret.Text{}); !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "no secret absent") {
		t.Errorf("a secret that is not there: %v", err)
	}
}

func value(text string) amazontest.Answer {
	return amazontest.Answer{Body: fmt.Sprintf(`{"SecretString":%q}`, text)}
}

func refusal(status int, code string) amazontest.Answer {
	return amazontest.Answer{Status: status, Body: `{"__type":"` + code + `","message":"no"}`}
}

// It is read when it is needed, and no more often than that.
func TestReads(t *testing.T) {
	t.Parallel()
	service := amazontest.Serve(t, value("one"), value("two"), value("two"), value("three"))
	c, clock := open(t, service.Config(), "consumer")
	for _, step := range []struct {
		later         time.Duration
		refused, want string
		reads         int
	}{
		{0, "", "one", 1},
		{keep - time.Second, "", "one", 1},
		{0, "another", "one", 1}, // of before; it was read since
		{0, "one", "two", 2},
		{0, "one", "two", 2}, // another goroutine, slower
		{0, "two", "two", 3}, // it is the right one
		{keep - time.Second, "", "two", 3},
		{time.Second, "", "three", 4},
		{-time.Hour, "", "three", 5}, // a clock put back must not keep it for ever
	} {
		clock.now = clock.now.Add(step.later)
		want(t, c, step.refused, step.want)
		if n := len(service.Requests()); n != step.reads {
			t.Fatalf("%+v: read %d times", step, n)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(text, "three") {
		t.Errorf("printed it is %s", text)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers []amazontest.Answer
		calls   int
		kind    fault.Kind
		says    string
	}{
		"not there":            {[]amazontest.Answer{refusal(400, "ResourceNotFoundException")}, 1, fault.Internal, "no secret consumer"},
		"to be deleted":        {[]amazontest.Answer{refusal(400, "InvalidRequestException")}, 1, fault.Internal, ""},
		"no permission":        {[]amazontest.Answer{refusal(400, "AccessDeniedException")}, 1, fault.Internal, ""},
		"its key is disabled":  {[]amazontest.Answer{refusal(400, "DecryptionFailure")}, 1, fault.Internal, ""},
		"throttled":            {[]amazontest.Answer{refusal(400, "ThrottlingException")}, 3, fault.Unavailable, ""},
		"trouble of its own":   {[]amazontest.Answer{refusal(500, "InternalServiceError")}, 3, fault.Unavailable, ""},
		"no answer":            {[]amazontest.Answer{{Drop: true}}, 3, fault.Unavailable, ""},
		"bytes":                {[]amazontest.Answer{{Body: `{"SecretBinary":"aGlkZGVu"}`}}, 1, fault.Internal, "holds no text"},
		"empty":                {[]amazontest.Answer{value(" \n")}, 1, fault.Internal, "holds no text"},
		"an answer cut short":  {[]amazontest.Answer{{Body: `{"SecretString":"hidden`}}, 3, fault.Unavailable, ""},
		"an answer of nothing": {[]amazontest.Answer{{Body: `hidden`}}, 3, fault.Unavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := amazontest.Serve(t, test.answers...)
			c, _ := open(t, service.Config(), "consumer")
			_, err := c.Get(t.Context(), secret.Text{})
			if n := len(service.Requests()); !fault.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) || n != test.calls {
				t.Fatalf("%v after %d calls", err, n)
			}
			for ; err != nil; err = errors.Unwrap(err) {
				if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "hidden") {
					t.Errorf("the error shows the secret: %s", text)
				}
			}
		})
	}
	service := amazontest.Serve(t, refusal(400, "ThrottlingException"), amazontest.Answer{Drop: true}, value("one"))
	c, _ := open(t, service.Config(), "consumer")
	want(t, c, "", "one")
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(*Deps){
		"credentials": func(d *Deps) { d.Config.Credentials = nil },
		"region":      func(d *Deps) { d.Config.Region = "" },
		"a secret":    func(d *Deps) { d.ID = "" },
		"a clock":     func(d *Deps) { d.Now = nil },
	} {
		d := Deps{Config: ministack.Config("http://127.0.0.1:1"), ID: "consumer", Now: time.Now}
		if _, err := New(d); err != nil {
			t.Fatal(err)
		}
		take(&d)
		if _, err := New(d); err == nil {
			t.Errorf("without %s it is made", name)
		}
	}
}
