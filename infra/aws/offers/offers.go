// Package offers says what pipeline files may ask for. It calls no service.
package offers

import "runnerhub/shared/pipeline"

// CodeBuild is what builds on CodeBuild are given; what else a pipeline file asks for is refused. An image of the file's choice
// is: its shell starts the agent and its git gets the connection's token, which is good for more than one repository.
func CodeBuild() pipeline.Offer {
	return pipeline.Offer{
		Platforms: []string{"linux"}, Features: []pipeline.Feature{pipeline.ContinueOnError, pipeline.Groups, pipeline.StepTimeouts},
	}
}
