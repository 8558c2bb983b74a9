// Package s3 is the blob store on Amazon S3: one object a blob, under its key. What is
// longer than a part is uploaded in parts and exists from the moment they are put
// together; so the memory it takes is one part, and what dies on the way leaves no blob.
//
// The bucket needs two things of its declaration: a lifecycle rule that removes
// uploads nobody completed, and the permission s3:ListBucket for who reads, without which S3
// answers that an absent object is forbidden instead of absent.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"runnerhub/shared/amazon"
	"runnerhub/shared/blob"
	"runnerhub/shared/fault"
)

const (
	// partBytes is how much is in memory at once, unless maxParts of them do not suffice. S3 takes
	// parts of 5 MiB or more.
	partBytes = 8 << 20
	maxParts  = 10_000  // of S3
	maxBytes  = 5 << 40 // of S3, for one object
	// slowest is how many bytes a second a transfer has to manage at least.
	slowest = 1 << 20
	// stall is how long a read may bring nothing.
	stall = 30 * time.Second
)

// Deps is what a Store needs.
type Deps struct {
	Config aws.Config
	Bucket string
}

// Store implements blob.Store. It is safe for concurrent use.
type Store struct {
	deps   Deps
	client *s3.Client
}

var _ blob.Store = (*Store)(nil)

// New makes the driver; it calls nobody.
func New(deps Deps) (*Store, error) {
	if deps.Config.Credentials == nil || deps.Config.Region == "" || deps.Bucket == "" {
		return nil, errors.New("blob/s3: no credentials, region or bucket")
	}
	client := s3.NewFromConfig(deps.Config, func(o *s3.Options) { o.Retryer = aws.NopRetryer{} })
	return &Store{deps: deps, client: client}, nil
}

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	if size < 0 || size > maxBytes {
		return fault.New(fault.Invalid, "a blob has no size of %d bytes", size)
	}
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "storing a blob was given up")
	}
	source := &source{r: r, left: size, part: max(partBytes, (size+maxParts-1)/maxParts)}
	first, err := source.next()
	switch {
	case err != nil:
	case source.left == 0:
		err = s.putWhole(ctx, key, first)
	default:
		err = s.putParts(ctx, key, first, source)
	}
	if err != nil {
		return fmt.Errorf("put blob %s: %w", key, err)
	}
	return nil
}

// source cuts what is put into parts. It answers the last one only when nothing follows.
type source struct {
	r    io.Reader
	left int64 // bytes that have not been read
	part int64
}

func (s *source) next() ([]byte, error) {
	var b bytes.Buffer
	n, err := io.CopyN(&b, s.r, min(s.part, s.left))
	s.left -= n
	if errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "the content ends %d bytes too early", s.left)
	}
	if err != nil {
		return nil, err
	}
	if s.left > 0 {
		return b.Bytes(), nil
	}
	switch n, err := io.CopyN(io.Discard, s.r, 1); {
	case n > 0:
		return nil, fault.New(fault.Invalid, "the content is longer than was said")
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return b.Bytes(), nil
}

// transfer is how a number of bytes is sent.
func transfer(size int) amazon.Calls {
	c := amazon.Usual()
	c.Each += time.Duration(size/slowest) * time.Second
	return c
}

func (s *Store) putWhole(ctx context.Context, key string, content []byte) error {
	err := transfer(len(content)).Do(ctx, func(ctx context.Context) error {
		_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &s.deps.Bucket, Key: &key, Body: bytes.NewReader(content), ContentLength: aws.Int64(int64(len(content))),
		})
		return err
	})
	return amazon.Fault(err, true, kindOf, "storing a blob failed")
}

func (s *Store) putParts(ctx context.Context, key string, first []byte, rest *source) error {
	var upload *s3.CreateMultipartUploadOutput
	err := amazon.Usual().Do(ctx, func(ctx context.Context) (err error) {
		upload, err = s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &s.deps.Bucket, Key: &key})
		return err
	})
	if err != nil {
		return amazon.Fault(err, false, kindOf, "storing a blob failed") // nothing that counts is written yet
	}
	parts, err := s.sendParts(ctx, key, upload.UploadId, first, rest)
	if err != nil {
		return errors.Join(err, s.abort(ctx, key, upload.UploadId))
	}
	// Putting many parts together can take S3 longer than anything else here.
	complete := amazon.Calls{Attempts: 3, Each: time.Minute}
	err = complete.Do(ctx, func(ctx context.Context) error {
		_, err := s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &s.deps.Bucket, Key: &key, UploadId: upload.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		return err
	})
	return amazon.Fault(err, true, kindOf, "storing a blob failed")
}

