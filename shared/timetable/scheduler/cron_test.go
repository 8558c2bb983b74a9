package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	simulated "runnerhub/infra/scheduler"
	"runnerhub/shared/fault"
	"runnerhub/shared/timetable"
)

func TestExpressions(t *testing.T) {
	t.Parallel()
	for cron, want := range map[string]string{
		"* * * * *":                     "cron(* * * * ? *)",
		"*/5 0-23/12 1,15 JAN-mar *":    "cron(0,5,10,15,20,25,30,35,40,45,50,55 0,12 1,15 1-3 ? *)",
		"0 9 * * MON-FRI":               "cron(0 9 ? * 2-6 *)",
		"0 9 * * 0":                     "cron(0 9 ? * 1 *)",
		"0 9 * * 7":                     "cron(0 9 ? * 1 *)",
		"0 9 * * 6-7":                   "cron(0 9 ? * 1,7 *)",
		"0 9 * * */2":                   "cron(0 9 ? * 1,3,5,7 *)",
		"0 9 */10 * *":                  "cron(0 9 1,11,21,31 * ? *)",
		"0 9 */10 * 0-6":                "cron(0 9 1,11,21,31 * ? *)",
		"0 9 */1 * FRI":                 "cron(0 9 ? * 6 *)",
		"0 9 13 * */1":                  "cron(0 9 13 * ? *)",
		"0 9 13 * FRI":                  "cron(0 9 13 * ? *) cron(0 9 ? * 6 *)",
		"0 9 1-31 * FRI":                "cron(0 9 * * ? *)",
		"0 9 13 * 1-7":                  "cron(0 9 * * ? *)",
		"0 9 31 4,6 FRI":                "cron(0 9 ? 4,6 6 *)", // no 31st in these
		"0 9 30,31 2,4 FRI":             "cron(0 9 30-31 2,4 ? *) cron(0 9 ? 2,4 6 *)",
		"1-3,5,6,58-59,0 1 * 2,3,5,6 *": "cron(0-3,5-6,58-59 1 * 2-3,5-6 ? *)",
	} {
		got, err := expressions(timetable.Schedule{ID: "s", Cron: cron, Zone: "UTC"})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q becomes %q, %v; want %q", cron, got, err, want)
		}
	}
	if _, err := expressions(timetable.Schedule{ID: "s", Cron: "61 * * * *", Zone: "UTC"}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// The longest that can come out keeps to the 256 characters of an expression: pairs of values, which no range shortens.
func TestExpressionsAreShort(t *testing.T) {
	t.Parallel()
	pairs := func(from, to int) string {
		var all []string
		for v := from; v+1 <= to; v += 3 {
			all = append(all, fmt.Sprintf("%d-%d", v, v+1))
		}
		return strings.Join(all, ",")
	}
	cron := strings.Join([]string{pairs(0, 59), pairs(0, 23), pairs(1, 31) + ",31", pairs(1, 12), "*"}, " ")
	got, err := expressions(timetable.Schedule{ID: "s", Cron: cron, Zone: "UTC"})
	if err != nil || len(got) != 1 || len(got[0]) > 256 || len(got[0]) < 230 {
		t.Errorf("%q becomes %q, of %d characters, %v", cron, got, len(got[0]), err)
	}
}

// Over expressions, zones and moments made at random, changes of clocks among them, EventBridge comes at the same
// minutes as timetable.Schedule.Next says, except for the times that clocks leave out.
func TestExpressionsMeanTheSame(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	zones := []string{
		"UTC", "Asia/Kathmandu", "Europe/Berlin", "America/New_York", "America/Santiago", "America/Havana", "Australia/Lord_Howe", "Europe/Dublin", "Africa/Casablanca",
		"Asia/Beirut", "America/Asuncion", "Pacific/Apia",
	}
	compared, leftOut, pairs := 0, 0, 0
	for range 2500 {
		s := timetable.Schedule{ID: "s", Cron: randomCron(r), Zone: zones[r.IntN(len(zones))]}
		if s.Check() != nil {
			continue
		}
		zone, err := time.LoadLocation(s.Zone)
		if err != nil {
			t.Fatal(err)
		}
		texts, err := expressions(s)
		if err != nil {
			t.Fatal(err)
		}
		if len(texts) == 2 {
			pairs++
		}
		var parsed []*simulated.Expression
		for _, text := range texts {
			e, err := simulated.Parse(text, s.Zone)
			if err != nil || len(text) > 256 {
				t.Fatalf("%q of %q: %v", text, s.Cron, err)
			}
			parsed = append(parsed, e)
		}
		at := start(r, zone)
		for range 8 {
			want, err := s.Next(at)
			if err != nil {
				t.Fatal(err)
			}
			got := earliest(parsed, at)
			if !got.Equal(want) && forward(want, zone) && got.After(want) {
				leftOut++
			} else if !got.Equal(want) {
				t.Fatalf("%q in %s becomes %q: after %v it comes at %v, and should at %v", s.Cron, s.Zone, texts, at, got, want)
			}
			compared++
			at = want
		}
	}
	if compared < 5000 || leftOut < 20 || pairs < 50 {
		t.Errorf("only %d compared, %d left out, %d schedules of two entries", compared, leftOut, pairs)
	}
}

func earliest(expressions []*simulated.Expression, after time.Time) (first time.Time) {
	for _, e := range expressions {
		if at, ok := e.Next(after); ok && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// forward reports whether clocks go forward at this moment.
func forward(at time.Time, zone *time.Location) bool {
	_, before := at.Add(-time.Second).In(zone).Zone()
	_, after := at.In(zone).Zone()
	return after > before
}

// start is a moment, every other time shortly before clocks change.
func start(r *rand.Rand, zone *time.Location) time.Time {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(r.IntN(4*365*24*60)) * time.Minute)
	if _, change := at.In(zone).ZoneBounds(); !change.IsZero() && r.IntN(2) == 0 {
		return change.UTC().Add(-time.Duration(r.IntN(180)) * time.Minute)
	}
	return at
}

// randomCron makes expressions that are due often enough to be compared, and all that the dialect has.
func randomCron(r *rand.Rand) string {
	limits := [5][2]int{{0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 7}}
	var parts []string
	for i, l := range limits {
		value := func() int { return l[0] + r.IntN(l[1]-l[0]+1) }
		span := func() string {
			ends := []int{value(), value()}
			slices.Sort(ends)
			return fmt.Sprintf("%d-%d", ends[0], ends[1])
		}
		forms := []func() string{
			func() string { return "*" },
			func() string { return "*" },
			func() string { return fmt.Sprintf("*/%d", 1+r.IntN(l[1])) },
			span,
			func() string { return fmt.Sprintf("%s/%d", span(), 1+r.IntN(l[1])) },
			func() string { return fmt.Sprintf("%d,%s", value(), span()) },
			func() string { return fmt.Sprint(value()) },
		}
		if i == 1 && r.IntN(2) == 0 { // the hours in which clocks change
			parts = append(parts, []string{"0", "1", "2", "0-3", "23,0"}[r.IntN(5)])
			continue
		}
		if i > 1 && r.IntN(2) == 0 {
			parts = append(parts, "*")
			continue
		}
		parts = append(parts, forms[r.IntN(len(forms))]())
	}
	return strings.Join(parts, " ")
}
