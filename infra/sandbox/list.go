package sandbox

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultPageLen = 10
	maxPageLen     = 100
)

// A listing is a list the API can filter, sort and page. Only what is on the page
// is rendered.
type listing[T any] struct {
	items  []T
	render func(T) (any, error)
	// field gives the value of a field that q and sort may name: a string, bool,
	// float64, rank or nil; false when there is no such field. nil: q and sort
	// are not supported.
	field func(T, string) (any, bool)
	most  int // on a page; 0: maxPageLen
}

// answer pages the list by the request's q, sort, pagelen and page. The page is an
// opaque token that is only good for the list that handed it out: numbers, which
// clients like to make up, are refused.
func answer[T any](s *Sandbox, c *call, l listing[T]) (*reply, error) {
	query := c.URL.Query()
	items, err := l.ordered(query.Get("q"), query.Get("sort"))
	if err != nil {
		return nil, err
	}
	pagelen := defaultPageLen
	if text := query.Get("pagelen"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > cmp.Or(l.most, maxPageLen) {
			return nil, refuse(http.StatusBadRequest, "Invalid pagelen")
		}
		pagelen = n
	}
	offset := 0
	if text := query.Get("page"); text != "" {
		n, valid := s.openPage(c.Request, text)
		if !valid {
			return nil, refuse(http.StatusBadRequest, "Invalid page")
		}
		offset = min(n, len(items))
	}
	end := min(offset+pagelen, len(items))
	values := make([]any, 0, end-offset)
	for _, item := range items[offset:end] {
		value, err := l.render(item)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	body := obj{"pagelen": pagelen, "size": len(items), "values": values}
	if end < len(items) {
		body["next"] = s.pageURL(c.Request, end)
	}
	if offset > 0 {
		body["previous"] = s.pageURL(c.Request, max(0, offset-pagelen))
	}
	return ok(body)
}

func (l listing[T]) ordered(q, sort string) ([]T, error) {
	if q == "" && sort == "" {
		return l.items, nil
	}
	if l.field == nil {
		return nil, refuse(http.StatusBadRequest, "This list can be neither filtered nor sorted.")
	}
	items := slices.Clone(l.items)
	if q != "" {
		condition, err := parseQuery(q)
		if err != nil {
			return nil, err
		}
		kept := items[:0]
		for _, item := range items {
			holds, err := condition.holds(func(name string) (any, bool) { return l.field(item, name) })
			if err != nil {
				return nil, err
			}
			if holds {
				kept = append(kept, item)
			}
		}
		items = kept
	}
	if sort == "" {
		return items, nil
	}
	name, descending := strings.CutPrefix(sort, "-")
	var unknown bool
	slices.SortStableFunc(items, func(a, b T) int {
		left, knownA := l.field(a, name)
		right, knownB := l.field(b, name)
		unknown = unknown || !knownA || !knownB
		order := compareValues(left, right)
		if descending {
			return -order
		}
		return order
	})
	if unknown {
		return nil, refuse(http.StatusBadRequest, "Invalid field in sort: %s", name)
	}
	return items, nil
}

// pageURL is the address of the page that starts at offset.
func (s *Sandbox) pageURL(req *http.Request, offset int) string {
	query := req.URL.Query()
	query.Set("page", s.sealPage(req, offset))
	return s.publicURL + req.URL.EscapedPath() + "?" + query.Encode()
}

func (s *Sandbox) sealPage(req *http.Request, offset int) string {
	token := binary.BigEndian.AppendUint32(nil, uint32(offset))
	return base64.RawURLEncoding.EncodeToString(append(token, s.pageMAC(req, token)...))
}

func (s *Sandbox) openPage(req *http.Request, text string) (int, bool) {
	token, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(token) != 4+pageMACSize {
		return 0, false
	}
	if !hmac.Equal(token[4:], s.pageMAC(req, token[:4])) {
		return 0, false
	}
	return int(binary.BigEndian.Uint32(token)), true
}

const pageMACSize = 12

// pageMAC binds a page to its list: the path and everything asked for but the page.
func (s *Sandbox) pageMAC(req *http.Request, token []byte) []byte {
	query := req.URL.Query()
	for _, free := range []string{"page", "pagelen", "fields"} {
		query.Del(free)
	}
	mac := hmac.New(sha256.New, s.pageKey)
	mac.Write(token)
	mac.Write([]byte(req.URL.Path + "?" + query.Encode()))
	return mac.Sum(nil)[:pageMACSize]
}

// selectFields keeps the members of body that a fields= parameter names: a list of
// dotted paths, which reach into lists; with -path a member is left out, +path adds
// nothing because everything is there already.
func selectFields(body any, spec string) (any, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, err
	}
	var keep [][]string
	for field := range strings.SplitSeq(spec, ",") {
		field = strings.TrimSpace(field)
		switch {
		case field == "" || field[0] == '+' || field[0] == ' ':
		case field[0] == '-':
			removePath(tree, strings.Split(field[1:], "."))
		default:
			keep = append(keep, strings.Split(field, "."))
		}
	}
	if len(keep) > 0 {
		return keepPaths(tree, keep), nil
	}
	return tree, nil
}

func removePath(tree any, path []string) {
	switch node := tree.(type) {
	case []any:
		for _, item := range node {
			removePath(item, path)
		}
	case obj:
		if len(path) == 1 {
			delete(node, path[0])
			return
		}
		removePath(node[path[0]], path[1:])
	}
}

func keepPaths(tree any, paths [][]string) any {
	switch node := tree.(type) {
	case []any:
		kept := make([]any, len(node))
		for i, item := range node {
			kept[i] = keepPaths(item, paths)
		}
		return kept
	case obj:
		kept := obj{}
		for name, value := range node {
			var below [][]string
			whole := false
			for _, path := range paths {
				if path[0] != name && path[0] != "*" {
					continue
				}
				if len(path) == 1 {
					whole = true
				} else {
					below = append(below, path[1:])
				}
			}
			switch {
			case whole:
				kept[name] = value
			case below != nil:
				kept[name] = keepPaths(value, below)
			}
		}
		return kept
	}
	return tree
}

// escape percent-encodes one path segment, braces included.
func escape(segment string) string { return url.PathEscape(segment) }