// sendParts sends the first part and all that follow.
func (s *Store) sendParts(ctx context.Context, key string, upload *string, part []byte, rest *source) (parts []types.CompletedPart, err error) {
	for {
		done, err := s.putPart(ctx, key, upload, int32(len(parts)+1), part)
		if err != nil {
			return nil, err
		}
		parts = append(parts, done)
		if rest.left == 0 {
			return parts, nil
		}
		if part, err = rest.next(); err != nil {
			return nil, err
		}
	}
}

func (s *Store) putPart(ctx context.Context, key string, upload *string, number int32, part []byte) (types.CompletedPart, error) {
	var out *s3.UploadPartOutput
	err := transfer(len(part)).Do(ctx, func(ctx context.Context) (err error) {
		out, err = s.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &s.deps.Bucket, Key: &key, UploadId: upload, PartNumber: &number, Body: bytes.NewReader(part), ContentLength: aws.Int64(int64(len(part))),
		})
		return err
	})
	if err != nil {
		return types.CompletedPart{}, amazon.Fault(err, false, kindOf, "storing a blob failed")
	}
	return types.CompletedPart{
		PartNumber: &number, ETag: out.ETag,
		ChecksumCRC32: out.ChecksumCRC32, ChecksumCRC32C: out.ChecksumCRC32C, ChecksumCRC64NVME: out.ChecksumCRC64NVME,
	}, nil
}

// abort removes the parts, also when the reason is that ctx ended. What it cannot remove
// now, the bucket's lifecycle rule will.
func (s *Store) abort(ctx context.Context, key string, upload *string) error {
	return amazon.Usual().Do(context.WithoutCancel(ctx), func(ctx context.Context) error {
		_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.deps.Bucket, Key: &key, UploadId: upload})
		return err
	})
}

// Get implements blob.Store.
func (s *Store) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := blob.CheckKey(key); err != nil {
		return nil, err
	}
	var found *body
	err := amazon.Usual().Do(ctx, func(trying context.Context) error {
		// The attempt's deadline is for the answer's beginning; what it brings is read when
		// the attempt is long over.
		reading, stop := context.WithCancel(ctx)
		detach := context.AfterFunc(trying, stop)
		out, err := s.client.GetObject(reading, &s3.GetObjectInput{Bucket: &s.deps.Bucket, Key: &key})
		if err == nil && !detach() {
			err = errors.Join(trying.Err(), out.Body.Close())
		}
		if err != nil {
			stop()
			return err
		}
		found = &body{from: out.Body, stop: stop, stalled: time.AfterFunc(stall, stop)}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("get blob %s: %w", key, amazon.Fault(err, false, kindOf, "reading a blob failed"))
	}
	return found, nil
}

// body is content being read. It ends by itself when nothing comes any more.
type body struct {
	from    io.ReadCloser
	stop    context.CancelFunc
	stalled *time.Timer
}

func (b *body) Read(p []byte) (int, error) {
	b.stalled.Reset(stall)
	n, err := b.from.Read(p)
	if err != nil {
		b.stalled.Stop()
		if err != io.EOF {
			err = fault.Wrap(fault.Unavailable, err, "reading a blob failed")
		}
	}
	return n, err
}

func (b *body) Close() error {
	b.stalled.Stop()
	defer b.stop()
	return b.from.Close()
}

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	err := amazon.Usual().Do(ctx, func(ctx context.Context) error {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.deps.Bucket, Key: &key})
		return err
	})
	if err != nil {
		return fmt.Errorf("delete blob %s: %w", key, amazon.Fault(err, true, kindOf, "deleting a blob failed"))
	}
	return nil
}

// kindOf is the table of the refusals of S3. Keys and sizes are checked before S3 sees them,
// so anything else is a missing bucket or permission.
func kindOf(code string) fault.Kind {
	if code == "NoSuchKey" {
		return fault.NotFound
	}
	return fault.Internal
}
