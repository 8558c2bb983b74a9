// Package secretsmanager is a credential kept in AWS Secrets Manager, as plain text. It
// is read when it is first needed, and anew after five minutes or when what it was is refused: so
// a secret that was replaced is picked up by processes that run, and most uses make no call.
//
// Who reads needs secretsmanager:GetSecretValue on the secret, and kms:Decrypt where it is
// sealed with a key of the account's own.
package secretsmanager

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"runnerhub/shared/amazon"
	"runnerhub/shared/credential"
	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

const (
	// keep is how long what was read is used.
	keep = 5 * time.Minute
	// One call, and how often: a use that waits for it has a deadline of its own, of ten seconds.
	attempts = 3
	deadline = 2 * time.Second
)

// Deps is what New needs.
type Deps struct {
	Config aws.Config
	ID     string // of the secret: its ARN or its name
	Now    func() time.Time
}

// Credential implements credential.Credential. It is safe for concurrent use.
type Credential struct {
	deps   Deps
	client *secretsmanager.Client

	mu     sync.Mutex
	kept   secret.Text
	readAt time.Time
}

var _ credential.Credential = (*Credential)(nil)

// New makes the driver; it calls nobody.
func New(deps Deps) (*Credential, error) {
	if deps.Config.Credentials == nil || deps.Config.Region == "" || deps.ID == "" || deps.Now == nil {
		return nil, errors.New("credential/secretsmanager: no credentials, region, secret or clock")
	}
	client := secretsmanager.NewFromConfig(deps.Config, func(o *secretsmanager.Options) { o.Retryer = aws.NopRetryer{} })
	return &Credential{deps: deps, client: client}, nil
}

// Get implements credential.Credential. Several who ask at once may each read: that happens at a
// start, and does no harm.
func (c *Credential) Get(ctx context.Context, refused secret.Text) (secret.Text, error) {
	now := c.deps.Now()
	c.mu.Lock()
	kept, age := c.kept, now.Sub(c.readAt)
	c.mu.Unlock()
	if !kept.Empty() && age >= 0 && age < keep && !kept.Equal(refused) {
		return kept, nil
	}
	read, err := c.read(ctx)
	if err != nil {
		return secret.Text{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept, c.readAt = read, now
	return read, nil
}

func (c *Credential) read(ctx context.Context) (secret.Text, error) {
	var out *secretsmanager.GetSecretValueOutput
	err := amazon.Calls{Attempts: attempts, Each: deadline}.Do(ctx, func(ctx context.Context) (err error) {
		out, err = c.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &c.deps.ID})
		return err
	})
	if amazon.Code(err) == "ResourceNotFoundException" {
		return secret.Text{}, fault.Wrap(fault.Internal, err, "there is no secret %s, or it has no value: deploy the template again, or put the secret of the OAuth consumer there", c.deps.ID)
	}
	if err != nil {
		kindOf := func(string) fault.Kind { return fault.Internal }
		return secret.Text{}, amazon.Fault(err, false, kindOf, "the secret of the installation could not be read")
	}
	text := strings.TrimSpace(aws.ToString(out.SecretString)) // a newline at the end comes with files
	if text == "" {
		return secret.Text{}, fault.New(fault.Internal, "the secret %s holds no text: put the secret of the OAuth consumer there", c.deps.ID)
	}
	return secret.New(text), nil
}
