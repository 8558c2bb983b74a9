package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"sync"
	"time"
)

// callsKept is how many calls the call log holds.
const callsKept = 20000

// faults are what the sandbox has been told to do wrong. They live in memory: a
// restart clears them.
type faults struct {
	Down         bool `json:"down"`             // API, tokens and git answer 503
	LatencyMS    int  `json:"latency_ms"`       // each API call is delayed
	RateLimited  bool `json:"rate_limited"`     // each API call gets 429
	LoseAnswers  lost `json:"lose_answers"`     // the next n API calls are carried out and not answered
	Revoked      bool `json:"revoked"`          // every grant is refused
	AttemptDelay *int `json:"attempt_delay_ms"` // between delivery attempts; default 1000
	Grace        *int `json:"grace_ms"`         // of rotated refresh tokens; default 10 minutes
	TokenSeconds *int `json:"token_seconds"`    // life of access tokens issued from now on; default 7200
}

// lost counts answers to lose: a number, or true for all.
type lost int

const loseAll lost = math.MaxInt

// UnmarshalJSON takes a number, true or false.
func (l *lost) UnmarshalJSON(text []byte) error {
	var all bool
	if json.Unmarshal(text, &all) == nil {
		*l = 0
		if all {
			*l = loseAll
		}
		return nil
	}
	var n int
	if err := json.Unmarshal(text, &n); err != nil || n < 0 {
		return fmt.Errorf("lose_answers must be a number of answers, or true for all")
	}
	*l = lost(n)
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (l lost) MarshalJSON() ([]byte, error) {
	if l == loseAll {
		return []byte("true"), nil
	}
	return json.Marshal(int(l))
}

func orDefault(n *int, unit, fallback time.Duration) time.Duration {
	if n == nil {
		return fallback
	}
	return time.Duration(*n) * unit
}

func (f faults) attemptDelay() time.Duration {
	return orDefault(f.AttemptDelay, time.Millisecond, time.Second)
}
func (f faults) grace() time.Duration { return orDefault(f.Grace, time.Millisecond, refreshGrace) }
func (f faults) accessLife() time.Duration {
	return orDefault(f.TokenSeconds, time.Second, accessLife)
}

func (f faults) negative() bool {
	for _, n := range []*int{&f.LatencyMS, f.AttemptDelay, f.Grace, f.TokenSeconds} {
		if n != nil && *n < 0 {
			return true
		}
	}
	return false
}

// faultBox holds the faults in force.
type faultBox struct {
	mu  sync.Mutex
	now faults
}

func (b *faultBox) current() faults {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *faultBox) set(f faults) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = f
}

// loseNext says whether this answer is to be lost, and counts it.
func (b *faultBox) loseNext() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now.LoseAnswers == 0 {
		return false
	}
	if b.now.LoseAnswers != loseAll {
		b.now.LoseAnswers--
	}
	return true
}

// A callEntry is one API call in the log, which never holds a token or a body.
type callEntry struct {
	Time       time.Time `json:"time"`
	Method     string    `json:"method"`
	Path       string    `json:"path"` // decoded
	Query      string    `json:"query,omitempty"`
	Status     int       `json:"status"`
	User       string    `json:"user,omitempty"`
	Auth       string    `json:"auth,omitempty"` // basic or bearer
	DurationMS float64   `json:"duration_ms"`
	Lost       bool      `json:"answer_lost,omitempty"`
}

// callLog keeps the latest calls.
type callLog struct {
	mu      sync.Mutex
	entries []*callEntry
}

func (l *callLog) add(e *callEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) >= 2*callsKept {
		l.entries = append([]*callEntry(nil), l.entries[callsKept:]...)
	}
	l.entries = append(l.entries, e)
}

func (l *callLog) list() []*callEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	latest := l.entries[max(0, len(l.entries)-callsKept):]
	return append([]*callEntry{}, latest...)
}

func (l *callLog) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = nil
}

// statusWriter remembers the status that was written.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// sink takes an answer nobody will see.
type sink struct{ header http.Header }

func (s sink) Header() http.Header         { return s.header }
func (s sink) Write(b []byte) (int, error) { return len(b), nil }
func (s sink) WriteHeader(int)             {}

// faulty logs the calls to an API and puts the faults in force before it. The rate
// limit of Bitbucket is the REST API's alone, so limited is false for tokens.
func (s *Sandbox) faulty(next http.Handler, limited bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := s.now()
		entry := &callEntry{Time: started.UTC(), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery}
		out := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			entry.Status = out.status
			entry.DurationMS = float64(s.now().Sub(started).Microseconds()) / 1000
			s.calls.add(entry)
		}()
		r = r.WithContext(context.WithValue(r.Context(), callerKey{}, entry))
		f := s.faults.current()
		if f.LatencyMS > 0 {
			timer := time.NewTimer(time.Duration(f.LatencyMS) * time.Millisecond)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-r.Context().Done():
				return
			}
		}
		switch {
		case f.Down:
			unavailable(out)
		case f.RateLimited && limited:
			// No Retry-After, and no JSON: that is how it comes.
			out.Header().Set("Content-Type", "text/plain; charset=utf-8")
			out.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(out, "Rate limit for this resource has been exceeded")
		case s.faults.loseNext():
			entry.Lost = true
			out.ResponseWriter = sink{http.Header{}}
			next.ServeHTTP(out, r)
			panic(http.ErrAbortHandler) // cuts the connection
		default:
			next.ServeHTTP(out, r)
		}
	})
}

func unavailable(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, "<!doctype html><title>Bitbucket</title><h1>Bitbucket is currently unavailable</h1>\n")
}

// controlHandler serves /_sandbox, which no fault touches.
func (s *Sandbox) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_sandbox/faults", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.faults.current())
	})
	mux.HandleFunc("PUT /_sandbox/faults", s.putFaults)
	mux.HandleFunc("DELETE /_sandbox/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.faults.set(faults{})
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /_sandbox/calls", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, obj{"items": s.calls.list()})
	})
	mux.HandleFunc("DELETE /_sandbox/calls", func(w http.ResponseWriter, _ *http.Request) {
		s.calls.clear()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /_sandbox/deliveries", s.listDeliveries)
	mux.HandleFunc("GET /_sandbox/deliveries/{id}", s.getDelivery)
	mux.HandleFunc("POST /_sandbox/deliveries/{id}/redeliver", s.redeliver)
	return mux
}

func (s *Sandbox) putFaults(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields() // a mistyped fault would be a test of nothing
	var f faults
	if err := decoder.Decode(&f); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if f.negative() {
		http.Error(w, "a fault cannot be negative", http.StatusBadRequest)
		return
	}
	s.faults.set(f)
	writeJSON(w, http.StatusOK, f)
}
