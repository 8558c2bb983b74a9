package datafile

import (
	"context"
	"database/sql"
	"fmt"
)

// application marks the file as ours (PRAGMA application_id): "RHub".
const application = 0x52487562

// prepareSchema checks whose file it is before anything is changed, then brings
// its layout up to date.
func prepareSchema(ctx context.Context, conn *sql.Conn, path string) error {
	var version, mark, tables int
	for query, into := range map[string]*int{
		"PRAGMA user_version":                &version,
		"PRAGMA application_id":              &mark,
		"SELECT count(*) FROM sqlite_schema": &tables,
	} {
		if err := conn.QueryRowContext(ctx, query).Scan(into); err != nil {
			return fmt.Errorf("reading %s: %w", path, explain(err))
		}
	}
	steps := schema()
	switch {
	case mark != application && tables > 0:
		return fmt.Errorf("%s is an SQLite file of another program; use another RUNNERHUB_DATA", path)
	case version > len(steps):
		return fmt.Errorf("%s was written by a newer version (schema %d, this program knows %d); use that version or another RUNNERHUB_DATA",
			path, version, len(steps))
	}
	// The mode is kept in the file, so it is set only now. The log shrinks back
	// to this size after a burst.
	for _, setting := range []string{"PRAGMA journal_mode=WAL", "PRAGMA journal_size_limit=8388608"} {
		if _, err := conn.ExecContext(ctx, setting); err != nil {
			return fmt.Errorf("setting up %s: %w", path, explain(err))
		}
	}
	for ; version < len(steps); version++ {
		step := fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT", steps[version], application, version+1)
		if _, err := conn.ExecContext(ctx, step); err != nil {
			return fmt.Errorf("bringing %s to schema %d: %w", path, version+1, explain(err))
		}
	}
	return nil
}

// schema answers the steps that lead from an empty file to the layout of today;
// the number of steps done is the file's version (PRAGMA user_version). A step
// that was released is never changed, a new one is appended. The layout stands
// here whole because it is versioned whole, and because an operator reads it.
//
// Times are Unix time: seconds in items, milliseconds in messages.
func schema() []string {
	return []string{
		`
		CREATE TABLE items (
			partition  TEXT NOT NULL,
			sort       TEXT NOT NULL,
			version    INTEGER NOT NULL,
			body       TEXT NOT NULL,
			expires_at INTEGER,
			PRIMARY KEY (partition, sort)
		) STRICT, WITHOUT ROWID;
		CREATE INDEX items_expiring ON items (expires_at) WHERE expires_at IS NOT NULL;

		CREATE TABLE messages (
			id         INTEGER PRIMARY KEY AUTOINCREMENT,
			queue      TEXT NOT NULL,
			visible_at INTEGER NOT NULL, -- when it may be delivered, the next time or at all
			attempts   INTEGER NOT NULL, -- deliveries so far
			receipt    TEXT,             -- of the delivery that holds it
			sent_at    INTEGER NOT NULL,
			dead_at    INTEGER,          -- when it became a dead letter
			body       TEXT NOT NULL
		) STRICT;
		CREATE INDEX messages_due ON messages (queue, visible_at) WHERE dead_at IS NULL;
		CREATE INDEX messages_dead ON messages (queue, dead_at) WHERE dead_at IS NOT NULL`,
	}
}
