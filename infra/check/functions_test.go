package check

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
)

// functionsSayTheirRules holds the package comments of functions to saying what calls them and what becomes of a failure.
func functionsSayTheirRules(t *tree) (wrong []string) {
	all := t.mains()
	for _, name := range sortedKeys(all) {
		comment := all[name].Doc.Text()
		for _, word := range []string{"Trigger:", "Timeout:", "Retries:", "success", "refusal", "failure", "crash", "timeout"} {
			if name == "webhook" && (word == "success" || word == "refusal" || word == "failure") {
				continue // its table names each answer
			}
			if !strings.Contains(comment, word) {
				wrong = append(wrong, fmt.Sprintf("%s: its package comment says nothing of %q: trigger, timeout, retries, and what comes of each outcome", all[name].path, word))
			}
		}
	}
	return wrong
}

// functionsHaveSamples wants an event for each function, and a function for each event.
func functionsHaveSamples(t *tree) (wrong []string) {
	all, sampled := t.mains(), map[string]bool{}
	for _, name := range sortedKeys(t.texts) {
		parts := strings.Split(name, "/")
		if parts[0] != "events" || name == "events/README.md" {
			continue
		}
		if len(parts) != 3 || path.Ext(name) != ".json" || !json.Valid([]byte(t.texts[name])) {
			wrong = append(wrong, name+": sample events are events/<function>/<case>.json")
			continue
		}
		if sampled[parts[1]] = true; all[parts[1]] == nil {
			wrong = append(wrong, fmt.Sprintf("%s: there is no function %s", name, parts[1]))
		}
	}
	for _, name := range sortedKeys(all) {
		if !sampled[name] {
			wrong = append(wrong, fmt.Sprintf("%s: it has no sample in events/%s", all[name].path, name))
		}
	}
	return wrong
}
