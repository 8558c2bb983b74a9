// Package offers says what pipeline files may ask for. It calls no service.
package offers

import (
	"fmt"
	"slices"
	"strings"

	"runnerhub/infra/aws"
	"runnerhub/shared/pipeline"
)

// CodeBuild is what builds on CodeBuild are given, by the function's environment.
func CodeBuild(e aws.Environment) (pipeline.Offer, error) {
	most, err := e.Need("RUNNERHUB_MAX_COMPUTE", aws.Deployed)
	if err != nil {
		return pipeline.Offer{}, err
	}
	return UpTo(most)
}

// UpTo is what builds on CodeBuild are given on machines of up to a size; what else a pipeline file asks for is refused. An image of the
// file's choice is: its shell starts the agent and its git gets the connection's token, which is good for more than one repository.
func UpTo(most string) (pipeline.Offer, error) {
	sizes := pipeline.Computes()
	last := slices.Index(sizes, most)
	if last < 0 {
		return pipeline.Offer{}, fmt.Errorf("RUNNERHUB_MAX_COMPUTE is %q; it is one of: %s", most, strings.Join(sizes, ", "))
	}
	return pipeline.Offer{
		Platforms: []string{"linux"}, Runners: []string{"codebuild"}, Computes: sizes[:last+1],
		Features: []pipeline.Feature{pipeline.ContinueOnError, pipeline.Groups, pipeline.StepTimeouts},
	}, nil
}
