package cloudwatch

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"runnerhub/infra/ministack"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/buildlog/buildlogtest"
)

// placeVariable tells the test binary to be the writer that buildlogtest kills, and where it writes.
const placeVariable = "BUILDLOG_CLOUDWATCH_TEST_PLACE"

func TestMain(m *testing.M) {
	url, group, writes := strings.Cut(os.Getenv(placeVariable), " ")
	if !writes {
		os.Exit(m.Run())
	}
	l, err := New(deps(ministack.Config(url), group))
	if err == nil {
		err = buildlogtest.Write(l, os.Stdout)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func deps(config aws.Config, group string) Deps {
	return Deps{Config: config, Group: group, Now: time.Now, NewID: rand.Text}
}

func open(t testing.TB, d Deps) *Log {
	t.Helper()
	l, err := New(d)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestOnMiniStack(t *testing.T) {
	t.Parallel()
	server, err := ministack.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	config := ministack.Config(server.URL())
	client := cloudwatchlogs.NewFromConfig(config)
	newGroup := func(t *testing.T) string {
		group := "/runnerhub/" + rand.Text()
		if _, err := client.CreateLogGroup(t.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &group}); err != nil {
			t.Fatal(err)
		}
		return group
	}
	buildlogtest.Run(t, func(t *testing.T) buildlogtest.Storage {
		group := newGroup(t)
		return buildlogtest.Storage{
			Open: func(t *testing.T) buildlog.Log { return open(t, deps(config, group)) },
			Process: func(t *testing.T) *exec.Cmd {
				cmd := exec.CommandContext(t.Context(), os.Args[0])
				cmd.Env = append(os.Environ(), placeVariable+"="+server.URL()+" "+group)
				cmd.Stderr = t.Output()
				return cmd
			},
		}
	})
	t.Run("loses answers", func(t *testing.T) {
		t.Parallel()
		d := deps(config, newGroup(t))
		d.NewID = func() string { return "lost" }
		losesAnswers(t, d)
	})
	t.Run("merges attempts", func(t *testing.T) {
		t.Parallel()
		mergesAttempts(t, deps(config, newGroup(t)))
	})
}
