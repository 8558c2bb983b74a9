package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxDelivery     = 256 << 10 // larger bodies are never sent, and nobody is told
	maxAttempts     = 3
	attemptTime     = 10 * time.Second
	maxHookResponse = 64 << 10 // read of a receiver's answer, only to measure it
	deliveriesAtOne = 64       // attempts under way at once
)

// States of a delivery. Failed and delivered ones can be sent again by hand.
const (
	pending   = "pending"
	delivered = "delivered"
	failed    = "failed"
	dropped   = "dropped" // too large, or its hook is gone
)

// A delivery is one event on its way to one hook.
type delivery struct {
	ID          string // the X-Request-UUID, the same over all attempts
	Hook        string
	Repository  string
	Event       string
	Body        []byte
	State       string
	Attempts    []attempt
	Sent        int // attempts made since it was last queued
	Reason      string
	CreatedAt   time.Time
	Redelivered int // times it was queued again by hand
}

func (d *delivery) kind() string { return "delivery" }
func (d *delivery) key() string  { return d.ID }

// An attempt is one request to the hook's address. Status is 0 when none came back.
type attempt struct {
	Number        int       `json:"number"`
	At            time.Time `json:"time"`
	URL           string    `json:"url"`
	Status        int       `json:"status"`
	Error         string    `json:"error,omitempty"`
	DurationMS    int64     `json:"duration_ms"`
	RequestBytes  int       `json:"request_bytes"`
	ResponseBytes int       `json:"response_bytes"`
}

// post stores one delivery for each hook subscribed to the message, and forgets the
// oldest ones of each.
func (s *Sandbox) post(t *tx, m message) []*delivery {
	var made []*delivery
	for _, h := range t.hooks[m.repository] {
		if !h.Active || !slices.Contains(h.Events, m.key) {
			continue
		}
		d := &delivery{
			ID: newUUID(), Hook: h.ID, Repository: m.repository, Event: m.key, Body: m.body,
			State: pending, CreatedAt: s.now(),
		}
		if len(d.Body) > maxDelivery {
			d.State, d.Reason = dropped, fmt.Sprintf("%d bytes are more than %d", len(d.Body), maxDelivery)
		}
		t.put(d)
		made = append(made, d)
		old := t.history[h.ID]
		for _, o := range old[:max(0, len(old)+1-deliveriesKept)] {
			if o.State != pending {
				t.drop(o)
			}
		}
	}
	return made
}

// hookOf is the hook of a delivery, or nil.
func (d *data) hookOf(m *delivery) *hook {
	for _, h := range d.hooks[m.Repository] {
		if h.ID == m.Hook {
			return h
		}
	}
	return nil
}

// courier sends deliveries: each by a goroutine of its own that ends with the courier,
// a bounded number of requests at a time.
type courier struct {
	sandbox *Sandbox
	client  *http.Client
	lax     *http.Client    // for hooks that skip the check of certificates
	ctx     context.Context // ends waits: for the next attempt, for a slot
	cancel  context.CancelFunc
	calls   context.Context // ends requests
	cut     context.CancelFunc
	slots   chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	count   int           // deliveries under way
	idle    chan struct{} // closed when count falls to 0; nil when nobody waits
}

