package tabletest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

func versions(t *testing.T, tb table.Table) {
	k := key("p", "s")
	_, err := tb.Get(t.Context(), k)
	wantKind(t, "reading what is absent", err, fault.NotFound)
	for want := int64(1); want <= 3; want++ {
		// The version a caller happens to have in his item is ignored.
		must(t, tb, table.Put(table.Item{Key: k, Version: 77, Body: []byte("{}")}, always()))
		if got := get(t, tb, k); got.Version != want || got.Key != k {
			t.Errorf("after %d puts: %+v", want, got)
		}
	}
	must(t, tb, table.Check(k, table.VersionIs(3)))
	if got := get(t, tb, k).Version; got != 3 {
		t.Errorf("a check raised the version to %d", got)
	}
	must(t, tb, table.Delete(k, always()))
	must(t, tb, table.Delete(k, always())) // what is absent already
	must(t, tb, put("p", "s", "{}", always()))
	if got := get(t, tb, k).Version; got != 1 {
		t.Errorf("after a deletion versions begin at %d", got)
	}
}

// conditions tries each action under each condition against each stored state.
func conditions(t *testing.T, tb table.Table) {
	for stored := int64(0); stored <= 2; stored++ {
		for name, c := range map[string]struct {
			condition table.Condition
			holds     bool
		}{
			"always": {always(), true}, "absent": {table.Absent(), stored == 0},
			"version 1": {table.VersionIs(1), stored == 1}, "version 2": {table.VersionIs(2), stored == 2},
		} {
			for action, a := range map[string]struct {
				write func(table.Key) table.Write
				after int64
			}{
				"put":    {func(k table.Key) table.Write { return put(k.Partition, k.Sort, "new", c.condition) }, stored + 1},
				"delete": {func(k table.Key) table.Write { return table.Delete(k, c.condition) }, 0},
				"check":  {func(k table.Key) table.Write { return table.Check(k, c.condition) }, stored},
			} {
				if action == "check" && name == "always" {
					continue // refused: see refusedWrites
				}
				k := key("conditions", fmt.Sprintf("%s of version %d if %s", action, stored, name))
				for range stored {
					must(t, tb, put(k.Partition, k.Sort, "old", always()))
				}
				err := tb.Transact(t.Context(), a.write(k))
				want := stored
				if c.holds {
					want = a.after
				}
				if c.holds != (err == nil) || !c.holds && (!lost(err) || !table.Failed(err, 0)) {
					t.Errorf("%s: %v", k.Sort, err)
				}
				item := get(t, tb, k)
				if item.Version != want || item.Version > stored != (string(item.Body) == "new") {
					t.Errorf("%s: left version %d, body %q", k.Sort, item.Version, item.Body)
				}
			}
		}
	}
}

func failedIndexes(t *testing.T, tb table.Table) {
	must(t, tb, put("p", "there", "{}", always()))
	good := func(n int) table.Write { return put("p", "new "+strconv.Itoa(n), "{}", table.Absent()) }
	bad := put("p", "there", "{}", table.Absent())
	gone := table.Check(key("p", "gone"), table.VersionIs(1))
	for name, test := range map[string]struct {
		writes []table.Write
		failed []int
	}{
		"the first":   {[]table.Write{bad, good(1), good(2)}, []int{0}},
		"the last":    {[]table.Write{good(1), good(2), table.Delete(key("p", "x"), always()), bad}, []int{3}},
		"two of four": {[]table.Write{good(1), gone, good(2), bad}, []int{1, 3}},
		"only a check": {[]table.Write{
			good(1), table.Delete(key("p", "there2"), always()), put("p", "new 3", "{}", always()), gone,
		}, []int{3}},
	} {
		err := tb.Transact(t.Context(), test.writes...)
		if !lost(err) {
			t.Errorf("%s: %v", name, err)
		}
		for i := range test.writes {
			if table.Failed(err, i) != slices.Contains(test.failed, i) {
				t.Errorf("%s: write %d is reported wrongly: %v", name, i, err)
			}
		}
		if got := all(t, tb, table.Query{Partition: "p"}); !slices.Equal(got, []string{"there"}) {
			t.Errorf("%s: a failed transaction left %q", name, got)
		}
	}
	if got := get(t, tb, key("p", "there")).Version; got != 1 {
		t.Errorf("failed transactions raised a version to %d", got)
	}
}

