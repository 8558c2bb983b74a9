package httpapi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// contract is docs/openapi.yaml.
type contract struct{ root map[string]any }

func readContract(t *testing.T) contract {
	t.Helper()
	raw, err := os.ReadFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c contract
	if err := yaml.Unmarshal(raw, &c.root); err != nil {
		t.Fatal(err)
	}
	return c
}

// at follows a path of members; what is not there is nil.
func at(v any, members ...string) any {
	for _, m := range members {
		object, _ := v.(map[string]any)
		v = object[m]
	}
	return v
}

// resolve follows a reference. Members beside $ref are laid over what it refers to.
func (c contract) resolve(v any) map[string]any {
	object, _ := v.(map[string]any)
	ref, ok := object["$ref"].(string)
	if !ok {
		return object
	}
	target := c.resolve(at(c.root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...))
	if target == nil {
		panic("the contract has no " + ref)
	}
	return overlay(target, object)
}

func overlay(under, over map[string]any) map[string]any {
	out := maps.Clone(under)
	for k, v := range over {
		below, ok := out[k].(map[string]any)
		if above, too := v.(map[string]any); ok && too {
			out[k] = overlay(below, above)
		} else if k != "$ref" {
			out[k] = v
		}
	}
	return out
}

// operation finds what a request is an operation of.
func (c contract) operation(method, path string) map[string]any {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for template, item := range c.root["paths"].(map[string]any) {
		pattern := "^" + regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(template, "[^/]+") + "$"
		if regexp.MustCompile(pattern).MatchString(path) {
			operation, _ := at(item, strings.ToLower(method)).(map[string]any)
			return operation
		}
	}
	return nil
}

// check compares an answer with the contract.
func (c contract) check(method, path string, a answer) error {
	operation := c.operation(method, path)
	if operation == nil {
		if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
			return fmt.Errorf("%s %s is not in the contract and answers %d", method, path, a.status)
		}
		return nil
	}
	documented := at(operation, "responses", strconv.Itoa(a.status))
	if documented == nil {
		if a.status < 400 {
			return fmt.Errorf("%s %s: the contract has no answer %d", method, path, a.status)
		}
		documented = at(operation, "responses", "default")
	}
	response := c.resolve(documented)
	kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	content, _ := response["content"].(map[string]any)
	if content == nil {
		if a.body != "" {
			return fmt.Errorf("%s %s: %d has a body that the contract does not know", method, path, a.status)
		}
		return nil
	}
	if content[kind] == nil {
		return fmt.Errorf("%s %s: %d is %s and should be one of %v", method, path, a.status, kind, slices.Collect(maps.Keys(content)))
	}
	if kind == "text/html" || kind == "application/gzip" || method == http.MethodHead {
		return nil
	}
	var v any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if err := c.conforms(at(content[kind], "schema"), v); err != nil {
		return fmt.Errorf("%s %s: %d: %w", method, path, a.status, err)
	}
	return nil
}

// conforms checks a value against as much of JSON Schema as the contract uses.
func (c contract) conforms(schema, v any) error {
	s := c.resolve(schema)
	for keyword, want := range s {
		if err := c.keyword(s, keyword, want, v); err != nil {
			return err
		}
	}
	return nil
}

