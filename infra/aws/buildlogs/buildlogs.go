// Package buildlogs opens the logs of builds, on CloudWatch Logs.
package buildlogs

import (
	"fmt"
	"time"

	"runnerhub/infra/aws"
	"runnerhub/shared/buildlog/cloudwatch"
	"runnerhub/shared/random"
)

// Settling is how long after a build's end its last lines may still come. Its agent says at once that it ended; CodeBuild brings what it
// wrote to CloudWatch Logs in batches, some seconds later, and CloudWatch Logs shows that a little later again. How long that can
// take is documented nowhere: this is several times what is seen.
const Settling = 30 * time.Second

// Open opens them.
func Open(e aws.Environment) (*cloudwatch.Log, error) {
	group, err := e.Need("RUNNERHUB_LOG_GROUP", aws.Deployed)
	if err != nil {
		return nil, err
	}
	l, err := cloudwatch.New(cloudwatch.Deps{Config: e.Config, Group: group, Now: time.Now, NewID: random.ID})
	if err != nil {
		return nil, fmt.Errorf("RUNNERHUB_LOG_GROUP is %q: %w", group, err)
	}
	return l, nil
}
