package aws

import (
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"time"

	"runnerhub/shared/random"
	"runnerhub/shared/setting"
	"runnerhub/shared/store"
	"runnerhub/shared/table/dynamo"
)

// PublicURL is where browsers, Bitbucket and builds reach the API.
func PublicURL(e Environment) (string, error) { return e.URL("PUBLIC_URL") }

// WebURL is where Bitbucket's pages and its token endpoint are.
func WebURL(e Environment) (string, error) { return e.secure("BITBUCKET_WEB_URL") }

// APIURL is where Bitbucket's REST API is.
func APIURL(e Environment) (string, error) { return e.secure("BITBUCKET_API_URL") }

// secure answers an address to which tokens are sent. Where other addresses are for tests, this one may be: on loopback.
func (e Environment) secure(name string) (string, error) {
	address, err := e.URL(name)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	ip, _ := netip.ParseAddr(u.Hostname())
	if u.Scheme != "https" && (e.variables["AWS_ENDPOINT_URL"] == "" || !ip.IsLoopback()) {
		return "", fmt.Errorf("%s is %q: tokens are sent there, so it has to be https; deploy again with another parameter", name, address)
	}
	return address, nil
}

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
