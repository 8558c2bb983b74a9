package dispatch

import (
	"encoding/json"

	"runnerhub/shared/ci"
	"runnerhub/shared/table"
)

const (
	// maxText cuts what a decision says, in bytes, and minText is how short it gets
	// where there are many.
	maxText = 300
	minText = 32
	// maxDecisions is the room for decisions in a delivery's record, in bytes of JSON,
	// and maxContent what is left for the event beside them.
	maxDecisions = 192 << 10
	maxContent   = table.MaxItemBytes - maxDecisions - 8<<10
	// maxFindings and maxPatterns bound the data of one decision.
	maxFindings = 20
	maxPatterns = 20
	maxData     = 16 << 10
)

// shorter cuts what findings say. Where there is no room for whole sentences, none is left:
// the sentence says the same.
func shorter(findings []ci.Finding, most int) []ci.Finding {
	if most < maxText || size(findings) > maxData {
		return nil
	}
	return findings
}

// fit cuts what decisions say until all of them fit into a record. Names and reasons
// are foreign text: a thousand long ones must not cost the record. Only when even short
// ones are too many, the last decision stands for those left out.
func fit(decisions []ci.Decision) []ci.Decision {
	out := make([]ci.Decision, len(decisions))
	for most := maxText; most >= minText; most /= 2 {
		left := maxDecisions
		for i, decision := range decisions {
			decision.Ref, decision.Reason = cut(decision.Ref, most), cut(decision.Reason, most)
			decision.Findings = shorter(decision.Findings, most)
			out[i] = decision
			left -= size(decision) + len(",")
		}
		if left >= 0 {
			return out
		}
	}
	rest := ci.Decision{Ref: "the rest", Verdict: ci.Skipped, Code: codeLeftOut, Reason: "the record has no room for more decisions; what was built is in the list of builds"}
	left := maxDecisions - size(rest)
	for i, decision := range out {
		if left -= size(decision) + len(","); left < 0 {
			return append(out[:i], rest)
		}
	}
	return out
}

// size is what v takes in a record, in bytes: escapes included.
func size(v any) int {
	body, err := json.Marshal(v)
	if err != nil {
		return 0 // plain values of ours can all be encoded
	}
	return len(body)
}
