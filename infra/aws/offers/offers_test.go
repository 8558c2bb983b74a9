package offers

import (
	"slices"
	"testing"

	"runnerhub/shared/pipeline"
)

// An image that a pipeline file names would start the agent and hold the connection's token while it clones.
func TestFilesChooseNoImage(t *testing.T) {
	t.Parallel()
	for _, most := range pipeline.Computes() {
		offer, err := UpTo(most)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(offer.Features, pipeline.Image) {
			t.Error("whoever can push a pipeline file can name an image that keeps the token")
		}
		if n := len(offer.Computes); offer.Computes[n-1] != most || !slices.Equal(offer.Computes, pipeline.Computes()[:n]) {
			t.Errorf("up to %s are %v", most, offer.Computes)
		}
	}
}
