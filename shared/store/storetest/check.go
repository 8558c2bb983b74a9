package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/datafile"
	"runnerhub/shared/store"
	"runnerhub/shared/table"
)

// Dump answers every item by its key. Versions are left out: a change made twice,
// because its first outcome was not learned, counts one more.
func (b *Bench) Dump(t testing.TB) map[table.Key]string {
	t.Helper()
	return b.dump(t)
}

func (b *Bench) items(t testing.TB) map[table.Key]string {
	t.Helper()
	items := map[table.Key]string{}
	err := b.File.Read(context.Background(), func(tx *datafile.Tx) error {
		return tx.Query(func(scan func(...any) error) (bool, error) {
			var k table.Key
			var body string
			err := scan(&k.Partition, &k.Sort, &body)
			items[k] = body
			return true, err
		}, `SELECT partition, sort, body FROM items`)
	})
	if err != nil {
		t.Fatal(err)
	}
	return items
}

// Check fails the test where an index says something else than its records: due
// entries, the line before a runner, its slots, tickets, numbers, groups and their turns, and statuses.
func (b *Bench) Check(t testing.TB) {
	t.Helper()
	items := b.Dump(t)
	builds := decode[store.Build](t, items, "BUILD#", "BUILD")
	statuses := decode[store.Status](t, items, "STATUS#", "")
	want := map[string]string{}
	due := func(kind, reference string, at time.Time) {
		if !at.IsZero() {
			want["due "+kind+" "+reference+" "+at.UTC().Format(time.RFC3339Nano)] = ""
		}
	}
	newest := map[store.StatusRef]store.Build{}
	count := map[string]int{}
	for _, x := range builds {
		due(store.DueBuild, x.ID, x.DueAt)
		want[fmt.Sprintf("number %s %d", x.App, x.Number)] = x.ID
		count[x.App]++
		if x.Group != "" && !x.State.Final() {
			rank := 1
			if x.Supersedes {
				rank = 0
			}
			want[fmt.Sprintf("group %s %x#%d#%010d", x.App, sha256.Sum256([]byte(x.Group)), rank, x.Number)] = x.ID
		}
		if x.Queues && x.Group != "" && !x.State.Final() && !x.Held {
			turn := fmt.Sprintf("turn %s %x#0", x.App, sha256.Sum256([]byte(x.Group)))
			if has, two := want[turn]; two && x.Place == "" {
				t.Errorf("it is the turn of %s and of %s", has, x.ID)
			}
			if x.Place != "" {
				turn = strings.TrimSuffix(turn, "0") + "1#" + x.Place
			}
			want[turn] = x.ID
		}
		switch {
		case x.State.Final():
			if x.Held {
				t.Errorf("build %s is %s and held", x.ID, x.State)
			}
			if x.Place != "" {
				t.Errorf("build %s is %s and has a place at %s", x.ID, x.State, x.Place)
			}
		case x.Held:
			want[fmt.Sprintf("held %s %010d#%s", x.App, x.PullRequest, x.ID)] = x.ID
		case x.Place != "":
			if x.Attempt != "" {
				t.Errorf("build %s waits for its turn and has an attempt", x.ID)
			}
		case x.Attempt == "":
			want["waiting "+x.Runner+" "+x.ID] = x.Workspace
		default:
			want["slot "+x.Runner+" "+x.ID] = x.Workspace
		}
		if x.Ticket != "" {
			want["ticket "+x.Ticket] = x.ID
		}
		if (x.Ticket != "" || !x.DueAt.IsZero()) && x.State.Final() {
			t.Errorf("build %s is %s and has ticket %q, due at %s", x.ID, x.State, x.Ticket, x.DueAt)
		}
		if ref := store.StatusOf(x); newest[ref].Number < x.Number {
			newest[ref] = x
		}
	}
	for _, app := range slices.Sorted(maps.Keys(count)) {
		want["counter "+app] = fmt.Sprint(count[app]) // so there are no gaps
	}
	for ref, x := range newest {
		want["status "+ref.String()] = x.ID + " " + string(x.State.Status())
	}
	got := map[string]string{}
	for _, st := range statuses {
		due(store.DueStatus, st.Ref().String(), st.DueAt)
		got["status "+st.Ref().String()] = st.Build + " " + string(st.State)
		if st.Settled() && !st.DueAt.IsZero() {
			t.Errorf("status %s is settled and due at %s", st.Ref(), st.DueAt)
		}
	}
	for _, d := range decode[store.Delivery](t, items, "DELIVERY#", "DELIVERY") {
		due(store.DueDelivery, d.ID, d.DueAt)
	}
	for _, g := range decode[store.Grant](t, items, "CONNECTION#", "TOKEN") {
		due(store.DueConnection, g.Connection, g.DueAt)
	}
	for k, body := range items {
		index(t, got, k, body)
		if app, is := strings.CutPrefix(k.Partition, "TURN#"); is {
			group, ends := strings.CutSuffix(k.Sort, "#0")
			if ends {
				due(store.DueTurn, app+"/"+group+"#", read[struct {
					DueAt time.Time `json:"due_at"`
				}](t, k, body).DueAt)
			} else if group, _, _ = strings.Cut(k.Sort, "#"); items[table.Key{Partition: k.Partition, Sort: group + "#0"}] == "" {
				t.Errorf("%s waits for a turn that nobody has", k)
			}
		}
		if _, is := strings.CutPrefix(k.Sort, "SCHEDULE#"); is {
			v := read[store.Schedule](t, k, body)
			due(store.DueSchedule, v.ID, v.DueAt)
			want["schedule "+v.ID] = v.App
			if v.Deleted && (v.Active || v.DueAt.IsZero()) {
				t.Errorf("schedule %s is deleted, active %v, due at %s", v.ID, v.Active, v.DueAt)
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if had, ok := got[k]; !ok || had != want[k] {
			t.Errorf("the records want %q = %q, stored is %q (%v)", k, want[k], had, ok)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[k]; !ok {
			t.Errorf("stored is %q = %q, of which no record knows", k, got[k])
		}
	}
}

// index notes what an item says of records elsewhere.
func index(t testing.TB, got map[string]string, k table.Key, body string) {
	t.Helper()
	kind, of, _ := strings.Cut(k.Partition, "#")
	switch kind {
	case "DUE":
		d := read[store.Due](t, k, body)
		got["due "+d.Kind+" "+d.Reference+" "+d.At.UTC().Format(time.RFC3339Nano)] = ""
	case "WAITING":
		w := read[struct{ Build, Workspace string }](t, k, body)
		got["waiting "+of+" "+w.Build] = w.Workspace
	case "SLOTS":
		for build, workspace := range read[struct{ Builds map[string]string }](t, k, body).Builds {
			got["slot "+of+" "+build] = workspace
		}
	case "SCHEDULE":
		got["schedule "+of] = read[string](t, k, body)
	case "TURN":
		got["turn "+of+" "+k.Sort] = read[struct{ Build string }](t, k, body).Build
	case "GROUP":
		got["group "+of+" "+k.Sort] = read[string](t, k, body)
	case "TICKET":
		got["ticket "+of] = read[struct{ Build string }](t, k, body).Build
	case "HELD":
		got["held "+of+" "+k.Sort] = read[string](t, k, body)
	case "APP":
		if k.Sort == "COUNTER" {
			got["counter "+of] = body
		}
		if number, ok := strings.CutPrefix(k.Sort, "BUILD#"); ok {
			got["number "+of+" "+strings.TrimLeft(number, "0")] = read[string](t, k, body)
		}
	}
}

// decode reads the records in partitions with a prefix under a sort key, or under
// any when sort is empty.
func decode[T any](t testing.TB, items map[table.Key]string, prefix, sort string) []T {
	t.Helper()
	var out []T
	for k, body := range items {
		if strings.HasPrefix(k.Partition, prefix) && (sort == "" || k.Sort == sort) {
			out = append(out, read[T](t, k, body))
		}
	}
	return out
}

func read[T any](t testing.TB, k table.Key, body string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("the item at %s: %v", k, err)
	}
	return v
}
