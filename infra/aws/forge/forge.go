// Package forge opens what acts on Bitbucket: the client with the installation's OAuth consumer, whose secret is in Secrets
// Manager, and the keeper of connections' tokens.
package forge

import (
	"errors"
	"fmt"
	"time"

	"runnerhub/infra/aws"
	"runnerhub/infra/aws/keys"
	"runnerhub/shared/bitbucket"
	"runnerhub/shared/credential/secretsmanager"
	"runnerhub/shared/grant"
	"runnerhub/shared/random"
	"runnerhub/shared/store"
)

// Bitbucket opens the client. The consumer's secret is read when it is first needed.
func Bitbucket(e aws.Environment) (*bitbucket.Bitbucket, error) {
	api, err := aws.APIURL(e)
	web, err2 := aws.WebURL(e)
	public, err3 := aws.PublicURL(e)
	id, err4 := e.Need("BITBUCKET_CLIENT_ID", "deploy again with the parameter BitbucketClientId")
	key, err5 := e.Need("BITBUCKET_CLIENT_SECRET", "it is the ARN of the secret in Secrets Manager; "+aws.Deployed)
	if err := errors.Join(err, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	secret, err := secretsmanager.New(secretsmanager.Deps{Config: e.Config, ID: key, Now: time.Now})
	if err != nil {
		return nil, fmt.Errorf("BITBUCKET_CLIENT_SECRET is %q: %w", key, err)
	}
	b, err := bitbucket.New(bitbucket.Deps{
		APIURL: api, WebURL: web, ClientID: id, ClientSecret: secret, CallbackURL: public + "/auth/callback",
		HTTP: bitbucket.NewHTTPClient(), Now: time.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("BITBUCKET_API_URL is %q, BITBUCKET_WEB_URL %q: %w", api, web, err)
	}
	return b, nil
}

// Grants opens the keeper of connections' tokens.
func Grants(e aws.Environment, stored *store.Store, b *bitbucket.Bitbucket) (*grant.Keeper, error) {
	tokens, err := keys.Tokens(e)
	if err != nil {
		return nil, err
	}
	return grant.New(grant.Deps{Store: stored, Vault: tokens, Bitbucket: b, Now: time.Now, NewID: random.ID, Log: e.Log})
}
