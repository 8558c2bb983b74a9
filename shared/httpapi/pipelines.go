package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"

	"runnerhub/shared/authoring"
	"runnerhub/shared/fault"
	"runnerhub/shared/pipeline"
)

type pipelinesGroup struct{ files *authoring.Authoring }

// Pipelines is what helps to write a pipeline file.
func Pipelines(files *authoring.Authoring) Group { return pipelinesGroup{files} }

func (a pipelinesGroup) routes(*API) []route {
	return []route{
		{http.MethodGet, "/pipeline.schema.json", public, 200, asJSON, deadline, a.schema},
		{http.MethodPost, "/api/apps/{app}/pipeline/check", user, 200, asJSON, deadline, a.check},
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
