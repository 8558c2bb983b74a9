package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"runnerhub/shared/secret"
	"runnerhub/shared/setting"
)

// config is the environment, read and checked.
type config struct {
	listen        string // host:port
	data          string // absolute
	builds        string // absolute; where builds work
	publicURL     string // without a slash at the end; empty until the port is known
	apiURL        string // of Bitbucket; of the sandbox once it runs
	webURL        string
	clientID      string
	clientSecret  secret.Text
	allowed       []string // Bitbucket workspaces, by UUID or slug
	trustBuilds   bool
	redrive       bool // deliver dead letters again
	concurrency   int
	buildUsers    int    // the first user id of builds; 0: the runner's own choice
	sandbox       bool   // run one beside the server
	sandboxListen string // host:port
}

// readConfig reads the settings. Errors name the variable, its value and the remedy.
func readConfig(environ []string) (config, error) {
	e := setting.Read(environ)
	c := config{
		listen:        e.Or("RUNNERHUB_LISTEN", "127.0.0.1:8080"),
		sandboxListen: e.Or("SANDBOX_LISTEN", "127.0.0.1:7990"),
		clientID:      e["BITBUCKET_CLIENT_ID"],
		sandbox:       e["BITBUCKET_CLIENT_ID"] == "",
		concurrency:   runtime.NumCPU(),
	}
	var err error
	if c.data, err = filepath.Abs(e.Or("RUNNERHUB_DATA", "data")); err != nil {
		return c, fmt.Errorf("RUNNERHUB_DATA: %w", err)
	}
	if err := checkListen("RUNNERHUB_LISTEN", c.listen); err != nil {
		return c, err
	}
	if c.sandbox {
		if err := checkListen("SANDBOX_LISTEN", c.sandboxListen); err != nil {
			return c, err
		}
		if !loopback("http://" + c.sandboxListen) {
			return c, fmt.Errorf("SANDBOX_LISTEN is %s, which others can reach, and the sandbox's passwords are public: keep it on loopback", c.sandboxListen)
		}
	}
	if v := e["PUBLIC_URL"]; v != "" {
		if c.publicURL, err = setting.URL("PUBLIC_URL", v); err != nil {
			return c, err
		}
	} else if !loopback("http://" + c.listen) {
		// Without it the server would take itself for one that only this machine reaches.
		return c, fmt.Errorf("RUNNERHUB_LISTEN is %s, which others can reach: set PUBLIC_URL to the address they use", c.listen)
	}
	if c.sandbox {
		if e["BITBUCKET_API_URL"] != "" || e["BITBUCKET_WEB_URL"] != "" {
			return c, errors.New("BITBUCKET_API_URL and BITBUCKET_WEB_URL need BITBUCKET_CLIENT_ID and its secret; without them the sandbox is used")
		}
	} else {
		if c.apiURL, err = setting.URL("BITBUCKET_API_URL", e.Or("BITBUCKET_API_URL", "https://api.bitbucket.org/2.0")); err != nil {
			return c, err
		}
		if c.webURL, err = setting.URL("BITBUCKET_WEB_URL", e.Or("BITBUCKET_WEB_URL", "https://bitbucket.org")); err != nil {
			return c, err
		}
		if c.clientSecret, err = clientSecret(e); err != nil {
			return c, err
		}
	}
	c.allowed = setting.List(e["ALLOWED_BITBUCKET_WORKSPACES"])
	if c.trustBuilds, err = checkSwitch("RUNNERHUB_TRUST_BUILDS", e["RUNNERHUB_TRUST_BUILDS"]); err != nil {
		return c, err
	}
	if c.redrive, err = checkSwitch("RUNNERHUB_REDRIVE", e["RUNNERHUB_REDRIVE"]); err != nil {
		return c, err
	}
	if v := e["RUNNERHUB_CONCURRENCY"]; v != "" {
		if c.concurrency, err = setting.Concurrency("RUNNERHUB_CONCURRENCY", v); err != nil {
			return c, err
		}
	}
	if v := e["RUNNERHUB_BUILD_USERS"]; v != "" {
		if c.buildUsers, err = strconv.Atoi(v); err != nil || c.buildUsers < 1000 || c.buildUsers > 1<<31-2000 {
			return c, fmt.Errorf("RUNNERHUB_BUILD_USERS is %q; it is the first of 1,000 user ids that nobody else has, 1000 or higher", v)
		}
	}
	return c, c.chooseBuilds(e)
}

