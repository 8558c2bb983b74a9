package tabletest

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"runnerhub/shared/crashtest"
	"runnerhub/shared/table"
)

// streams is how many goroutines of the child write at once.
const streams = 4

// killed kills a process in the middle of several streams of transactions, again
// and again on the same place: each transaction it acknowledged is there whole, and of the
// others none is there by half.
func killed(t *testing.T, h Harness) {
	address := h.New(t)
	acknowledged := make([]int, streams)
	for _, lines := range []int{1, 40, 97, 230} {
		child := crashtest.Start(t, "transact", address)
		said := make([]string, 0, lines)
		for range lines {
			said = append(said, child.Line())
		}
		said = append(said, child.Kill()...)
		for _, line := range said {
			var stream, n int
			if _, err := fmt.Sscanf(line, "%d %d", &stream, &n); err != nil {
				t.Fatalf("the child said %q", line)
			}
			acknowledged[stream] = max(acknowledged[stream], n)
		}
		tb, closing, err := h.Open(address)
		if err != nil {
			t.Fatalf("opening after the kill: %v", err)
		}
		for stream, n := range acknowledged {
			last, _ := strconv.Atoi(string(get(t, tb, counter(stream)).Body))
			if last < n || last > n+1 {
				t.Errorf("stream %d: %d was acknowledged, %d is stored", stream, n, last)
			}
			acknowledged[stream] = last // what the child had no time to say counts as well
			if got := all(t, tb, table.Query{Partition: counter(stream).Partition, Before: "counter", Limit: 1000}); len(got) != 3*last {
				t.Errorf("stream %d: %d transactions left %d items, want %d", stream, last, len(got), 3*last)
			}
		}
		if err := closing(); err != nil {
			t.Fatal(err)
		}
	}
}

func counter(stream int) table.Key { return key("stream "+strconv.Itoa(stream), "counter") }

// transactUntilKilled goes on with each stream where it ended: a transaction puts
// three items and counts itself.
func (h Harness) transactUntilKilled(args []string, say func(string)) error {
	tb, _, err := h.Open(args[0])
	if err != nil {
		return err
	}
	failed := make(chan error)
	for stream := range streams {
		go func() {
			for {
				n, err := oneMore(tb, stream)
				if err != nil {
					failed <- err
					return
				}
				say(fmt.Sprintf("%d %d", stream, n))
			}
		}()
	}
	return <-failed
}

func oneMore(tb table.Table, stream int) (n int, err error) {
	ctx, k := context.Background(), counter(stream)
	items, err := tb.BatchGet(ctx, []table.Key{k})
	if err != nil {
		return 0, err
	}
	condition := table.Absent()
	if len(items) > 0 {
		n, _ = strconv.Atoi(string(items[0].Body))
		condition = table.VersionIs(items[0].Version)
	}
	n++
	var writes []table.Write
	for _, part := range []string{"a", "b", "c"} {
		writes = append(writes, put(k.Partition, fmt.Sprintf("%06d %s", n, part), "{}", table.Absent()))
	}
	return n, tb.Transact(ctx, append(writes, put(k.Partition, k.Sort, strconv.Itoa(n), condition))...)
}
