package s3

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"runnerhub/infra/ministack"
	"runnerhub/shared/amazon/amazontest"
	"runnerhub/shared/blob"
	"runnerhub/shared/blob/blobtest"
	"runnerhub/shared/fault"
)

// bucketVariable tells the test binary to be the process that blobtest kills: the endpoint and the bucket.
const bucketVariable = "BLOB_S3_TEST_BUCKET"

func TestMain(m *testing.M) {
	url, bucket, child := strings.Cut(os.Getenv(bucketVariable), " ")
	if !child {
		os.Exit(m.Run())
	}
	s, err := New(Deps{Config: ministack.Config(url), Bucket: bucket})
	if err == nil {
		err = blobtest.Overwrite(s, os.Stdout)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func open(t *testing.T, config aws.Config, bucket string) *Store {
	t.Helper()
	s, err := New(Deps{Config: config, Bucket: bucket})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func bucket(t *testing.T, config aws.Config) string {
	t.Helper()
	name := strings.ToLower(rand.Text())
	if _, err := s3.NewFromConfig(config).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestOnMiniStack(t *testing.T) {
	t.Parallel()
	server, err := ministack.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	config := ministack.Config(server.URL())
	t.Run("contract", func(t *testing.T) {
		t.Parallel()
		blobtest.Run(t, func(t *testing.T) blobtest.Storage {
			name := bucket(t, config)
			return blobtest.Storage{
				Open: func(t *testing.T) blob.Store { return open(t, config, name) },
				Process: func(t *testing.T) *exec.Cmd {
					cmd := exec.CommandContext(t.Context(), os.Args[0])
					cmd.Env = append(os.Environ(), bucketVariable+"="+server.URL()+" "+name)
					cmd.Stderr = t.Output()
					return cmd
				},
			}
		})
	})
	t.Run("parts", func(t *testing.T) {
		t.Parallel()
		parts(t, config)
	})
}

// parts puts what is uploaded in parts: whole, and interrupted where each part ends.
func parts(t *testing.T, config aws.Config) {
	name := bucket(t, config)
	s := open(t, config, name)
	for _, size := range []int{partBytes - 1, partBytes, partBytes + 1, 2 * partBytes, 2*partBytes + 5} {
		content := make([]byte, size)
		rand.Read(content)
		if err := s.Put(t.Context(), "whole", bytes.NewReader(content), int64(size)); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got := read(t, s, "whole"); !bytes.Equal(got, content) {
			t.Errorf("%d bytes come back as %d others", size, len(got))
		}
		broken := errors.New("the sender went away")
		for what, r := range map[string]struct {
			content io.Reader
			size    int
			want    func(error) bool
		}{
			"too short": {bytes.NewReader(content), size + 1, func(err error) bool { return fault.Is(err, fault.Invalid) }},
			"too long":  {bytes.NewReader(content), size - 1, func(err error) bool { return fault.Is(err, fault.Invalid) }},
			"broken": {
				io.MultiReader(bytes.NewReader(content), failing{broken}), size + 1,
				func(err error) bool { return errors.Is(err, broken) },
			},
		} {
			if err := s.Put(t.Context(), "half", r.content, int64(r.size)); !r.want(err) {
				t.Errorf("%d bytes, %s: %v", size, what, err)
			}
		}
	}
	if _, err := s.Get(t.Context(), "half"); !fault.Is(err, fault.NotFound) {
		t.Errorf("what was not whole is there: %v", err)
	}
	left, err := s3.NewFromConfig(config).ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &name})
	if err != nil || len(left.Uploads) != 0 {
		t.Errorf("%d uploads are left, %v", len(left.Uploads), err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func read(t *testing.T, s *Store, key string) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return content
}

func refusal(status int, code string) amazontest.Answer {
	return amazontest.Answer{Status: status, Body: "<Error><Code>" + code + "</Code><Message>no</Message></Error>"}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers     []amazontest.Answer
		read, write fault.Kind
	}{
		"absent":               {[]amazontest.Answer{refusal(404, "NoSuchKey")}, fault.NotFound, fault.NotFound},
		"no bucket":            {[]amazontest.Answer{refusal(404, "NoSuchBucket")}, fault.Internal, fault.Internal},
		"no permission":        {[]amazontest.Answer{refusal(403, "AccessDenied")}, fault.Internal, fault.Internal},
		"slow down":            {[]amazontest.Answer{refusal(503, "SlowDown")}, fault.Unavailable, fault.Unavailable},
		"trouble of its own":   {[]amazontest.Answer{refusal(500, "InternalError")}, fault.Unavailable, fault.Unknown},
		"no answer":            {[]amazontest.Answer{{Drop: true}}, fault.Unavailable, fault.Unknown},
		"lost, then slow down": {[]amazontest.Answer{{Drop: true}, refusal(503, "SlowDown")}, fault.Unavailable, fault.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			over := func() *Store { return open(t, amazontest.Serve(t, test.answers...).Config(), "b") }
			if _, err := over().Get(t.Context(), "k"); !fault.Is(err, test.read) {
				t.Errorf("Get: %v", err)
			}
			if err := over().Put(t.Context(), "k", strings.NewReader("x"), 1); !fault.Is(err, test.write) {
				t.Errorf("Put: %v", err)
			}
			if err := over().Delete(t.Context(), "k"); !fault.Is(err, test.write) {
				t.Errorf("Delete: %v", err)
			}
		})
	}
}

// A content that breaks off is an error, and nobody takes it for all there is.
func TestContentThatBreaksOff(t *testing.T) {
	t.Parallel()
	s := open(t, amazontest.Serve(t, amazontest.Answer{Header: map[string]string{"Content-Length": "10"}, Body: "half"}).Config(), "b")
	r, err := s.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if content, err := io.ReadAll(r); !fault.Is(err, fault.Unavailable) {
		t.Errorf("read %q, %v", content, err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	whole := Deps{Config: ministack.Config("http://127.0.0.1:1"), Bucket: "b"}
	for name, take := range map[string]func(*Deps){
		"credentials": func(d *Deps) { d.Config.Credentials = nil },
		"region":      func(d *Deps) { d.Config.Region = "" },
		"bucket":      func(d *Deps) { d.Bucket = "" },
	} {
		d := whole
		take(&d)
		if _, err := New(d); err == nil {
			t.Errorf("without %s it is made", name)
		}
	}
}
