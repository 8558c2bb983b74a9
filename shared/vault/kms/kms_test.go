package kms

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"runnerhub/infra/ministack"
	"runnerhub/shared/amazon/amazontest"
	"runnerhub/shared/fault"
	"runnerhub/shared/vault"
	"runnerhub/shared/vault/vaulttest"
)

// cut is a client whose service is out of reach once it is gone.
type cut struct {
	next aws.HTTPClient
	gone atomic.Bool
}

func (c *cut) Do(request *http.Request) (*http.Response, error) {
	if c.gone.Load() {
		return nil, errors.New("the service is out of reach")
	}
	return c.next.Do(request)
}

func open(t *testing.T, config aws.Config, key string) *Vault {
	t.Helper()
	v, err := New(Deps{Config: config, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestContract(t *testing.T) {
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
	vaulttest.Run(t, func(t *testing.T) vaulttest.Key {
		config := ministack.Config(server.URL())
		client := &cut{next: config.HTTPClient}
		config.HTTPClient = client
		made, err := kms.NewFromConfig(config).CreateKey(t.Context(), &kms.CreateKeyInput{})
		if err != nil {
			t.Fatal(err)
		}
		return vaulttest.Key{
			Open: func(t *testing.T) vault.Vault { return open(t, config, *made.KeyMetadata.Arn) },
			Cut:  func() { client.gone.Store(true) },
		}
	})
}

func refusal(code string) amazontest.Answer {
	return amazontest.Answer{Status: 400, Body: `{"__type":"` + code + `","message":"no"}`}
}

// dataKey is the answer to GenerateDataKey, and to Decrypt.
func dataKey(bytes int) amazontest.Answer {
	key := base64.StdEncoding.EncodeToString(make([]byte, bytes))
	return amazontest.Answer{Body: fmt.Sprintf(`{"Plaintext":%q,"CiphertextBlob":%q}`, key, base64.StdEncoding.EncodeToString([]byte("wrapped")))}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	row := vault.Binding{Owner: "o", Purpose: "p"}
	for name, test := range map[string]struct {
		answers    []amazontest.Answer
		seal, open fault.Kind
		sealed     bool // after all
	}{
		"changed":               {[]amazontest.Answer{refusal("InvalidCiphertextException")}, fault.Internal, fault.Invalid, false},
		"another key":           {[]amazontest.Answer{refusal("IncorrectKeyException")}, fault.Internal, fault.Invalid, false},
		"no permission":         {[]amazontest.Answer{refusal("AccessDeniedException")}, fault.Internal, fault.Internal, false},
		"no key":                {[]amazontest.Answer{refusal("NotFoundException")}, fault.Internal, fault.Internal, false},
		"disabled":              {[]amazontest.Answer{refusal("DisabledException")}, fault.Unavailable, fault.Unavailable, false},
		"about to be deleted":   {[]amazontest.Answer{refusal("KMSInvalidStateException")}, fault.Unavailable, fault.Unavailable, false},
		"throttled":             {[]amazontest.Answer{refusal("ThrottlingException")}, fault.Unavailable, fault.Unavailable, false},
		"no answer":             {[]amazontest.Answer{{Drop: true}}, fault.Unavailable, fault.Unavailable, false},
		"a short key":           {[]amazontest.Answer{dataKey(16)}, fault.Internal, fault.Invalid, false},
		"no answer, then a key": {[]amazontest.Answer{{Drop: true}, dataKey(32)}, 0, fault.Invalid, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := amazontest.Serve(t, test.answers...)
			v := open(t, service.Config(), "key")
			sealer, err := v.Sealer(t.Context(), row)
			if test.sealed != (err == nil) || !test.sealed && !fault.Is(err, test.seal) {
				t.Errorf("Sealer: %v", err)
			}
			if (sealer != nil) != test.sealed {
				t.Errorf("Sealer answers %v", sealer)
			}
			// An envelope that another key made: whatever KMS says, it does not open.
			other, err := vault.NewSealer(row, []byte(strings.Repeat("k", vault.KeyBytes)), []byte("wrapped"))
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := other.Seal([]byte("value"))
			if err != nil {
				t.Fatal(err)
			}
			if plain, err := v.Open(t.Context(), row, sealed); !fault.Is(err, test.open) || plain != nil {
				t.Errorf("Open: %q, %v", plain, err)
			}
			for _, r := range service.Requests() {
				if !strings.Contains(r.Body, `"owner":"o"`) || !strings.Contains(r.Body, `"purpose":"p"`) || !strings.Contains(r.Body, `"KeyId":"key"`) {
					t.Errorf("%s is not bound: %s", r.Target, r.Body)
				}
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	whole := Deps{Config: ministack.Config("http://127.0.0.1:1"), Key: "k"}
	for name, take := range map[string]func(*Deps){
		"credentials": func(d *Deps) { d.Config.Credentials = nil },
		"region":      func(d *Deps) { d.Config.Region = "" },
		"key":         func(d *Deps) { d.Key = "" },
	} {
		d := whole
		take(&d)
		if _, err := New(d); err == nil {
			t.Errorf("without %s it is made", name)
		}
	}
}