func oneCreates(t *testing.T, tb table.Table) {
	for round := range 5 {
		k := key("race", strconv.Itoa(round))
		var winners atomic.Int64
		var winner atomic.Value
		together(t, 32, func(ctx context.Context, n int) error {
			body := strconv.Itoa(n)
			err := tb.Transact(ctx, put("race "+body, "mine", body, always()), put(k.Partition, k.Sort, body, table.Absent()))
			if err == nil {
				winners.Add(1)
				winner.Store(body)
			}
			if lost(err) {
				return nil
			}
			return err
		})
		if winners.Load() != 1 {
			t.Fatalf("%d of 32 created the same item", winners.Load())
		}
		if got := string(get(t, tb, k).Body); got != winner.Load() {
			t.Errorf("%s won, and %s is stored", winner.Load(), got)
		}
		for n := range 32 {
			mine := get(t, tb, key(fmt.Sprintf("race %d", n), "mine")).Version
			if won := strconv.Itoa(n) == winner.Load(); won != (mine == 1) {
				t.Errorf("the other half of transaction %d has version %d, won: %t", n, mine, won)
			}
			must(t, tb, table.Delete(key(fmt.Sprintf("race %d", n), "mine"), always()))
		}
	}
}

func noUpdateLost(t *testing.T, tb table.Table) {
	const writers, each = 32, 5
	k := key("counter", "n")
	must(t, tb, put(k.Partition, k.Sort, "0", table.Absent()))
	together(t, writers, func(ctx context.Context, _ int) error {
		for range each {
			err := update(ctx, tb, []table.Key{k}, func(items []table.Item) []table.Write {
				n, _ := strconv.Atoi(string(items[0].Body))
				return []table.Write{put(k.Partition, k.Sort, strconv.Itoa(n+1), table.VersionIs(items[0].Version))}
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if got := get(t, tb, k); string(got.Body) != strconv.Itoa(writers*each) || got.Version != 1+writers*each {
		t.Errorf("%d updates left %s at version %d", writers*each, got.Body, got.Version)
	}
}

// transfersKeepTheSum moves amounts between items that each transaction checks and
// writes two of.
func transfersKeepTheSum(t *testing.T, tb table.Table) {
	const accounts, start = 4, 1000
	keys := make([]table.Key, accounts)
	for i := range keys {
		keys[i] = key("account "+strconv.Itoa(i), "balance")
		must(t, tb, put(keys[i].Partition, keys[i].Sort, strconv.Itoa(start), always()))
	}
	together(t, 8, func(ctx context.Context, n int) error {
		for round := range 10 {
			from, to := (n+round)%accounts, (n+round*2+1)%accounts
			if from == to {
				to = (to + 1) % accounts
			}
			err := update(ctx, tb, []table.Key{keys[from], keys[to]}, func(items []table.Item) []table.Write {
				var writes []table.Write
				for i, by := range []int{-7, 7} {
					balance, _ := strconv.Atoi(string(items[i].Body))
					writes = append(writes, put(items[i].Key.Partition, items[i].Key.Sort, strconv.Itoa(balance+by), table.VersionIs(items[i].Version)))
				}
				return writes
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	sum, written := 0, int64(0)
	for _, k := range keys {
		item := get(t, tb, k)
		balance, _ := strconv.Atoi(string(item.Body))
		sum += balance
		written += item.Version - 1
	}
	if sum != accounts*start || written != 8*10*2 {
		t.Errorf("the sum is %d after %d writes, want %d after %d", sum, written, accounts*start, 8*10*2)
	}
}

// acknowledgedIsReadable has readers run beside a writer: whatever was acknowledged
// before a read began must be seen by it.
func acknowledgedIsReadable(t *testing.T, tb table.Table) {
	k := key("p", "n")
	must(t, tb, put(k.Partition, k.Sort, "{}", always()))
	var acknowledged atomic.Int64
	acknowledged.Store(1)
	const last = 100
	together(t, 4, func(ctx context.Context, n int) error {
		for acknowledged.Load() < last {
			if n == 0 {
				if err := tb.Transact(ctx, put(k.Partition, k.Sort, "{}", table.VersionIs(acknowledged.Load()))); err != nil {
					return err
				}
				acknowledged.Add(1)
				continue
			}
			before := acknowledged.Load()
			item, err := tb.Get(ctx, k)
			if err != nil {
				return err
			}
			page, err := tb.Query(ctx, table.Query{Partition: k.Partition})
			if err != nil {
				return err
			}
			if item.Version < before || len(page.Items) != 1 || page.Items[0].Version < item.Version {
				return fmt.Errorf("version %d was acknowledged; then Get saw %d and Query %+v", before, item.Version, page.Items)
			}
		}
		return nil
	})
}

func limits(t *testing.T, tb table.Table) {
	const name = 10 // bytes of each key below
	item := func(i, size int) table.Write {
		return put("limit", fmt.Sprintf("%05d", i), strings.Repeat("x", size-name), always())
	}
	full := func(count, size int) (writes []table.Write) {
		for i := range count {
			writes = append(writes, item(i, size))
		}
		return writes
	}
	whole := table.MaxBytes / table.MaxItems
	for _, test := range []struct {
		name   string
		writes []table.Write
		kind   fault.Kind
		fits   bool
	}{
		{"no write", nil, fault.Invalid, false},
		{"one write too many", full(table.MaxItems+1, 20), fault.Invalid, false},
		{"an item too large", full(1, table.MaxItemBytes+1), fault.TooLarge, false},
		{"a transaction too large", append(full(table.MaxItems-1, whole), item(table.MaxItems, table.MaxBytes-(table.MaxItems-1)*whole+1)), fault.TooLarge, false},
		{"the largest item", full(1, table.MaxItemBytes), 0, true},
		{"the most writes and bytes", full(table.MaxItems, whole), 0, true},
	} {
		err := tb.Transact(t.Context(), test.writes...)
		if test.fits {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			if got := all(t, tb, table.Query{Partition: "limit"}); len(got) != len(test.writes) {
				t.Errorf("%s: %d items of %d are there", test.name, len(got), len(test.writes))
			}
			continue
		}
		wantKind(t, test.name, err, test.kind)
		if got := all(t, tb, table.Query{Partition: "limit"}); len(got) != 0 {
			t.Errorf("%s: what was refused left %d items", test.name, len(got))
		}
	}
}

func refusedWrites(t *testing.T, tb table.Table) {
	good := put("p", "good", "{}", always())
	for name, bad := range map[string]table.Write{
		"an empty partition":     put("", "s", "{}", always()),
		"an empty sort key":      put("p", "", "{}", always()),
		"a NUL":                  put("p", "a\x00b", "{}", always()),
		"no UTF-8":               put("p", "a\xff", "{}", always()),
		"a long sort key":        put("p", strings.Repeat("s", 1025), "{}", always()),
		"a long partition":       put(strings.Repeat("p", 1025), "s", "{}", always()),
		"the same key twice":     table.Delete(good.Item.Key, always()),
		"a check of nothing":     table.Check(key("p", "s"), always()),
		"version 0":              put("p", "s", "{}", table.VersionIs(0)),
		"a body that is no text": put("p", "s", "\xff", always()),
		"no action":              {},
	} {
		wantKind(t, name, tb.Transact(t.Context(), good, bad), fault.Invalid)
		if got := get(t, tb, good.Item.Key).Version; got != 0 {
			t.Errorf("%s: the rest was written", name)
		}
	}
	longest := key(strings.Repeat("é", 512), strings.Repeat("😀", 256))
	must(t, tb, table.Put(table.Item{Key: longest, Body: []byte("{}")}, always()))
	if got := get(t, tb, longest); got.Version != 1 || got.Key != longest {
		t.Error("the longest keys do not come back")
	}
}

func bodiesComeBack(t *testing.T, tb table.Table) {
	for i, body := range []string{"", "0", "1e3", "007", "null", `{"a":"é😀\u0000"}`, "{\n\t}\r\n ", strings.Repeat("ü", 100_000)} {
		k := key("body", strconv.Itoa(i))
		given := []byte(body)
		must(t, tb, table.Put(table.Item{Key: k, Body: given}, always()))
		for j := range given {
			given[j] = '!' // the caller's bytes are his own again
		}
		item := get(t, tb, k)
		if string(item.Body) != body {
			t.Errorf("the body %.20q came back as %.20q", body, item.Body)
		}
		for j := range item.Body {
			item.Body[j] = '!'
		}
		if again := get(t, tb, k); !bytes.Equal(again.Body, []byte(body)) {
			t.Errorf("a reader changed the stored body %.20q", body)
		}
	}
}

func expiry(t *testing.T, tb table.Table) {
	k := key("p", "s")
	at := time.Now().Add(time.Hour).UTC()
	for _, want := range []time.Time{at.Truncate(time.Second), {}, at.Add(24 * time.Hour).Truncate(time.Second)} {
		must(t, tb, table.Put(table.Item{Key: k, Body: []byte("{}"), ExpiresAt: want}, always()))
		if got := get(t, tb, k).ExpiresAt; !got.Equal(want) {
			t.Errorf("ExpiresAt is %v, want %v", got, want)
		}
		page, err := tb.Query(t.Context(), table.Query{Partition: "p"})
		if err != nil || len(page.Items) != 1 || !page.Items[0].ExpiresAt.Equal(want) {
			t.Errorf("the query answers %+v, %v, want %v", page.Items, err, want)
		}
	}
}

// together runs n goroutines that all begin at once.
func together(t *testing.T, n int, do func(ctx context.Context, n int) error) {
	t.Helper()
	begin := make(chan struct{})
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			<-begin
			if err := do(t.Context(), i); err != nil {
				t.Errorf("goroutine %d: %v", i, err)
			}
		})
	}
	close(begin)
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