func (c contract) keyword(schema map[string]any, keyword string, want, v any) error {
	object, _ := v.(map[string]any)
	text, isText := v.(string)
	number, isNumber := v.(float64)
	switch keyword {
	case "type":
		if types, several := want.([]any); several {
			if !slices.ContainsFunc(types, func(t any) bool { return isOf(t, v) }) {
				return fmt.Errorf("%v is none of %v", v, types)
			}
		} else if !isOf(want, v) {
			return fmt.Errorf("%v is no %v", v, want)
		}
	case "const":
		if !reflect.DeepEqual(want, v) {
			return fmt.Errorf("%v is not %v", v, want)
		}
	case "enum":
		if !slices.Contains(want.([]any), v) {
			return fmt.Errorf("%v is none of %v", v, want)
		}
	case "required":
		for _, name := range want.([]any) {
			if _, there := object[name.(string)]; !there {
				return fmt.Errorf("%s is missing in %v", name, v)
			}
		}
	case "additionalProperties":
		for name := range object {
			if at(schema, "properties", name) == nil {
				return fmt.Errorf("%s is not in the contract: %v", name, v)
			}
		}
	case "properties":
		for name, below := range want.(map[string]any) {
			if value, there := object[name]; there {
				if err := c.conforms(below, value); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		}
	case "items":
		list, _ := v.([]any)
		for i, item := range list {
			if err := c.conforms(want, item); err != nil {
				return fmt.Errorf("%d: %w", i, err)
			}
		}
	case "pattern":
		if isText && !regexp.MustCompile(want.(string)).MatchString(text) {
			return fmt.Errorf("%q does not match %s", text, want)
		}
	case "minLength":
		if isText && utf8.RuneCountInString(text) < want.(int) {
			return fmt.Errorf("%q is shorter than %v", text, want)
		}
	case "maxLength":
		if isText && utf8.RuneCountInString(text) > want.(int) {
			return fmt.Errorf("%q is longer than %v", text, want)
		}
	case "minimum":
		if isNumber && number < float64(want.(int)) {
			return fmt.Errorf("%v is less than %v", number, want)
		}
	case "format":
		if want == "date-time" {
			if moment, err := time.Parse(time.RFC3339, text); err != nil || moment.Location() != time.UTC {
				return fmt.Errorf("%q is no time in UTC", text)
			}
		}
	case "description", "default":
	default:
		return fmt.Errorf("the test does not know the keyword %s", keyword)
	}
	return nil
}

func isOf(name, v any) bool {
	switch name {
	case "object":
		_, ok := v.(map[string]any)
		return ok
	case "array":
		_, ok := v.([]any)
		return ok
	case "string":
		_, ok := v.(string)
		return ok
	case "boolean":
		_, ok := v.(bool)
		return ok
	case "integer":
		n, ok := v.(float64)
		return ok && n == float64(int64(n))
	case "null":
		return v == nil
	default:
		return false
	}
}

// The contract has the routes of the program: path by path, method by method, with the
// same success and the same guard, and names the parameters of its paths.
func TestContract(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	c := b.contract
	if c.root["openapi"] != "3.1.0" {
		t.Errorf("the document is of version %v", c.root["openapi"])
	}
	served := map[string]bool{}
	for _, r := range b.api.Routes() {
		route := r.Method + " " + r.Path
		served[route] = true
		operation, _ := at(c.root, "paths", r.Path, strings.ToLower(r.Method)).(map[string]any)
		if operation == nil {
			t.Errorf("the contract lacks %s", route)
			continue
		}
		if at(operation, "responses", strconv.Itoa(r.Status)) == nil {
			t.Errorf("%s: the contract lacks the success %d", route, r.Status)
		}
		security, own := operation["security"].([]any)
		if public := own && len(security) == 0; public != r.Public {
			t.Errorf("%s: open to everyone: %v, in the contract %v", route, r.Public, public)
		}
		if at(operation, "responses", "default") == nil && r.Path != "/healthz" {
			t.Errorf("%s: the contract has no default answer", route)
		}
		if !r.Public && r.Path != "/builds/{build}" && at(operation, "responses", "401") == nil {
			t.Errorf("%s: the contract lacks 401", route)
		}
		if operation["summary"] == nil || operation["tags"] == nil {
			t.Errorf("%s: no summary or no tag", route)
		}
	}
	for path, item := range c.root["paths"].(map[string]any) {
		var named []string
		parameters, _ := at(item, "parameters").([]any)
		for _, p := range parameters {
			if parameter := c.resolve(p); parameter["in"] == "path" {
				named = append(named, "{"+parameter["name"].(string)+"}")
			}
		}
		if wanted := regexp.MustCompile(`\{[a-z]+\}`).FindAllString(path, -1); !slices.Equal(named, wanted) {
			t.Errorf("%s: the parameters are %v", path, named)
		}
		for method := range item.(map[string]any) {
			if method != "parameters" && !served[strings.ToUpper(method)+" "+path] {
				t.Errorf("%s %s is in the contract and not served", method, path)
			}
		}
	}
	c.resolveAll(t, c.root)
}

// resolveAll sees that no reference leads nowhere.
func (c contract) resolveAll(t *testing.T, v any) {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok && at(c.root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...) == nil {
			t.Errorf("%s leads nowhere", ref)
		}
		for _, below := range v {
			c.resolveAll(t, below)
		}
	case []any:
		for _, below := range v {
			c.resolveAll(t, below)
		}
	}
}