func newCourier(s *Sandbox) *courier {
	c := &courier{sandbox: s, slots: make(chan struct{}, deliveriesAtOne)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.calls, c.cut = context.WithCancel(context.Background())
	c.client, c.lax = c.newClient(false), c.newClient(true)
	return c
}

func (c *courier) newClient(lax bool) *http.Client {
	dialer := &net.Dialer{Timeout: attemptTime}
	// A name that resolved to the outside when the hook was made may lead inside by now.
	dialer.Control = func(_, address string, _ syscall.RawConn) error {
		target, err := netip.ParseAddrPort(address)
		if err != nil || c.sandbox.isForbidden(target.Addr()) {
			return fmt.Errorf("%s is an internal address", address)
		}
		return nil
	}
	return &http.Client{
		Timeout: attemptTime,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: lax}, // what skip_cert_verification asks for
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// resume goes on with what an earlier process left. It comes before anything new is
// sent, which would be sent twice.
func (c *courier) resume() {
	var left []*delivery
	c.sandbox.store.read(func(d *data) {
		for _, list := range d.history {
			for _, m := range list {
				if m.State == pending {
					left = append(left, m)
				}
			}
		}
	})
	for _, m := range left {
		c.send(m)
	}
}

// send delivers in the background. After stop it leaves the delivery to the next
// process.
func (c *courier) send(m *delivery) {
	if m.State != pending {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	c.count++
	c.running.Go(func() {
		c.deliver(m.ID, m.Redelivered)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.count--; c.count == 0 && c.idle != nil {
			close(c.idle)
			c.idle = nil
		}
	})
}

// stop cuts waits short, lets attempts under way end until ctx does, then cuts those.
func (c *courier) stop(ctx context.Context) error {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.cancel()
	defer context.AfterFunc(ctx, c.cut)()
	c.running.Wait()
	c.cut()
	c.client.CloseIdleConnections()
	c.lax.CloseIdleConnections()
	return context.Cause(ctx)
}

// Settle waits until no delivery is under way.
func (s *Sandbox) Settle(ctx context.Context) error {
	c := s.courier
	c.mu.Lock()
	if c.count == 0 {
		c.mu.Unlock()
		return nil
	}
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	idle := c.idle
	c.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// deliver makes attempts until one is taken, refused for good, or was the last. A
// delivery queued again meanwhile is somebody else's.
func (c *courier) deliver(id string, redelivered int) {
	s := c.sandbox
	for {
		var m *delivery
		var h *hook
		s.store.read(func(d *data) {
			if m = d.deliveries[id]; m != nil {
				h = d.hookOf(m)
			}
		})
		if m == nil || m.State != pending || m.Redelivered != redelivered {
			return
		}
		next := *m
		if h == nil {
			next.State, next.Reason = dropped, "the webhook was deleted"
		} else if !c.attempt(&next, h) {
			return // closing
		}
		err := s.store.update(func(t *tx) error {
			t.put(&next)
			return nil
		})
		if err != nil {
			s.log.Error("sandbox: delivery not recorded", "request", id, "error", err)
			return
		}
	}
}

// attempt makes the next attempt and records it in m; false when the courier stopped
// before there was an outcome.
func (c *courier) attempt(m *delivery, h *hook) bool {
	s := c.sandbox
	if m.Sent > 0 && !c.wait(s.faults.current().attemptDelay()) {
		return false
	}
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-c.ctx.Done():
		return false
	}
	started := s.now()
	a := attempt{Number: m.Sent + 1, At: started.UTC(), URL: h.URL, RequestBytes: len(m.Body)}
	status, size, err := c.request(m, h, a.Number)
	if err != nil && c.calls.Err() != nil {
		return false
	}
	a.Status, a.ResponseBytes = status, size
	a.DurationMS = s.now().Sub(started).Milliseconds()
	if err != nil {
		a.Error = err.Error()
	}
	m.Attempts = append(slices.Clone(m.Attempts), a)
	m.Sent++
	switch {
	case status >= 200 && status < 300:
		m.State = delivered
	case status != 0 && status < 500 || m.Sent >= maxAttempts:
		m.State = failed
	}
	return true
}

func (c *courier) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

func (c *courier) request(m *delivery, h *hook, number int) (status, size int, err error) {
	req, err := http.NewRequestWithContext(c.calls, http.MethodPost, h.URL, bytes.NewReader(m.Body))
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Bitbucket-Webhooks/2.0")
	req.Header.Set("X-Event-Key", m.Event)
	req.Header.Set("X-Hook-UUID", strings.Trim(h.ID, "{}"))
	req.Header.Set("X-Request-UUID", m.ID)
	req.Header.Set("X-Attempt-Number", strconv.Itoa(number))
	if h.Secret != "" {
		req.Header.Set("X-Hub-Signature", sign(h.Secret, m.Body))
	}
	client := c.client
	if h.SkipCertVerification {
		client = c.lax
	}
	response, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer response.Body.Close()
	read, err := io.Copy(io.Discard, io.LimitReader(response.Body, maxHookResponse))
	return response.StatusCode, int(read), err
}

// sign is the X-Hub-Signature of a body.
func sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// deliveryObject is a delivery under /_sandbox, with its body when asked for alone.
func deliveryObject(m *delivery, h *hook, withBody bool) obj {
	body := obj{
		"request_uuid": m.ID, "hook": m.Hook, "repository": m.Repository, "event": m.Event,
		"state": m.State, "reason": m.Reason, "created_at": m.CreatedAt.UTC(), "body_bytes": len(m.Body),
		"attempts": append([]attempt{}, m.Attempts...), "redelivered": m.Redelivered,
	}
	if h != nil {
		body["url"] = h.URL
	}
	if withBody {
		body["body"] = json.RawMessage(m.Body)
	}
	return body
}

// listDeliveries answers all recorded deliveries, the oldest first, or those of one
// hook=, event= or state=.
func (s *Sandbox) listDeliveries(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	wanted := func(key, have string) bool { return !query.Has(key) || query.Get(key) == have }
	var list []*delivery
	urls := map[string]*hook{}
	s.store.read(func(d *data) {
		for _, m := range d.deliveries {
			if wanted("hook", m.Hook) && wanted("event", m.Event) && wanted("state", m.State) {
				list = append(list, m)
				urls[m.Hook] = d.hookOf(m)
			}
		}
	})
	slices.SortFunc(list, func(a, b *delivery) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	items := make([]obj, len(list))
	for i, m := range list {
		items[i] = deliveryObject(m, urls[m.Hook], false)
	}
	writeJSON(w, http.StatusOK, obj{"items": items})
}

func (s *Sandbox) getDelivery(w http.ResponseWriter, r *http.Request) {
	var m *delivery
	var h *hook
	s.store.read(func(d *data) {
		if m = d.deliveries[r.PathValue("id")]; m != nil {
			h = d.hookOf(m)
		}
	})
	if m == nil {
		http.Error(w, "no such delivery", http.StatusNotFound)
		return
	}
	writeJSON(w, http.StatusOK, deliveryObject(m, h, true))
}

// redeliver sends a recorded delivery once more, with the same request id.
func (s *Sandbox) redeliver(w http.ResponseWriter, r *http.Request) {
	m, err := s.requeue(r.PathValue("id"))
	var refused *apiError
	switch {
	case errors.As(err, &refused):
		http.Error(w, refused.message, refused.status)
	case err != nil:
		s.log.Error("sandbox: redelivery failed", "error", err)
		http.Error(w, "redelivery failed", http.StatusInternalServerError)
	default:
		writeJSON(w, http.StatusAccepted, deliveryObject(m, nil, false))
	}
}

func (s *Sandbox) requeue(id string) (*delivery, error) {
	var again delivery
	err := s.store.update(func(t *tx) error {
		m := t.deliveries[id]
		switch {
		case m == nil:
			return notFound("Delivery")
		case m.State == pending:
			return refuse(http.StatusConflict, "The delivery is under way.")
		case m.State == dropped:
			return refuse(http.StatusConflict, "The delivery was dropped: %s.", m.Reason)
		}
		again = *m
		again.State, again.Sent = pending, 0
		again.Redelivered++
		t.put(&again)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.courier.send(&again)
	return &again, nil
}
