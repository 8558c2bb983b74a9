// Package web opens the HTTP API, behind the events of API Gateway.
package web

import (
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
	"runnerhub/shared/httpapi"
	"runnerhub/shared/lambdaio"
	"runnerhub/shared/random"
)

// Serve answers what takes the events. Callers may be nil where no group has to know who asks.
func Serve(e aws.Environment, callers httpapi.Callers, groups ...httpapi.Group) (lambda.Handler, error) {
	public, err := aws.PublicURL(e)
	if err != nil {
		return nil, err
	}
	api, err := httpapi.New(httpapi.Deps{
		Groups: groups, Callers: callers, PublicURL: public, Now: time.Now, NewRef: random.Ref, Log: e.Log,
	})
	if err != nil {
		return nil, err
	}
	return lambdaio.HTTP(api), nil
}
