package sandbox

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"
)

// A condition is a parsed q= parameter:
//
//	or         = and { "OR" and }
//	and        = comparison { "AND" comparison } | "(" or ")"
//	comparison = field ( "=" | "!=" | "~" | "!~" | ">" | ">=" | "<" | "<=" ) value
//	value      = "text" | number | true | false | null
type condition interface {
	holds(field func(string) (any, bool)) (bool, error)
}

// rank is a value that is written as text and ordered by rank, such as a permission.
type rank struct {
	text  string
	order int
}

type both struct{ left, right condition }

type either struct{ left, right condition }

type comparison struct {
	field, operator string
	value           any
}

func (b both) holds(field func(string) (any, bool)) (bool, error) {
	left, err := b.left.holds(field)
	if err != nil {
		return false, err
	}
	right, err := b.right.holds(field)
	return left && right, err
}

func (e either) holds(field func(string) (any, bool)) (bool, error) {
	left, err := e.left.holds(field)
	if err != nil {
		return false, err
	}
	right, err := e.right.holds(field)
	return left || right, err
}

func (c comparison) holds(field func(string) (any, bool)) (bool, error) {
	have, known := field(c.field)
	if !known {
		return false, refuse(http.StatusBadRequest, "Invalid field in q: %s", c.field)
	}
	if c.operator == "~" || c.operator == "!~" {
		text, _ := have.(string)
		part, isText := c.value.(string)
		if !isText {
			return false, refuse(http.StatusBadRequest, "%s needs a text in quotes", c.operator)
		}
		found := strings.Contains(strings.ToLower(text), strings.ToLower(part))
		return found == (c.operator == "~"), nil
	}
	want := c.value
	if ranked, isRank := have.(rank); isRank {
		text, _ := want.(string)
		order, valid := roleNamed(text)
		if !valid {
			return false, refuse(http.StatusBadRequest, "Invalid value in q: %v", want)
		}
		have, want = float64(ranked.order), float64(order)
	}
	order := compareValues(have, want)
	switch c.operator {
	case "=":
		return order == 0, nil
	case "!=":
		return order != 0, nil
	case ">":
		return order > 0, nil
	case ">=":
		return order >= 0, nil
	case "<":
		return order < 0, nil
	default: // <=, the last one the parser lets through
		return order <= 0, nil
	}
}

// compareValues orders two values of a field; those of different types by their type.
func compareValues(a, b any) int {
	switch left := a.(type) {
	case string:
		if right, same := b.(string); same {
			return cmp.Compare(left, right)
		}
	case float64:
		if right, same := b.(float64); same {
			return cmp.Compare(left, right)
		}
	case bool:
		if right, same := b.(bool); same {
			return cmp.Compare(asNumber(left), asNumber(right))
		}
	case rank:
		if right, same := b.(rank); same {
			return cmp.Compare(left.order, right.order)
		}
	}
	return cmp.Compare(typeOrder(a), typeOrder(b))
}

func asNumber(b bool) int {
	if b {
		return 1
	}
	return 0
}

func typeOrder(v any) int {
	switch v.(type) {
	case nil:
		return 0
	case bool:
		return 1
	case float64:
		return 2
	case string:
		return 3
	}
	return 4
}

// maxQueryDepth bounds the parentheses of a query.
const maxQueryDepth = 20

type queryParser struct {
	rest  string
	depth int
}

func parseQuery(text string) (condition, error) {
	p := &queryParser{rest: text}
	c, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.skipSpace(); p.rest != "" {
		return nil, p.unexpected()
	}
	return c, nil
}

func (p *queryParser) unexpected() error {
	return refuse(http.StatusBadRequest, "Invalid q: unexpected %q", p.rest)
}

func (p *queryParser) skipSpace() { p.rest = strings.TrimLeft(p.rest, " \t") }

// word takes the next word when it is the given one.
func (p *queryParser) word(word string) bool {
	p.skipSpace()
	if len(p.rest) < len(word) || !strings.EqualFold(p.rest[:len(word)], word) {
		return false
	}
	rest := p.rest[len(word):]
	if rest != "" && isFieldByte(rest[0]) && isFieldByte(word[0]) {
		return false
	}
	p.rest = rest
	return true
}

func (p *queryParser) or() (condition, error) {
	left, err := p.and()
	for err == nil && p.word("OR") {
		var right condition
		right, err = p.and()
		left = either{left, right}
	}
	return left, err
}

func (p *queryParser) and() (condition, error) {
	left, err := p.term()
	for err == nil && p.word("AND") {
		var right condition
		right, err = p.term()
		left = both{left, right}
	}
	return left, err
}

func (p *queryParser) term() (condition, error) {
	if p.word("(") {
		p.depth++
		if p.depth > maxQueryDepth {
			return nil, refuse(http.StatusBadRequest, "Invalid q: too deep")
		}
		inner, err := p.or()
		if err != nil {
			return nil, err
		}
		if !p.word(")") {
			return nil, p.unexpected()
		}
		p.depth--
		return inner, nil
	}
	return p.comparison()
}

func (p *queryParser) comparison() (condition, error) {
	p.skipSpace()
	end := 0
	for end < len(p.rest) && isFieldByte(p.rest[end]) {
		end++
	}
	if end == 0 {
		return nil, p.unexpected()
	}
	c := comparison{field: p.rest[:end]}
	p.rest = p.rest[end:]
	p.skipSpace()
	for _, operator := range []string{"!=", "!~", ">=", "<=", "=", "~", ">", "<"} {
		if rest, found := strings.CutPrefix(p.rest, operator); found {
			c.operator, p.rest = operator, rest
			break
		}
	}
	if c.operator == "" {
		return nil, p.unexpected()
	}
	value, err := p.value()
	c.value = value
	return c, err
}

func (p *queryParser) value() (any, error) {
	p.skipSpace()
	if strings.HasPrefix(p.rest, `"`) {
		var text strings.Builder
		for i := 1; i < len(p.rest); i++ {
			switch b := p.rest[i]; {
			case b == '\\' && i+1 < len(p.rest):
				i++
				text.WriteByte(p.rest[i])
			case b == '"':
				p.rest = p.rest[i+1:]
				return text.String(), nil
			default:
				text.WriteByte(b)
			}
		}
		return nil, refuse(http.StatusBadRequest, "Invalid q: a text does not end")
	}
	switch {
	case p.word("true"):
		return true, nil
	case p.word("false"):
		return false, nil
	case p.word("null"):
		return nil, nil
	}
	end := 0
	for end < len(p.rest) && (isFieldByte(p.rest[end]) || strings.IndexByte("+-:", p.rest[end]) >= 0) {
		end++
	}
	word := p.rest[:end]
	if number, err := strconv.ParseFloat(word, 64); err == nil {
		p.rest = p.rest[end:]
		return number, nil
	}
	if end > 0 && word[0] >= '0' && word[0] <= '9' { // a date stands without quotes
		p.rest = p.rest[end:]
		return word, nil
	}
	return nil, p.unexpected()
}

func isFieldByte(b byte) bool {
	return b == '_' || b == '.' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}
