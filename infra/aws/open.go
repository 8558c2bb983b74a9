package aws

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/buildlog/cloudwatch"
	"runnerhub/shared/credential/secretsmanager"
	"runnerhub/shared/grant"
	"runnerhub/shared/httpapi"
	"runnerhub/shared/lambdaio"
	"runnerhub/shared/pipeline"
	"runnerhub/shared/queue/sqs"
	"runnerhub/shared/random"
	"runnerhub/shared/runner/codebuild"
	"runnerhub/shared/setting"
	"runnerhub/shared/store"
	"runnerhub/shared/table/dynamo"
	"runnerhub/shared/timekeeper"
	"runnerhub/shared/timetable/scheduler"
	"runnerhub/shared/vault/kms"
)

// RunnerName is under which name builds wait for CodeBuild.
const RunnerName = "codebuild"

// Offer is what builds on CodeBuild are given; what else a pipeline file asks for is refused. An image of the file's choice
// is: its shell starts the agent and its git gets the connection's token, which is good for more than one repository.
func Offer() pipeline.Offer {
	return pipeline.Offer{
		Platforms: []string{"linux"}, Features: []pipeline.Feature{pipeline.ContinueOnError, pipeline.Groups, pipeline.StepTimeouts},
	}
}

// PublicURL is where browsers, Bitbucket and builds reach the API.
func PublicURL(e Environment) (string, error) { return e.url("PUBLIC_URL") }

// WebURL is where Bitbucket's pages are.
func WebURL(e Environment) (string, error) { return e.url("BITBUCKET_WEB_URL") }

// Allowed is the Bitbucket workspaces whose members may sign in; none: see signin.Deps.
func Allowed(e Environment) []string {
	return setting.List(e.variables["ALLOWED_BITBUCKET_WORKSPACES"])
}

// Limits is how many builds run at a time.
func Limits(e Environment) (store.Limits, error) {
	text, err := e.need("RUNNERHUB_CONCURRENCY", deployed)
	if err != nil {
		return store.Limits{}, err
	}
	n, err := setting.Concurrency("RUNNERHUB_CONCURRENCY", text)
	return store.Limits{Runner: n}, err
}

// Store opens the table with all that is persisted.
func Store(e Environment) (*store.Store, error) {
	name, err := e.need("RUNNERHUB_TABLE", deployed)
	if err != nil {
		return nil, err
	}
	table, err := dynamo.New(dynamo.Deps{Config: e.sdk, Table: name, NewToken: random.ID})
	if err != nil {
		return nil, fmt.Errorf("RUNNERHUB_TABLE is %q: %w", name, err)
	}
	return store.New(store.Deps{Table: table, Now: time.Now, NewID: random.ID})
}

// Deliveries opens the queue of that name, to send, or to be handed to by an event source mapping.
func Deliveries(e Environment) (*sqs.Queue, error) { return e.queue("RUNNERHUB_DELIVERIES_QUEUE") }

// Reports opens the queue of that name, as Deliveries does.
func Reports(e Environment) (*sqs.Queue, error) { return e.queue("RUNNERHUB_REPORTS_QUEUE") }

// Queues opens both.
func Queues(e Environment) (deliveries, reports *sqs.Queue, err error) {
	if deliveries, err = Deliveries(e); err != nil {
		return nil, nil, err
	}
	reports, err = Reports(e)
	return deliveries, reports, err
}

func (e Environment) queue(name string) (*sqs.Queue, error) {
	address, err := e.url(name)
	if err != nil {
		return nil, err
	}
	q, err := sqs.New(sqs.Deps{Config: e.sdk, URL: address, Now: time.Now})
	if err != nil {
		return nil, fmt.Errorf("%s is %q: %w", name, address, err)
	}
	return q, nil
}

// Hooks opens the vault of hook secrets, which has another key than that of tokens.
func Hooks(e Environment) (*kms.Vault, error) { return e.vault("RUNNERHUB_HOOKS_KEY") }

func (e Environment) vault(name string) (*kms.Vault, error) {
	key, err := e.need(name, deployed)
	if err != nil {
		return nil, err
	}
	v, err := kms.New(kms.Deps{Config: e.sdk, Key: key})
	if err != nil {
		return nil, fmt.Errorf("%s is %q: %w", name, key, err)
	}
	return v, nil
}

