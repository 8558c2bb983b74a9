package pipeline

import (
	"fmt"
	"strings"
)

// keys are the keys of one map of the format, separated by spaces.
type keys struct {
	known    string
	required string
	later    string // of the format, but not of this version
}

func fileKeys() keys {
	return keys{
		known:    "name platform environment triggers steps timeout",
		required: "name triggers steps",
		later:    "artifacts image runner compute cache concurrency",
	}
}

func environmentKeys() keys {
	return keys{known: "variables", later: "xcode android_sdk flutter node ruby"}
}

func triggerKeys() keys {
	return keys{known: "event branches", required: "event", later: "tags paths source_branches"}
}

func stepKeys() keys {
	return keys{known: "name run working_directory env", required: "run", later: "timeout continue_on_error"}
}

// example shows how a required key is written.
func example(key string) string {
	switch key {
	case "name":
		return "name: My app"
	case "triggers":
		return "triggers: [push]"
	case "steps":
		return "steps: [{run: make test}]"
	case "event":
		return "event: push"
	default:
		return "run: make test"
	}
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, " ") {
		if w == word {
			return true
		}
	}
	return false
}

const refuseMerge = `merge keys ("<<") are not supported: write the keys out`

// refusal says why key is not taken and what to write instead, and which of
// the known keys was meant, if that can be told.
func (k keys) refusal(key string) (why, meant string) {
	folded := fold(key)
	switch {
	case key == "<<":
		return refuseMerge, ""
	case k.later != "" && hasWord(k.later, key):
		return shown(key) + " is part of the format but not supported by this version: remove it", ""
	case hasWord(k.known, "event") && knownEvent(Kind(folded)):
		return fmt.Sprintf(`unknown key %s: write "event: %s", and branches beside it`, shown(key), folded), "event"
	}
	meant = nearest(folded, k.known+" "+k.later)
	if other := synonym(folded); meant == "" && hasWord(k.known, other) {
		meant = other
	}
	if meant == "" {
		return fmt.Sprintf("unknown key %s, expected %s", shown(key), oneOf(k.known)), ""
	}
	return fmt.Sprintf("unknown key %s, did you mean %q?", shown(key), meant), meant
}

// oneOf lists words for a message.
func oneOf(list string) string {
	if !strings.Contains(list, " ") {
		return list
	}
	return "one of " + strings.ReplaceAll(list, " ", ", ")
}

// synonym is our word for what other systems call key.
func synonym(key string) string {
	switch key {
	case "script", "command", "commands", "cmd":
		return "run"
	case "on", "when":
		return "triggers"
	case "env", "variables":
		return "environment"
	case "cwd", "dir", "directory", "workdir":
		return "working_directory"
	case "jobs", "stages", "pipelines":
		return "steps"
	case "pr", "mr", "merge_request":
		return "pull_request"
	}
	return key
}

func fold(key string) string {
	return strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(key))
}

// nearest is the word of list that word is most likely a misspelling of, or
// nothing.
func nearest(word, list string) string {
	if len(word) > 40 {
		return ""
	}
	best, least := "", 1+max(1, len(word)/3)
	for w := range strings.SplitSeq(list, " ") {
		if w == "" {
			continue
		}
		d := distance(word, w)
		if len(word) >= 4 && strings.HasPrefix(w, word) {
			d = 1
		}
		if d < least {
			best, least = w, d
		}
	}
	return best
}

// distance counts the bytes to insert, remove, replace or swap with their
// neighbour that turn a into b.
func distance(a, b string) int {
	older, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
		older, last, row = last, row, older
	}
	return last[len(b)]
}
