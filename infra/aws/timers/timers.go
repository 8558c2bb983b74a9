// Package timers opens the timetable on EventBridge Scheduler, as who keeps it in line with the stored schedules.
package timers

import (
	"errors"
	"fmt"
	"time"

	"runnerhub/infra/aws"
	"runnerhub/shared/random"
	"runnerhub/shared/store"
	"runnerhub/shared/timekeeper"
	"runnerhub/shared/timetable/scheduler"
)

// Keeper opens it.
func Keeper(e aws.Environment, stored *store.Store) (*timekeeper.Keeper, error) {
	group, err := e.Need("RUNNERHUB_SCHEDULE_GROUP", aws.Deployed)
	role, err2 := e.Need("RUNNERHUB_SCHEDULE_ROLE", aws.Deployed)
	queue, err3 := e.Need("RUNNERHUB_DELIVERIES_QUEUE_ARN", aws.Deployed)
	dead, err4 := e.Need("RUNNERHUB_SCHEDULES_DEAD_QUEUE_ARN", aws.Deployed)
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return nil, err
	}
	timetable, err := scheduler.New(scheduler.Deps{Config: e.Config, Group: group, Queue: queue, Role: role, DeadLetters: dead, NewID: random.ID})
	if err != nil {
		return nil, fmt.Errorf("RUNNERHUB_SCHEDULE_GROUP is %q, RUNNERHUB_SCHEDULE_ROLE %q, RUNNERHUB_DELIVERIES_QUEUE_ARN %q, RUNNERHUB_SCHEDULES_DEAD_QUEUE_ARN %q: %w", group, role, queue, dead, err)
	}
	return timekeeper.New(timekeeper.Deps{Store: stored, Timetable: timetable, Now: time.Now, NewID: random.ID})
}
