package bitbucket

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

const (
	// Bitbucket's 429 was recorded without Retry-After, and a quick retry makes
	// it worse: its budgets are counted by the hour.
	defaultRetryAfter = time.Minute
	maxRetryAfter     = time.Hour
)

// refusal turns an answer from 400 on into an error.
func (b *Bitbucket) refusal(r request, resp *http.Response, body []byte, token secret.Text) error {
	kind := kindOf(resp.StatusCode, r.method)
	if resp.StatusCode == 555 && r.deep {
		kind = fault.TooLarge
	}
	said := redact(envelope(body), token, r.private)
	if said != "" {
		said = ": " + said
	}
	e := fault.New(kind, "Bitbucket, %s: %s (%d)%s", r.doing, meaning(kind), resp.StatusCode, said)
	if kind == fault.RateLimited {
		e.RetryAfter = retryAfter(resp.Header, b.now())
	}
	return e
}

// kindOf is the one table of what a status from 400 on means.
func kindOf(status int, method string) fault.Kind {
	switch status {
	case http.StatusUnauthorized:
		return fault.Revoked
	case http.StatusForbidden:
		return fault.Forbidden
	case http.StatusNotFound:
		return fault.NotFound
	case http.StatusRequestTimeout:
		return fault.Unavailable
	case http.StatusConflict:
		return fault.Conflict
	case http.StatusGone:
		return fault.Gone
	case http.StatusRequestEntityTooLarge:
		return fault.TooLarge
	case http.StatusTooManyRequests:
		return fault.RateLimited
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return lost(method) // a gateway that got no answer cannot know either
	}
	if status >= 500 {
		return fault.Unavailable
	}
	return fault.Invalid
}

// lost is the kind of an answer that did not arrive after the request was sent.
func lost(method string) fault.Kind {
	if method == http.MethodGet {
		return fault.Unavailable
	}
	return fault.Unknown
}

func meaning(k fault.Kind) string {
	switch k {
	case fault.Revoked:
		return "the authorisation was refused"
	case fault.Forbidden:
		return "the connected account may not do this"
	case fault.NotFound:
		return "not there, or not to be seen by the connected account"
	case fault.RateLimited:
		return "too many requests"
	case fault.Unavailable, fault.Unknown:
		return "Bitbucket failed"
	default:
		return "refused"
	}
}

// envelope answers the message of Bitbucket's error body, cut, or nothing: some
// answers (429, gateways) are plain text or HTML.
func envelope(body []byte) string {
	var e struct {
		Error struct {
			Message string
			Detail  any
		}
	}
	if json.Unmarshal(body, &e) != nil {
		return ""
	}
	text := e.Error.Message
	if detail, ok := e.Error.Detail.(string); ok && detail != "" {
		text += "; " + detail
	}
	return plain(text, 300)
}

// redact answers text, or nothing when it repeats one of the secrets.
func redact(text string, secrets ...secret.Text) string {
	for _, s := range secrets {
		if !s.Empty() && strings.Contains(text, s.Reveal()) {
			return ""
		}
	}
	return text
}

func retryAfter(h http.Header, now time.Time) time.Duration {
	wait := defaultRetryAfter
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		wait = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil && at.After(now) {
		wait = at.Sub(now)
	}
	return min(wait, maxRetryAfter)
}
