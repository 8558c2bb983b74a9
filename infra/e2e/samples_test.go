package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"runnerhub/infra/rehearsal"
)

// sampleEvents sends every sample event to the built function it is for. What the samples are about is not there,
// so what is looked at is that each is understood and answered, and that nothing breaks.
func sampleEvents(t *testing.T, in stack) {
	a := in.(*lambda).account(t, rehearsal.Deps{})
	a.start()
	samples, err := filepath.Glob("../../events/*/*.json")
	if err != nil || len(samples) < 50 {
		t.Fatalf("there are %d samples, %v", len(samples), err)
	}
	for _, sample := range samples {
		name := strings.TrimSuffix(strings.TrimPrefix(sample, "../../events/"), ".json")
		folder, _, _ := strings.Cut(name, "/")
		payload, err := os.ReadFile(sample)
		if err != nil {
			t.Fatal(err)
		}
		function := strings.ToUpper(folder[:1]) + folder[1:] + "Function"
		answer, err := a.Host().Invoke(t.Context(), function, payload)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var request events.APIGatewayV2HTTPRequest
		var response events.APIGatewayV2HTTPResponse
		var batch events.SQSEventResponse
		switch {
		case json.Unmarshal(payload, &request) == nil && request.RouteKey != "":
			if err := json.Unmarshal(answer, &response); err != nil || response.StatusCode < 200 || response.StatusCode > 499 {
				t.Errorf("%s: answered %.300s, %v", name, answer, err)
			}
		case strings.Contains(string(payload), `"Records"`):
			if err := json.Unmarshal(answer, &batch); err != nil || !strings.Contains(string(answer), "batchItemFailures") {
				t.Errorf("%s: answered %.300s, %v", name, answer, err)
			}
		}
	}
}
