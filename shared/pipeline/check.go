package pipeline

// Report is what can be said of a text without a repository: its mistakes, or its plan
// and what an event would do.
type Report struct {
	// Problems are the mistakes in the text, whoever reads it.
	Problems Problems `json:"problems"`
	// Unoffered is what a sound file asks for and the installation does not offer:
	// there it is refused, too.
	Unoffered Problems `json:"unoffered"`
	// Plan is that of a file without mistakes.
	Plan *Plan `json:"plan,omitempty"`
	// Verdict is about the event, if one was given.
	Verdict *Verdict `json:"verdict,omitempty"`
}

// Check reads text and reports on it, for an installation and, unless it is nil, for
// an event. The lists of the report are never nil.
func Check(text []byte, offer Offer, e *Event) Report {
	r := Report{Problems: Problems{}, Unoffered: Problems{}}
	file, problems := Parse(text)
	if file == nil {
		r.Problems = problems
		return r
	}
	r.Unoffered = append(r.Unoffered, file.Unoffered(offer)...)
	plan, problems := file.PlanFor(everything())
	if len(problems) > 0 {
		r.Problems = problems
		return r
	}
	r.Plan = &plan
	if e != nil {
		v := file.Match(*e)
		r.Verdict = &v
	}
	return r
}

// everything is the offer of an installation that does all that the format knows.
func everything() Offer {
	return Offer{
		Platforms: Platforms(), Runners: Runners(), Computes: Computes(),
		Features: []Feature{Artifacts, Caches, ContinueOnError, Groups, Image, StepTimeouts, Toolchain},
	}
}
