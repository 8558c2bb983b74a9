package aws

import (
	"fmt"
	"io/fs"
	"os"
	"time"

	"runnerhub/shared/random"
	"runnerhub/shared/setting"
	"runnerhub/shared/store"
	"runnerhub/shared/table/dynamo"
)

// PublicURL is where browsers, Bitbucket and builds reach the API.
func PublicURL(e Environment) (string, error) { return e.URL("PUBLIC_URL") }

// WebURL is where Bitbucket's pages are.
func WebURL(e Environment) (string, error) { return e.URL("BITBUCKET_WEB_URL") }

// Allowed is the Bitbucket workspaces whose members may sign in; none: see signin.Deps.
func Allowed(e Environment) []string {
	return setting.List(e.variables["ALLOWED_BITBUCKET_WORKSPACES"])
}

// Store opens the table with all that is persisted.
func Store(e Environment) (*store.Store, error) {
	name, err := e.Need("RUNNERHUB_TABLE", Deployed)
	if err != nil {
		return nil, err
	}
	table, err := dynamo.New(dynamo.Deps{Config: e.Config, Table: name, NewToken: random.ID})
	if err != nil {
		return nil, fmt.Errorf("RUNNERHUB_TABLE is %q: %w", name, err)
	}
	return store.New(store.Deps{Table: table, Now: time.Now, NewID: random.ID})
}

// Agents opens the programs of builds, which come with a layer.
func Agents(e Environment) (fs.FS, error) {
	dir, err := e.Need("RUNNERHUB_AGENTS", Deployed)
	if err != nil {
		return nil, err
	}
	return os.DirFS(dir), nil
}