// Bitbucket opens the client, with the installation's OAuth consumer. Its secret is read when it is first needed.
func Bitbucket(e Environment) (*bitbucket.Bitbucket, error) {
	api, err := e.url("BITBUCKET_API_URL")
	web, err2 := WebURL(e)
	public, err3 := PublicURL(e)
	id, err4 := e.need("BITBUCKET_CLIENT_ID", "deploy again with the parameter BitbucketClientId")
	key, err5 := e.need("BITBUCKET_CLIENT_SECRET", "it is the ARN of the secret in Secrets Manager; "+deployed)
	if err := errors.Join(err, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	secret, err := secretsmanager.New(secretsmanager.Deps{Config: e.sdk, ID: key, Now: time.Now})
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
func Grants(e Environment, stored *store.Store, b *bitbucket.Bitbucket) (*grant.Keeper, error) {
	tokens, err := e.vault("RUNNERHUB_TOKENS_KEY")
	if err != nil {
		return nil, err
	}
	return grant.New(grant.Deps{Store: stored, Vault: tokens, Bitbucket: b, Now: time.Now, NewID: random.ID, Log: e.Log})
}

// Builds opens CodeBuild to look at builds and to stop them.
func Builds(e Environment) (*codebuild.Runner, error) {
	return e.runner("")
}

// Starter opens CodeBuild to start builds.
func Starter(e Environment) (*codebuild.Runner, error) {
	group, err := e.need("RUNNERHUB_LOG_GROUP", deployed)
	if err != nil {
		return nil, err
	}
	return e.runner(group)
}

func (e Environment) runner(group string) (*codebuild.Runner, error) {
	project, err := e.need("RUNNERHUB_BUILD_PROJECT", deployed)
	if err != nil {
		return nil, err
	}
	config := e.sdk
	if e.variables["AWS_ENDPOINT_URL_CODEBUILD"] != "" {
		endpoint, err := e.url("AWS_ENDPOINT_URL_CODEBUILD")
		if err != nil {
			return nil, err
		}
		config.BaseEndpoint = &endpoint
	}
	r, err := codebuild.New(codebuild.Deps{Config: config, Project: project, LogGroup: group})
	if err != nil {
		return nil, fmt.Errorf("RUNNERHUB_BUILD_PROJECT is %q: %w", project, err)
	}
	return r, nil
}

// Timekeeper opens EventBridge Scheduler, as who keeps it in line with the stored schedules.
func Timekeeper(e Environment, stored *store.Store) (*timekeeper.Keeper, error) {
	group, err := e.need("RUNNERHUB_SCHEDULE_GROUP", deployed)
	role, err2 := e.need("RUNNERHUB_SCHEDULE_ROLE", deployed)
	queue, err3 := e.need("RUNNERHUB_DELIVERIES_QUEUE_ARN", deployed)
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, err
	}
	timetable, err := scheduler.New(scheduler.Deps{Config: e.sdk, Group: group, Queue: queue, Role: role, NewID: random.ID})
	if err != nil {
		return nil, fmt.Errorf("RUNNERHUB_SCHEDULE_GROUP is %q, RUNNERHUB_SCHEDULE_ROLE %q, RUNNERHUB_DELIVERIES_QUEUE_ARN %q: %w", group, role, queue, err)
	}
	return timekeeper.New(timekeeper.Deps{Store: stored, Timetable: timetable, Now: time.Now, NewID: random.ID})
}

// Logs opens the logs of builds.
func Logs(e Environment) (*cloudwatch.Log, error) {
	group, err := e.need("RUNNERHUB_LOG_GROUP", deployed)
	if err != nil {
		return nil, err
	}
	l, err := cloudwatch.New(cloudwatch.Deps{Config: e.sdk, Group: group, Now: time.Now, NewID: random.ID})
	if err != nil {
		return nil, fmt.Errorf("RUNNERHUB_LOG_GROUP is %q: %w", group, err)
	}
	return l, nil
}

// Agents opens the programs of builds, which come with a layer.
func Agents(e Environment) (fs.FS, error) {
	dir, err := e.need("RUNNERHUB_AGENTS", deployed)
	if err != nil {
		return nil, err
	}
	return os.DirFS(dir), nil
}

// Serve answers what takes the events of the HTTP API. Callers may be nil where no group has to know who asks.
func Serve(e Environment, callers httpapi.Callers, groups ...httpapi.Group) (lambda.Handler, error) {
	public, err := PublicURL(e)
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
