package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"runnerhub/shared/authoring"
	"runnerhub/shared/fault"
	"runnerhub/shared/pipeline"
)

type pipelinesGroup struct{ files *authoring.Authoring }

// Pipelines is what helps to write a pipeline file, and those that apps hold.
func Pipelines(files *authoring.Authoring) Group { return pipelinesGroup{files} }

func (a pipelinesGroup) routes(*API) []route {
	return []route{
		{http.MethodGet, "/pipeline.schema.json", public, 200, asJSON, deadline, a.schema},
		{http.MethodPost, "/api/apps/{app}/pipeline/check", user, 200, asJSON, deadline, a.check},
		{http.MethodGet, "/api/apps/{app}/pipelines", user, 200, asJSON, deadline, a.list},
		{http.MethodPut, "/api/apps/{app}/pipelines", user, 200, asJSON, deadline, a.put},
		{http.MethodDelete, "/api/apps/{app}/pipelines/{pipeline}", user, 204, asJSON, deadline, a.delete},
		{http.MethodGet, "/api/apps/{app}/pipeline-versions", user, 200, asJSON, deadline, a.versions},
		{http.MethodGet, "/api/apps/{app}/pipeline-versions/{version}", user, 200, asJSON, deadline, a.version},
	}
}

func (a pipelinesGroup) check(c *call) (answer, error) {
	var in struct {
		Text  *string         `json:"text"`
		Event json.RawMessage `json:"event"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.Text == nil {
		return nil, fault.Field("text", "is missing")
	}
	var event *pipeline.Event
	if len(in.Event) > 0 && !bytes.Equal(in.Event, []byte("null")) {
		d := json.NewDecoder(bytes.NewReader(in.Event))
		d.DisallowUnknownFields()
		if err := d.Decode(&event); err != nil {
			return nil, within("event", notDecoded(err))
		}
	}
	return reply(a.files.Check(c.Context(), c.user(), c.PathValue("app"), *in.Text, event))
}

// within names the member of the body in which the refused field of err is.
func within(member string, err error) error {
	detail, field := fault.Public(err)
	if field == "" {
		return fault.Field(member, "is not the JSON object that is expected")
	}
	return &fault.Error{Kind: fault.Invalid, Field: member + "." + field, Message: member + "." + detail}
}

// schema answers the JSON Schema of the pipeline file: editors ask for it, and know no session.
func (a pipelinesGroup) schema(*call) (answer, error) { return schemaFile{pipeline.Schema()}, nil }

type schemaFile struct{ body []byte }

func (s schemaFile) send(_ *API, c *call) error {
	sum := sha256.Sum256(s.body)
	tag := `"` + hex.EncodeToString(sum[:16]) + `"`
	h := c.w.Header()
	h.Set("ETag", tag)
	h.Set("Cache-Control", "public, max-age=3600")
	if c.Header.Get("If-None-Match") == tag {
		c.status = http.StatusNotModified
		c.header()
		return nil
	}
	return c.write("application/schema+json", s.body)
}

func (a pipelinesGroup) list(c *call) (answer, error) {
	return replyList(a.files.Files(c.Context(), c.user(), c.PathValue("app")))
}

func (a pipelinesGroup) versions(c *call) (answer, error) {
	return replyList(a.files.Versions(c.Context(), c.user(), c.PathValue("app"), c.query("cursor")))
}

func (a pipelinesGroup) version(c *call) (answer, error) {
	version, err := number("version", c.PathValue("version"))
	if err != nil {
		return nil, err
	}
	return reply(a.files.Version(c.Context(), c.user(), c.PathValue("app"), version))
}

func (a pipelinesGroup) put(c *call) (answer, error) {
	var in struct {
		Branches string `json:"branches"`
		Text     string `json:"text"`
		Version  int    `json:"version"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	file, err := a.files.Put(c.Context(), c.user(), c.PathValue("app"), in.Branches, in.Text, in.Version)
	var problems pipeline.Problems
	if errors.As(err, &problems) {
		c.status = http.StatusBadRequest
		detail, field := fault.Public(err)
		return refusedFile{problem{"about:blank", http.StatusText(c.status), c.status, detail, c.ref, field}, problems}, nil
	}
	return reply(file, err)
}

// refusedFile is the problem of a pipeline file, with all that is wrong in it.
type refusedFile struct {
	problem

	Problems pipeline.Problems `json:"problems"`
}

func (r refusedFile) send(_ *API, c *call) error { return c.sendJSON("application/problem+json", r) }

func (a pipelinesGroup) delete(c *call) (answer, error) {
	version, err := number("version", c.query("version"))
	if err != nil {
		return nil, err
	}
	if err := a.files.Delete(c.Context(), c.user(), c.PathValue("app"), c.PathValue("pipeline"), version); err != nil {
		return nil, err
	}
	return nothing{}, nil
}

func number(field, text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 999_999_999 {
		return 0, fault.Field(field, "is %.20q and should be a number from 1 on", text)
	}
	return n, nil
}
