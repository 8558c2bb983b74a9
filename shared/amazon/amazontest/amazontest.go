// Package amazontest is for testing drivers of AWS where no emulator does what AWS
// does: a service that answers what a test tells it to, and one whose answers get lost.
package amazontest

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// Answer is what the service does with one request.
type Answer struct {
	Status int // 0 is 200
	Header map[string]string
	Body   string
	Drop   bool // the connection ends without an answer
}

// Request is what the service was asked.
type Request struct {
	Method, Path, Query string
	Target              string // the operation, where the protocol names it in X-Amz-Target
	Header              http.Header
	Body                string
}

// Service answers each request with the next of its answers, the last one for ever.
type Service struct {
	url      string
	mu       sync.Mutex
	answers  []Answer
	requests []Request
}

// Serve starts a service that ends with the test.
func Serve(t testing.TB, answers ...Answer) *Service {
	s := &Service{answers: answers}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading a request: %v", err)
		}
		answer := s.next(Request{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("X-Amz-Target"), r.Header, string(body)})
		if answer.Drop {
			panic(http.ErrAbortHandler)
		}
		for name, value := range answer.Header {
			w.Header().Set(name, value)
		}
		if answer.Status != 0 {
			w.WriteHeader(answer.Status)
		}
		_, _ = io.WriteString(w, answer.Body) // to who does not wait for it any more, perhaps
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *Service) next(r Request) Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	answer := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	return answer
}

// Requests answers what was asked so far.
func (s *Service) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Config is how the SDK reaches the service.
func (s *Service) Config() aws.Config {
	return aws.Config{
		Region: "us-east-1", BaseEndpoint: &s.url, Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	}
}

// Losing answers a client over which requests arrive, and their answers get lost where
// lose, called with the number of the request from 0 on, says so.
func Losing(next aws.HTTPClient, lose func(n int) bool) aws.HTTPClient {
	return &losing{next: next, lose: lose}
}

type losing struct {
	next aws.HTTPClient
	lose func(int) bool
	mu   sync.Mutex
	n    int
}

// Do implements aws.HTTPClient.
func (l *losing) Do(request *http.Request) (*http.Response, error) {
	answer, err := l.next.Do(request)
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.n
	l.n++
	if err != nil || !l.lose(n) {
		return answer, err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return nil, errors.Join(errors.New("the answer was lost"), err, answer.Body.Close())
}
