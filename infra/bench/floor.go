package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/ci"
	"runnerhub/shared/table"
)

// floorQuestion is what the floor is measured with.
type floorQuestion struct {
	App    string // whose connection and repository
	Commit string
	Key    string // of the status and of the item, another one each time
}

// floor is what the parts of the way to INPROGRESS cost this process when it does
// nothing else: one call of each kind, and one durable commit.
type floor struct {
	Source, PullRequests, Status, Commit time.Duration
}

// way is what a way of three calls and so many commits costs at the least.
func (f floor) way(commits int) time.Duration {
	return f.Source + f.PullRequests + f.Status + time.Duration(commits)*f.Commit
}

func (s *server) floor(w http.ResponseWriter, r *http.Request) {
	var q floorQuestion
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&q); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f, err := s.measure(r.Context(), q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, f)
}

func (s *server) measure(ctx context.Context, q floorQuestion) (floor, error) {
	tie, err := s.store.Repository(ctx, q.App)
	if err != nil {
		return floor{}, fmt.Errorf("measuring the floor: %w", err)
	}
	client, err := s.grants.Client(ctx, tie.Connection)
	if err != nil {
		return floor{}, fmt.Errorf("measuring the floor: %w", err)
	}
	var f floor
	for _, part := range []struct {
		took *time.Duration
		do   func() error
	}{
		{&f.Source, func() error {
			_, err := client.Source(ctx, tie.UUID, q.Commit, ".runnerhub/runnerhub.yml", 256<<10)
			return err
		}},
		{&f.PullRequests, func() error {
			_, err := client.OpenPullRequests(ctx, tie.UUID, branchName)
			return err
		}},
		{&f.Status, func() error {
			return client.PostStatus(ctx, tie.UUID, q.Commit, bitbucket.Status{
				Key: q.Key, State: ci.StatusSuccessful, URL: s.config.url() + "/builds/1", Name: "Floor",
			})
		}},
		{&f.Commit, func() error {
			item := table.Item{Key: table.Key{Partition: "BENCH", Sort: q.Key}, Body: []byte(`{"text":"a small record"}`)}
			return s.items.Transact(ctx, table.Put(item, table.Condition{}))
		}},
	} {
		began := time.Now()
		if err := part.do(); err != nil {
			return floor{}, fmt.Errorf("measuring the floor: %w", err)
		}
		*part.took = time.Since(began)
	}
	return f, nil
}
