package pipeline

import (
	"fmt"
	"regexp"
	"strings"
)

// KeyPart is a piece of a cache's key, or of the name of a group: text, the branch, or a checksum.
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

// variable is what looks like a variable of a shell or of another system.
var variable = regexp.MustCompile(`\$(?:[A-Za-z_][A-Za-z0-9_]*|\{[^}]*\}*)`)

// refuseGroup says why a text cannot name a group of builds; nil: it can.
func refuseGroup(group string) *mistake {
	const remedy = "; without group, each branch, tag and pull request has a group of its own"
	if name := variable.FindString(group); name != "" {
		return &mistake{
			found: shown(name) + " in a group", expected: "text with {{ branch }}",
			message: "found " + shown(name) + " in a group, where no variable is known: write {{ branch }} for the branch" + remedy,
		}
	}
	parts, why := keyParts(group)
	for _, part := range parts {
		if part.Checksum != nil {
			return &mistake{
				found: "a checksum in a group", expected: "text with {{ branch }}",
				message: "found a checksum in a group, which is chosen before a build has files: write {{ branch }} for the branch" + remedy,
			}
		}
	}
	if why != nil {
		return &mistake{found: why.found, expected: "{{ branch }} behind a {{", message: "found " + why.found + ", expected {{ branch }} behind a {{" + remedy}
	}
	return nil
}

func refuseKey(found string) *mistake {
	return &mistake{found: shown(found), expected: `{{ branch }} or {{ checksum "file" }} behind a {{`}
}