// buildsBelow is where builds work as root when nobody chose a folder: the data's may lie where
// other users cannot get to, and the system's temporary folder is cleaned under a running server.
const buildsBelow = "/var/lib/runnerhub-builds"

// chooseBuilds finds the folder where builds work. It is outside the data: builds
// have to get there, and nobody else may get to the data.
func (c *config) chooseBuilds(e setting.Environment) error {
	builds := e["RUNNERHUB_BUILDS"]
	switch {
	case builds == "" && os.Geteuid() == 0:
		name, err := stored(filepath.Join(c.data, "builds-folder"), func() string { return strings.ToLower(rand.Text()[:10]) })
		if err != nil {
			return fmt.Errorf("RUNNERHUB_DATA %s: %w", c.data, err)
		}
		builds = filepath.Join(buildsBelow, name)
	case builds == "":
		builds = c.data + "-builds"
	}
	var err error
	if c.builds, err = filepath.Abs(builds); err != nil {
		return fmt.Errorf("RUNNERHUB_BUILDS: %w", err)
	}
	if c.builds == c.data || strings.HasPrefix(c.builds, c.data+string(filepath.Separator)) {
		return fmt.Errorf("RUNNERHUB_BUILDS %s lies inside RUNNERHUB_DATA, which builds must not reach: choose another folder", c.builds)
	}
	return nil
}

func clientSecret(e setting.Environment) (secret.Text, error) {
	file, direct := e["BITBUCKET_CLIENT_SECRET_FILE"], e["BITBUCKET_CLIENT_SECRET"]
	switch {
	case file != "" && direct != "":
		return secret.Text{}, errors.New("BITBUCKET_CLIENT_SECRET and BITBUCKET_CLIENT_SECRET_FILE are both set: keep one")
	case file != "":
		text, err := os.ReadFile(file)
		if err != nil {
			return secret.Text{}, fmt.Errorf("BITBUCKET_CLIENT_SECRET_FILE: %w", err)
		}
		direct = strings.TrimSpace(string(text))
	}
	if direct == "" {
		return secret.Text{}, errors.New("BITBUCKET_CLIENT_ID is set, but neither BITBUCKET_CLIENT_SECRET_FILE nor BITBUCKET_CLIENT_SECRET holds its secret")
	}
	return secret.New(direct), nil
}

func checkListen(name, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%s is %q; it is host:port, for example 127.0.0.1:8080", name, address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%s is %q; the port is a number up to 65535", name, address)
	}
	if host != "" && host != "localhost" {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%s is %q; the host is an IP address of this machine", name, address)
		}
	}
	return nil
}

func checkSwitch(name, text string) (bool, error) {
	switch text {
	case "", "0":
		return false, nil
	case "1":
		return true, nil
	}
	return false, fmt.Errorf("%s is %q; it is 1 or absent", name, text)
}

// reachable is a listen address as a client on this machine dials it.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip, err := netip.ParseAddr(host); host == "" || (err == nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// loopback reports whether an address is for this machine alone.
func loopback(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || (err == nil && ip.IsLoopback())
}

// stored answers the one line kept in a file of the data folder, made on first use.
func stored(path string, fresh func() string) (string, error) {
	for {
		text, err := os.ReadFile(path)
		if err == nil {
			if line := strings.TrimSpace(string(text)); line != "" {
				return line, nil
			}
			return "", fmt.Errorf("%s is empty: remove it", path)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", err
		}
		if err := writeOnce(path, fresh()+"\n"); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
}

// writeOnce makes a whole file or none; fs.ErrExist when there is one.
func writeOnce(path, text string) error {
	draft, err := os.CreateTemp(filepath.Dir(path), ".draft-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(draft.Name()) }()
	if _, err := draft.WriteString(text); err != nil {
		return errors.Join(err, draft.Close())
	}
	if err := errors.Join(draft.Sync(), draft.Close()); err != nil {
		return err
	}
	return os.Link(draft.Name(), path)
}
