package sandbox

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Deps is what a sandbox is made of.
type Deps struct {
	Dir       string // state folder; "" keeps everything but git in memory, and git in a temporary folder
	PublicURL string // e.g. http://127.0.0.1:7990; the REST API is at PublicURL + "/2.0"

	// The one OAuth consumer. Without a CallbackURL it exists but nobody can
	// consent to it, as on Bitbucket.
	ClientID, ClientSecret, CallbackURL string
	Scopes                              []string // nil: account repository pullrequest webhook

	LoopbackHooks bool // allow webhook addresses on loopback; other internal ones are always refused
	Log           *slog.Logger
	Now           func() time.Time

	// Resolve looks up the host of a webhook; nil asks the system.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
}

// A Sandbox is a running sandbox: an http.Handler and the deliveries it makes. Mount
// it at the root of PublicURL.
type Sandbox struct {
	publicURL                           string
	clientID, clientSecret, callbackURL string
	scopes                              []string
	loopbackHooks                       bool
	log                                 *slog.Logger
	now                                 func() time.Time
	resolve                             func(ctx context.Context, host string) ([]netip.Addr, error)

	store   *store
	git     *git
	faults  faultBox
	calls   callLog
	pageKey []byte
	handler http.Handler
	tempDir string // removed by Close; "" when the folder is the owner's
	courier *courier
	closing sync.Once
}

// defaultScopes are the consumer's when none are given: what the product needs.
func defaultScopes() []string { return []string{"account", "repository", "pullrequest", "webhook"} }

// New opens or makes the state, announces pushes an earlier process did not live to
// announce, and goes on with the deliveries it left. The folder belongs to one
// process at a time.
func New(deps Deps) (*Sandbox, error) {
	public, err := url.Parse(deps.PublicURL)
	switch {
	case err != nil || public.Host == "" || strings.HasSuffix(deps.PublicURL, "/"):
		return nil, fmt.Errorf("sandbox: PublicURL %q is not an address without a path", deps.PublicURL)
	case deps.ClientID == "" || deps.ClientSecret == "":
		return nil, errors.New("sandbox: ClientID and ClientSecret are needed")
	case deps.Log == nil || deps.Now == nil:
		return nil, errors.New("sandbox: Log and Now are needed")
	}
	key := sha256.Sum256([]byte("pages of " + deps.ClientSecret))
	s := &Sandbox{
		publicURL: deps.PublicURL, clientID: deps.ClientID, clientSecret: deps.ClientSecret, callbackURL: deps.CallbackURL,
		scopes: slices.Clone(deps.Scopes), loopbackHooks: deps.LoopbackHooks, log: deps.Log, now: deps.Now,
		resolve: deps.Resolve, pageKey: key[:],
	}
	if s.scopes == nil {
		s.scopes = defaultScopes()
	}
	if s.resolve == nil {
		s.resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if err := s.open(deps.Dir); err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), attemptTime)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("sandbox: %w", err), s.release(ctx))
	}
	return s, nil
}

func (s *Sandbox) open(dir string) error {
	var err error
	if s.store, err = openStore(dir); err != nil {
		return err
	}
	home := dir
	if home == "" {
		if home, err = os.MkdirTemp("", "sandbox-*"); err != nil {
			return err
		}
		s.tempDir = home
	}
	if home, err = filepath.Abs(home); err != nil {
		return err
	}
	if s.git, err = newGit(home); err != nil {
		return err
	}
	s.courier = newCourier(s)
	s.courier.resume()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := s.seed(ctx); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	if err := s.announceMissed(ctx); err != nil {
		return err
	}
	s.handler = s.newHandler()
	return nil
}

// newHandler divides requests by the first segment of their path. Four muxes, because
// the patterns of web pages and of the API overlap.
func (s *Sandbox) newHandler() http.Handler {
	api := s.faulty(s.apiHandler(), true)
	tokens := s.faulty(http.HandlerFunc(s.exchange), false)
	control := s.controlHandler()
	web := s.webHandler()
	// A page somewhere else must not be able to use a browser's session here.
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/2.0/"):
			api.ServeHTTP(w, r)
		case r.URL.Path == "/site/oauth2/access_token" && r.Method == http.MethodPost:
			tokens.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/_sandbox/"):
			control.ServeHTTP(w, r)
		default:
			web.ServeHTTP(w, r)
		}
	}))
}

// ServeHTTP serves everything: API, OAuth, git, web pages and /_sandbox.
func (s *Sandbox) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Close stops deliveries, waits for those under way until ctx ends, and closes the
// state. What was not delivered is delivered by the next process on the folder. Stop
// serving requests first.
func (s *Sandbox) Close(ctx context.Context) error {
	var err error
	s.closing.Do(func() {
		err = s.release(ctx)
	})
	return err
}

// release lets go of what New took, as far as it got.
func (s *Sandbox) release(ctx context.Context) error {
	var errs []error
	if s.courier != nil {
		errs = append(errs, s.courier.stop(ctx))
	}
	if s.git != nil {
		s.git.close()
	}
	if s.store != nil {
		errs = append(errs, s.store.close())
	}
	if s.tempDir != "" {
		errs = append(errs, os.RemoveAll(s.tempDir))
	}
	return errors.Join(errs...)
}
