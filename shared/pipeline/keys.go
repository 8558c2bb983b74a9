package pipeline

import (
	"fmt"
	"strings"
)

// keys are the keys of one map of the format, separated by spaces.
type keys struct {
	known    string
	required string
}

func fileKeys() keys {
	return keys{
		known:    "name platform environment triggers steps artifacts timeout image runner compute cache concurrency",
		required: "name triggers steps",
	}
}

func environmentKeys() keys {
	return keys{known: "variables xcode android_sdk flutter node ruby"}
}

func triggerKeys() keys {
	return keys{known: "event branches tags paths source_branches", required: "event"}
}

func filterKeys() keys { return keys{known: "include exclude"} }

func stepKeys() keys {
	return keys{known: "name run working_directory env timeout continue_on_error", required: "run"}
}

func cacheKeys() keys { return keys{known: "paths key", required: "paths"} }

func concurrencyKeys() keys { return keys{known: "group cancel_in_progress"} }

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
	case "paths":
		return "paths: [node_modules]"
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

// refuseMerge is what is said of YAML's way to take over keys.
func refuseMerge() mistake {
	return mistake{
		found: `the merge key "<<"`, expected: "keys of the format",
		message: `merge keys ("<<") are not supported: write the keys out`,
	}
}

// refusal says why key is not taken and what to write instead.
func (k keys) refusal(key string) mistake {
	folded := fold(key)
	m := mistake{found: "the key " + shown(key), expected: oneOf(k.known)}
	switch {
	case key == "<<":
		m.message = refuseMerge().message
		return m
	case strings.HasSuffix(folded, "_ignore") && hasWord(k.known, strings.TrimSuffix(folded, "_ignore")):
		m.nearest = strings.TrimSuffix(folded, "_ignore")
		m.message = fmt.Sprintf(`unknown key %s: write "%s: {exclude: …}"`, shown(key), m.nearest)
		return m
	case hasWord(k.known, "event") && knownEvent(Kind(folded)):
		m.nearest = "event"
		m.message = fmt.Sprintf(`unknown key %s: write "event: %s", and branches beside it`, shown(key), folded)
		return m
	}
	// The word of another system can be near to one of ours that means something else.
	for ours := range strings.SplitSeq(synonyms(folded), " ") {
		if m.nearest == "" && ours != "" && hasWord(k.known, ours) {
			m.nearest, m.sameValue = ours, ours != "environment" && ours != "concurrency"
		}
	}
	if m.nearest == "" {
		m.nearest, m.sameValue = nearest(folded, k.known), true
	}
	if m.nearest == "" {
		m.message = fmt.Sprintf("unknown key %s, expected %s", shown(key), m.expected)
	} else {
		m.message = fmt.Sprintf("unknown key %s, did you mean %q?", shown(key), m.nearest)
	}
	return m
}

// oneOf lists words for a message.
func oneOf(list string) string {
	if !strings.Contains(list, " ") {
		return list
	}
	return "one of " + strings.ReplaceAll(list, " ", ", ")
}

// synonyms are our words for what other systems call key, one for each map that has a word for it.
func synonyms(key string) string {
	switch key {
	case "script", "scripts", "command", "commands", "cmd", "bash", "sh", "exec":
		return "run"
	case "on", "when", "trigger", "rules", "workflow":
		return "triggers"
	case "env", "envs", "variables", "vars", "environment":
		return "environment env variables"
	case "cwd", "dir", "directory", "workdir", "working_dir", "folder":
		return "working_directory"
	case "job", "jobs", "stage", "stages", "pipelines", "tasks":
		return "steps"
	case "pr", "mr", "merge_request":
		return "pull_request"
	case "target", "targets", "target_branch", "target_branches", "destination", "destinations", "destination_branch", "destination_branches",
		"base", "base_branch", "branch", "refs":
		return "branches"
	case "source", "sources", "source_branch", "head", "head_branch", "from":
		return "source_branches"
	case "path", "file", "files", "changes", "changed", "changesets", "directories", "dirs":
		return "paths"
	case "ignore", "except", "not":
		return "exclude"
	case "only":
		return "include"
	case "tag":
		return "tags"
	case "type", "types", "events":
		return "event"
	case "allow_failure", "soft_fail", "ignore_failure":
		return "continue_on_error"
	case "resource_class", "size", "machine", "instance_size":
		return "compute"
	case "container", "docker_image":
		return "image"
	case "timeout_minutes", "timeout_in_minutes", "timeoutinminutes", "max_time", "maxtime", "max_duration":
		return "timeout"
	case "os", "runs_on", "vm":
		return "platform"
	case "agent", "agents", "pool":
		return "runner"
	case "display_name", "displayname", "title", "label":
		return "name"
	case "resource_group":
		return "concurrency group"
	case "interruptible", "auto_cancel", "autocancel":
		return "cancel_in_progress"
	}
	return ""
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
		if d > 1 && len(word) >= 4 && strings.HasPrefix(w, word) {
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
