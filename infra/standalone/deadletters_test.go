package main

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/datafile"
	queuefile "runnerhub/shared/queue/sqlite"
)

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	file, err := datafile.Open(datafile.Deps{Path: filepath.Join(t.TempDir(), "data.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}()
	q, err := queuefile.New(queuefile.Deps{
		File: file, Name: "deliveries", Visibility: time.Hour, MaxAttempts: 1, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Publish(ctx, []byte("bad"), 0); err != nil {
		t.Fatal(err)
	}
	first, err := q.Receive(ctx, 1, 0)
	if err != nil || len(first) != 1 {
		t.Fatalf("received %v, %v", first, err)
	}
	if err := q.Retry(ctx, first[0].Receipt, 0); err != nil {
		t.Fatal(err)
	}
	start := func(environ ...string) string {
		t.Helper()
		c, err := readConfig(append(environ, "RUNNERHUB_DATA="+t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		var written bytes.Buffer
		s := &server{config: c, log: slog.New(slog.NewTextHandler(&written, nil))}
		if err := s.deadLetters(ctx, "deliveries", q); err != nil {
			t.Fatal(err)
		}
		return written.String()
	}
	if got := start(); got != "" {
		t.Errorf("without dead letters the log is %q", got)
	}
	if messages, err := q.Receive(ctx, 1, 0); err != nil || len(messages) != 0 {
		t.Fatalf("received %v, %v", messages, err)
	}
	if got := start(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "queue=deliveries messages=1") {
		t.Errorf("the log is %q", got)
	}
	if got := start("RUNNERHUB_REDRIVE=1"); !strings.Contains(got, "messages=1") {
		t.Errorf("the log is %q", got)
	}
	if messages, err := q.Receive(ctx, 1, 0); err != nil || len(messages) != 1 {
		t.Errorf("after the redrive came %v, %v", messages, err)
	}
	if _, err := readConfig([]string{"RUNNERHUB_REDRIVE=yes", "RUNNERHUB_DATA=" + t.TempDir()}); err == nil || !strings.Contains(err.Error(), "RUNNERHUB_REDRIVE") {
		t.Errorf("a bad setting: %v", err)
	}
}
