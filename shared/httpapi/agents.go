package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"

	"runnerhub/shared/fault"
)

// agent answers the program that a build runs, packed. It is no secret: everyone may
// have it, and what it does it can do only with a ticket.
func (a agentsGroup) agent(c *call) (answer, error) {
	platform := c.PathValue("platform")
	switch platform {
	case "linux-amd64", "linux-arm64":
	default:
		return nil, fault.New(fault.NotFound, "there is no agent for %.50q", platform)
	}
	body, err := fs.ReadFile(a.programs, platform+".gz")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.NotFound, err, "this installation has no agent for %s", platform)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the agent could not be read")
	}
	return packed{body}, nil
}

// packed is a file that stays as it is: nobody on the way unpacks it.
type packed struct{ body []byte }

func (p packed) send(_ *API, c *call) error {
	sum := sha256.Sum256(p.body)
	tag := `"` + hex.EncodeToString(sum[:16]) + `"`
	h := c.w.Header()
	h.Set("ETag", tag)
	// An old agent may not know what a new server asks of it, so a copy is good only once the server said so.
	h.Set("Cache-Control", "public, no-cache")
	if c.Header.Get("If-None-Match") == tag {
		c.status = http.StatusNotModified
		c.header()
		return nil
	}
	return c.write("application/gzip", p.body)
}
