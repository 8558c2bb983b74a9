package tabletest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// fill puts empty items with the sort keys.
func fill(t *testing.T, tb table.Table, partition string, sorts ...string) {
	t.Helper()
	for some := range slices.Chunk(sorts, table.MaxItems) {
		var writes []table.Write
		for _, s := range some {
			writes = append(writes, put(partition, s, "{}", always()))
		}
		must(t, tb, writes...)
	}
}

func batchGet(t *testing.T, tb table.Table) {
	var keys []table.Key
	for i := range table.MaxItems {
		keys = append(keys, key(fmt.Sprintf("p%d", i%3), fmt.Sprintf("%02d", i)))
		if i%10 != 0 {
			must(t, tb, put(keys[i].Partition, keys[i].Sort, keys[i].Sort, always()))
		}
	}
	slices.Reverse(keys)
	items, err := tb.BatchGet(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	present := slices.DeleteFunc(slices.Clone(keys), func(k table.Key) bool { return strings.HasSuffix(k.Sort, "0") })
	if len(items) != len(present) {
		t.Fatalf("%d items, want %d", len(items), len(present))
	}
	for i, item := range items {
		if item.Key != present[i] || string(item.Body) != item.Key.Sort || item.Version != 1 {
			t.Errorf("item %d is %+v, want %s", i, item, present[i])
		}
	}
	if items, err = tb.BatchGet(t.Context(), nil); err != nil || len(items) != 0 {
		t.Errorf("no keys answer %v, %v", items, err)
	}
	if items, err = tb.BatchGet(t.Context(), []table.Key{present[0], present[1], present[0]}); err != nil || len(items) != 3 || items[0].Key != items[2].Key {
		t.Errorf("a key given twice answers %v, %v", items, err)
	}
	_, err = tb.BatchGet(t.Context(), append(keys, key("p", "one more")))
	wantKind(t, "too many keys", err, fault.Invalid)
	_, err = tb.BatchGet(t.Context(), []table.Key{key("p", "")})
	wantKind(t, "an empty key", err, fault.Invalid)
	_, err = tb.Get(t.Context(), key("", "s"))
	wantKind(t, "an empty partition", err, fault.Invalid)
}

// awkward are sort keys whose byte order is not the order of letters, nor that of UTF-16.
func awkward() []string {
	return []string{
		"a", "A", "b", "Z", "aa", "a/", "a!", "a b", "é", "e", "z", "ä", "\u007f", "\u0080", "\ud7ff", "\ue000", "\uffff", "😀", "\U0010ffff",
		"\U0010ffffx", "10", "9", "-1", "e\u0301", " ", "\t", "日本", "日", "A\u0001",
	}
}

func byteOrder(t *testing.T, tb table.Table) {
	fill(t, tb, "p", awkward()...)
	fill(t, tb, "p/", "other")
	fill(t, tb, "P", "other")
	want := slices.Sorted(slices.Values(awkward()))
	for _, limit := range []int{0, 1, 4} {
		if got := all(t, tb, table.Query{Partition: "p", Limit: limit}); !slices.Equal(got, want) {
			t.Errorf("forwards %q, want %q", got, want)
		}
	}
	slices.Reverse(want)
	if got := all(t, tb, table.Query{Partition: "p", Limit: 5, Reverse: true}); !slices.Equal(got, want) {
		t.Errorf("backwards %q, want %q", got, want)
	}
}

func ranges(t *testing.T, tb table.Table) {
	sorts := slices.Sorted(slices.Values(awkward()))
	fill(t, tb, "p", sorts...)
	bounds := append([]string{"", "a0", "zz", "\U0010ffffz"}, sorts...)
	for _, from := range bounds {
		for _, before := range bounds {
			var want []string
			for _, s := range sorts {
				if s >= from && (before == "" || s < before) {
					want = append(want, s)
				}
			}
			q := table.Query{Partition: "p", From: from, Before: before}
			if got := all(t, tb, q); !slices.Equal(got, want) {
				t.Errorf("from %q before %q: %q, want %q", from, before, got, want)
			}
			slices.Reverse(want)
			q.Reverse, q.Limit = true, 10
			if got := all(t, tb, q); !slices.Equal(got, want) {
				t.Errorf("backwards from %q before %q: %q, want %q", from, before, got, want)
			}
		}
	}
	if got := all(t, tb, table.Query{Partition: "nothing here"}); len(got) != 0 {
		t.Errorf("an empty partition has %q", got)
	}
}

func prefixes(t *testing.T, tb table.Table) {
	sorts := slices.Sorted(slices.Values(awkward()))
	fill(t, tb, "p", sorts...)
	for _, prefix := range append([]string{"", "nothing", "\U0010ffff\U0010ffff"}, sorts...) {
		var want []string
		for _, s := range sorts {
			if strings.HasPrefix(s, prefix) {
				want = append(want, s)
			}
		}
		from, before := table.Prefix(prefix)
		if got := all(t, tb, table.Query{Partition: "p", From: from, Before: before}); !slices.Equal(got, want) {
			t.Errorf("the prefix %q has %q, want %q", prefix, got, want)
		}
	}
}

func numbered(n int) []string {
	sorts := make([]string, n)
	for i := range sorts {
		sorts[i] = fmt.Sprintf("%04d", i)
	}
	return sorts
}

func pages(t *testing.T, tb table.Table) {
	sorts := numbered(250)
	fill(t, tb, "p", sorts...)
	for _, limit := range []int{0, 1, 7, 125, 250, 251, 1000} {
		for _, reverse := range []bool{false, true} {
			want := slices.Clone(sorts)
			if reverse {
				slices.Reverse(want)
			}
			if got := all(t, tb, table.Query{Partition: "p", Limit: limit, Reverse: reverse}); !slices.Equal(got, want) {
				t.Errorf("limit %d, reverse %t: %d items of %d, or not in order", limit, reverse, len(got), len(want))
			}
		}
	}
	for limit, most := range map[int]int{0: 100, 3: 3} {
		if page, err := tb.Query(t.Context(), table.Query{Partition: "p", Limit: limit}); err != nil || len(page.Items) > most {
			t.Errorf("a page of limit %d has %d items, %v", limit, len(page.Items), err)
		}
	}
	_, err := tb.Query(t.Context(), table.Query{Partition: "p", Limit: -1})
	wantKind(t, "a negative limit", err, fault.Invalid)
	_, err = tb.Query(t.Context(), table.Query{})
	wantKind(t, "no partition", err, fault.Invalid)
	_, err = tb.Query(t.Context(), table.Query{Partition: "p", From: "\xff"})
	wantKind(t, "a bound that is no text", err, fault.Invalid)
}

// writesBetweenPages changes the partition while it is read: what stays is seen
// exactly once, in order; what comes or goes may be seen or not.
func writesBetweenPages(t *testing.T, tb table.Table) {
	for _, reverse := range []bool{false, true} {
		partition := fmt.Sprintf("reverse %t", reverse)
		sorts := numbered(60)
		fill(t, tb, partition, sorts...)
		gone := map[string]bool{}
		var seen []string
		for q := (table.Query{Partition: partition, Limit: 7, Reverse: reverse}); ; {
			page, err := tb.Query(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, item := range page.Items {
				seen = append(seen, item.Key.Sort)
			}
			if q.Cursor = page.Cursor; q.Cursor == "" {
				break
			}
			// The item at the cursor goes, one behind it and one before it come.
			last := seen[len(seen)-1]
			gone[last] = true
			must(t, tb, table.Delete(key(partition, last), always()),
				put(partition, last+"a", "{}", always()), put(partition, "+"+last, "{}", always()), put(partition, "~"+last, "{}", always()))
		}
		stayed := slices.DeleteFunc(slices.Clone(sorts), func(s string) bool { return gone[s] })
		ordered := slices.Clone(seen)
		slices.Sort(ordered)
		if reverse {
			slices.Reverse(ordered)
		}
		if !slices.Equal(seen, ordered) || len(slices.Compact(ordered)) != len(seen) {
			t.Errorf("reverse %t: not in order, or twice: %q", reverse, seen)
		}
		for _, s := range stayed {
			if !slices.Contains(seen, s) {
				t.Errorf("reverse %t: %q was there all the time and was not seen", reverse, s)
			}
		}
	}
}

// pageSize reads large items: pages end early, and nothing is lost by it.
func pageSize(t *testing.T, tb table.Table) {
	body := strings.Repeat("x", 300<<10)
	sorts := numbered(20)
	for _, s := range sorts {
		must(t, tb, put("p", s, body, always()))
	}
	for _, reverse := range []bool{false, true} {
		want := slices.Clone(sorts)
		if reverse {
			slices.Reverse(want)
		}
		if got := all(t, tb, table.Query{Partition: "p", Reverse: reverse, Limit: 1000}); !slices.Equal(got, want) {
			t.Errorf("reverse %t: %d items of %d, or not in order", reverse, len(got), len(want))
		}
	}
	page, err := tb.Query(t.Context(), table.Query{Partition: "p"})
	if most := table.MaxPageBytes/len(body) + 1; err != nil || len(page.Items) > most {
		t.Errorf("a page has %d items of 300 KiB, want at most %d: %v", len(page.Items), most, err)
	}
}

func cursors(t *testing.T, tb table.Table) {
	fill(t, tb, "p", numbered(20)...)
	fill(t, tb, "q", numbered(20)...)
	query := table.Query{Partition: "p", From: "0002", Before: "0018", Limit: 3}
	page, err := tb.Query(t.Context(), query)
	if err != nil || page.Cursor == "" {
		t.Fatalf("the first page: %v, cursor %q", err, page.Cursor)
	}
	for name, change := range map[string]func(*table.Query){
		"partition": func(q *table.Query) { q.Partition = "q" },
		"beginning": func(q *table.Query) { q.From = "0001" },
		"end":       func(q *table.Query) { q.Before = "" },
		"direction": func(q *table.Query) { q.Reverse = true },
		"cursor":    func(q *table.Query) { q.Cursor = "x" + q.Cursor },
		"nonsense":  func(q *table.Query) { q.Cursor = "nonsense!" },
		"truncated": func(q *table.Query) { q.Cursor = q.Cursor[:8] },
	} {
		other := query
		other.Cursor = page.Cursor
		change(&other)
		_, err := tb.Query(t.Context(), other)
		wantKind(t, "another "+name, err, fault.Invalid)
	}
	next := query
	next.Cursor, next.Limit = page.Cursor, 100
	if got := append(append([]string{}, sortsOf(page)...), all(t, tb, next)...); !slices.Equal(got, numbered(20)[2:18]) {
		t.Errorf("with another limit the pages hold %q", got)
	}
}

func sortsOf(page table.Page) (sorts []string) {
	for _, item := range page.Items {
		sorts = append(sorts, item.Key.Sort)
	}
	return sorts
}

func endedContext(t *testing.T, tb table.Table) {
	must(t, tb, put("p", "s", "{}", always()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tb.Get(ctx, key("p", "s")); err == nil {
		t.Error("Get went on")
	}
	if _, err := tb.BatchGet(ctx, []table.Key{key("p", "s")}); err == nil {
		t.Error("BatchGet went on")
	}
	if _, err := tb.Query(ctx, table.Query{Partition: "p"}); err == nil {
		t.Error("Query went on")
	}
	if err := tb.Transact(ctx, put("p", "s", "{}", always())); err == nil {
		t.Error("Transact went on")
	}
	if got := get(t, tb, key("p", "s")).Version; got != 1 {
		t.Errorf("a transaction whose context had ended left version %d", got)
	}
}
