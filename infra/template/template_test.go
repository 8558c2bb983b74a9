package template

import (
	"encoding/json"
	"os"
	"testing"
)

func site() Site {
	return Site{
		Name: "hub", Region: "eu-central-1", Account: "123456789012",
		Parameters: map[string]string{"ClientID": "client", "ClientSecret": "secret", "Workspaces": "one, two"},
	}
}

// TestGolden compares everything that the reader answers for a realistic template. With
// UPDATE_GOLDEN set it writes that instead, to be read before committing.
func TestGolden(t *testing.T) {
	t.Parallel()
	parsed, err := Parse("testdata/service")
	if err != nil {
		t.Fatal(err)
	}
	stack, err := parsed.Resolve(site())
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(stack, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/service.json"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(got)+"\n" {
		t.Errorf("%s differs:\n%s", golden, got)
	}
}
