package pipeline

import (
	"fmt"
	"regexp"
	"strings"
)

// KeyPart is a piece of a cache's key: text, the branch, or a checksum.
type KeyPart struct {
	Text   string // as it is
	Branch bool   // the branch of the build
	// Checksum are files, inside the clone, whose contents the part stands for.
	Checksum []string
}

// keyPattern is what stands between "{{" and "}}".
var keyPattern = regexp.MustCompile(`^ *(?:(branch)|checksum((?: +"[^"{}]+")+)) *$`)

// Parts takes the key of a cache apart. It is nil for a cache without a key.
func (c Cache) Parts() []KeyPart {
	parts, _ := keyParts(c.Key) // Parse has refused what does not come apart
	return parts
}

func keyParts(key string) (parts []KeyPart, why *mistake) {
	for key != "" {
		text, rest, opened := strings.Cut(key, "{{")
		if text != "" {
			parts = append(parts, KeyPart{Text: text})
		}
		if !opened {
			break
		}
		inside, after, closed := strings.Cut(rest, "}}")
		m := keyPattern.FindStringSubmatch(inside)
		if !closed || m == nil {
			return nil, refuseKey("{{" + cut(inside, 40))
		}
		part := KeyPart{Branch: m[1] != ""}
		for i, file := range strings.Split(m[2], `"`) {
			if i%2 == 0 {
				continue
			}
			if strings.HasPrefix(file, "/") || climbs(file) || strings.Contains(file, `\`) {
				m := refuseKey(file)
				m.unsayable = true
				m.message = fmt.Sprintf("found %s as the file of a checksum, expected a file of the repository, written from its root", shown(file))
				return nil, m
			}
			part.Checksum = append(part.Checksum, file)
		}
		parts = append(parts, part)
		key = after
	}
	return parts, nil
}

func refuseKey(found string) *mistake {
	return &mistake{found: shown(found), expected: `{{ branch }} or {{ checksum "file" }} behind a {{`}
}
