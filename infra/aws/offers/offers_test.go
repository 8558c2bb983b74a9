package offers

import (
	"slices"
	"testing"

	"runnerhub/shared/pipeline"
)

// An image that a pipeline file names would start the agent and hold the connection's token while it clones.
func TestFilesChooseNoImage(t *testing.T) {
	t.Parallel()
	if slices.Contains(CodeBuild().Features, pipeline.Image) {
		t.Error("whoever can push a pipeline file can name an image that keeps the token")
	}
}
