// Package aws is the environment of a Lambda function, for the mains in functions/, which open
// drivers and use cases from it. Beside it lie the nested stacks of template.yaml, which sets
// that environment; the two agree on names, which is tested.
//
// Each part is a function of its own that reads the variables it needs, so that a main opens
// what it uses, needs no other variable, and contains no other code. What every function uses is here; what only some
// do stands in packages below, one for each service of AWS, because the SDK of a service takes a millisecond or two of
// every start of a program that imports it. Nothing here decides anything, and nothing
// calls anybody: what can wait for the first event does.
package aws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"runnerhub/shared/setting"
)

// Environment is what a function is started with.
type Environment struct {
	Log *slog.Logger

	// Config is how drivers reach AWS.
	Config sdk.Config

	variables setting.Environment
}

// Run is the main of a function: start wires it and answers what takes its events. An error is one line in the log, and
// the end of the process, which Lambda starts again for the next event.
func Run(start func(Environment) (lambda.Handler, error)) {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	e, err := Read(os.Environ(), log)
	var handler lambda.Handler
	if err == nil {
		handler, err = start(e)
	}
	if err != nil {
		log.Error("the function cannot start", "error", err)
		os.Exit(1)
	}
	lambda.Start(handler)
}

// Read reads pairs as os.Environ answers them. Lambda sets the region and the credentials of the function's role; AWS_ENDPOINT_URL
// is for tests.
func Read(environ []string, log *slog.Logger) (Environment, error) {
	e := Environment{Log: log, variables: setting.Read(environ)}
	region, err := e.Need("AWS_REGION", "Lambda sets it")
	id, err2 := e.Need("AWS_ACCESS_KEY_ID", "Lambda sets it")
	if err := errors.Join(err, err2); err != nil {
		return Environment{}, err
	}
	if e.variables["AWS_SECRET_ACCESS_KEY"] == "" {
		return Environment{}, errors.New("AWS_SECRET_ACCESS_KEY is not set: Lambda sets it")
	}
	e.Config = sdk.Config{
		Region: region,
		// They last as long as the process: Lambda starts another one before they end.
		Credentials: sdk.CredentialsProviderFunc(func(context.Context) (sdk.Credentials, error) {
			return sdk.Credentials{
				AccessKeyID: id, SecretAccessKey: e.variables["AWS_SECRET_ACCESS_KEY"], SessionToken: e.variables["AWS_SESSION_TOKEN"],
				Source: "Lambda",
			}, nil
		}),
		HTTPClient: newHTTPClient(),
	}
	if e.variables["AWS_ENDPOINT_URL"] != "" {
		endpoint, err := e.URL("AWS_ENDPOINT_URL")
		if err != nil {
			return Environment{}, err
		}
		e.Config.BaseEndpoint = &endpoint
	}
	return e, nil
}

// newHTTPClient makes the client of all drivers. Each call has its own deadline; what is bounded here is what a call
// should not wait for at all. A process that Lambda froze finds its kept connections closed when it goes on,
// which is why they are not kept for long.
func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:   2 * time.Second,
			IdleConnTimeout:       30 * time.Second,
			MaxIdleConns:          64,
			MaxIdleConnsPerHost:   16,
			ExpectContinueTimeout: time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Need answers a variable that has to be set; remedy says what to do otherwise.
func (e Environment) Need(name, remedy string) (string, error) {
	v := e.variables[name]
	if v == "" {
		return "", fmt.Errorf("%s is not set: %s", name, remedy)
	}
	return v, nil
}

// Deployed is the remedy for what the template sets.
const Deployed = "template.yaml sets it for the functions that need it; deploy it again"

// URL answers a variable that is an address.
func (e Environment) URL(name string) (string, error) {
	if _, err := e.Need(name, Deployed); err != nil {
		return "", err
	}
	return setting.URL(name, e.variables[name])
}

// ConfigOf is Config for a service that has an endpoint of its own, in a variable that is for tests.
func (e Environment) ConfigOf(name string) (sdk.Config, error) {
	config := e.Config
	if e.variables[name] == "" {
		return config, nil
	}
	endpoint, err := e.URL(name)
	config.BaseEndpoint = &endpoint
	return config, err
}
