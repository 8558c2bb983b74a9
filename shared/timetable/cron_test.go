package timetable

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/fault"
)

func TestNext(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, cron, zone, after string
		want                    string // the first times, with a space between; local times of the zone
	}{
		{"every minute", "* * * * *", "UTC", "2026-11-23T06:36:35Z", "2026-11-23T06:37:00Z 2026-11-23T06:38:00Z"},
		{"at the minute it is the next", "* * * * *", "UTC", "2026-11-23T06:36:00Z", "2026-11-23T06:37:00Z"},
		{"in a zone", "30 9 * * *", "Asia/Kathmandu", "2026-11-23T06:36:00Z", "2026-11-24T09:30:00+05:45"},
		{"names", "0 9 * JAN,jul MON-FRI", "UTC", "2026-11-23T06:36:00Z", "2027-01-01T09:00:00Z 2027-01-04T09:00:00Z"},
		{"Sunday is 0", "0 0 * * 0", "UTC", "2026-11-23T00:00:00Z", "2026-11-29T00:00:00Z"},
		{"Sunday is 7", "0 0 * * 7", "UTC", "2026-11-23T00:00:00Z", "2026-11-29T00:00:00Z"},
		{"up to Sunday", "0 0 * * 6-7", "UTC", "2026-11-23T00:00:00Z", "2026-11-28T00:00:00Z 2026-11-29T00:00:00Z 2026-12-05T00:00:00Z"},
		{"either day", "0 0 13 * FRI", "UTC", "2026-11-12T00:00:00Z", "2026-11-13T00:00:00Z 2026-11-20T00:00:00Z 2026-11-27T00:00:00Z 2026-12-04T00:00:00Z 2026-12-11T00:00:00Z 2026-12-13T00:00:00Z"},
		{"both days after a star", "0 0 */10 * MON", "UTC", "2026-11-01T00:00:00Z", "2026-12-21T00:00:00Z 2027-01-11T00:00:00Z"},
		{"the 31st", "0 0 31 * *", "UTC", "2026-08-31T00:00:00Z", "2026-10-31T00:00:00Z 2026-12-31T00:00:00Z"},
		{"29 February", "0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z 2032-02-29T00:00:00Z"},
		{"29 February over a century", "0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"steps", "5-59/20 */12 * * *", "UTC", "2026-11-23T00:30:00Z", "2026-11-23T00:45:00Z 2026-11-23T12:05:00Z"},

		// On 29 March 2026 clocks in Berlin go from 02:00 to 03:00.
		{"left out", "30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-28T02:30:00+01:00 2026-03-29T03:00:00+02:00 2026-03-30T02:30:00+02:00"},
		{"left out, and due anyway", "0,30 2-3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T03:00:00+02:00 2026-03-29T03:30:00+02:00 2026-03-30T02:00:00+02:00"},
		{"every minute, forward", "*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T01:30:00+01:00 2026-03-29T03:00:00+02:00 2026-03-29T03:30:00+02:00"},
		// On 25 October 2026 they go from 03:00 to 02:00.
		{"twice", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T02:30:00+02:00 2026-10-26T02:30:00+01:00"},
		{"twice, after the first", "30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z", "2026-10-26T02:30:00+01:00"},
		{"every half hour, back", "*/30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", "2026-10-25T02:00:00+02:00 2026-10-25T02:30:00+02:00 2026-10-25T03:00:00+01:00"},
		// At midnight, by half an hour, and by a whole day.
		{"midnight left out", "0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", "2026-09-06T01:00:00-03:00 2026-09-07T00:00:00-03:00"},
		{"midnight twice", "30 23 * * *", "America/Santiago", "2026-04-04T12:00:00Z", "2026-04-04T23:30:00-03:00 2026-04-05T23:30:00-04:00"},
		{"half an hour left out", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-04T02:30:00+11:00 2026-10-05T02:15:00+11:00"},
		{"half an hour twice", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", "2026-04-05T01:45:00+11:00 2026-04-06T01:45:00+10:30"},
		{"a day left out", "0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", "2011-12-29T12:00:00-10:00 2011-12-31T00:00:00+14:00 2011-12-31T12:00:00+14:00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			at, err := time.Parse(time.RFC3339, test.after)
			if err != nil {
				t.Fatal(err)
			}
			for want := range strings.FieldsSeq(test.want) {
				at, err = Schedule{ID: "s", Cron: test.cron, Zone: test.zone}.Next(at)
				wanted, _ := time.Parse(time.RFC3339, want)
				if err != nil || at != wanted.UTC() {
					t.Fatalf("next is %v, %v; want %v", at, err, wanted.UTC())
				}
			}
		})
	}
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	good := Schedule{ID: "a_Z-9", Cron: "*/5 0-23/2 1,15 JAN-dec sun,1-6", Zone: "America/Argentina/Buenos_Aires"}
	if err := good.Check(); err != nil {
		t.Errorf("%+v: %v", good, err)
	}
	for _, test := range []struct{ field, value, want string }{
		{"id", "", ""},
		{"id", "a.b", ""},
		{"id", "a/b", ""},
		{"id", strings.Repeat("a", 65), ""},
		{"cron", "", "has 0 fields"},
		{"cron", "* * * *", "has 4 fields"},
		{"cron", "0 * * * * *", "has 6 fields"},
		{"cron", "* * * * * 2026", "has 6 fields"},
		{"cron", "@daily", "has 1 fields"},
		{"cron", "60 * * * *", "minute"},
		{"cron", "* 24 * * *", "hour"},
		{"cron", "* * 0 * *", "day of month"},
		{"cron", "* * 32 * *", "day of month"},
		{"cron", "* * * 13 *", "month"},
		{"cron", "* * * 0 *", "month"},
		{"cron", "* * * * 8", "day of week"},
		{"cron", "MON * * * *", "minute"},
		{"cron", "* * * MON *", "month"},
		{"cron", "* * * * MONDAY", "day of week"},
		{"cron", "* * L * *", "day of month"},
		{"cron", "* * 1W * *", "day of month"},
		{"cron", "* * * * 1#2", "day of week"},
		{"cron", "* * ? * *", "day of month"},
		{"cron", "*/0 * * * *", "step"},
		{"cron", "*/60 * * * *", "step"},
		{"cron", "*/ * * * *", "step"},
		{"cron", "*/1/1 * * * *", "step"},
		{"cron", "5/10 * * * *", "5-59/"},
		{"cron", "5-1 * * * *", "backwards"},
		{"cron", "* * * * FRI-MON", "backwards"},
		{"cron", "1-2-3 * * * *", "minute"},
		{"cron", "1,,2 * * * *", "minute"},
		{"cron", ", * * * *", "minute"},
		{"cron", "*,5 * * * *", "*"},
		{"cron", "-1 * * * *", "minute"},
		{"cron", "+1 * * * *", "minute"},
		{"cron", "001 * * * *", "minute"},
		{"cron", "1_0 * * * *", "minute"},
		{"cron", "** * * * *", "minute"},
		{"cron", "0 0 31 2 *", "never comes"},
		{"cron", "0 0 */10 * MON", "either suffices"},
		{"cron", "0 0 1-7 * */2", "either suffices"},
		{"cron", "0 0 */2,5 * MON-FRI", "either suffices"},
		{"cron", "0 0 31 4,6,9,11 *", "never comes"},
		{"cron", strings.Repeat("1,", 300) + "1 * * * *", "longer"},
		{"zone", "", ""},
		{"zone", "Local", ""},
		{"zone", "Europe", ""},
		{"zone", "Mars/Olympus", ""},
		{"zone", "../../etc/passwd", ""},
		{"zone", "+01:00", ""},
	} {
		s := good
		switch test.field {
		case "id":
			s.ID = test.value
		case "cron":
			s.Cron = test.value
		case "zone":
			s.Zone = test.value
		}
		err := s.Check()
		message, name := fault.Public(err)
		if !fault.Is(err, fault.Invalid) || name != test.field || !strings.Contains(message, test.want) {
			t.Errorf("%s %.40q: %v of field %q; want %s with %q", test.field, test.value, err, name, test.field, test.want)
		}
	}
}

// The library is compared with the definition: minute by minute, over expressions made
// at random.
func TestNextAgreesWithTheDefinition(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		var parts []string
		for _, f := range fields() {
			parts = append(parts, randomField(r, f))
		}
		s := Schedule{ID: "s", Cron: strings.Join(parts, " "), Zone: "UTC"}
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(r.IntN(3*365*24*60)) * time.Minute)
		for range 3 {
			want, found := search(parts, at)
			got, err := s.Next(at)
			if !found {
				break // not within years
			}
			if err != nil || got != want {
				t.Fatalf("%q after %v: %v, %v; want %v", s.Cron, at, got, err, want)
			}
			at = got
		}
	}
}

// What begins with a star and means every day leaves the other day alone.
func TestCheckTakesStars(t *testing.T) {
	t.Parallel()
	for _, cron := range []string{"0 0 */1 * MON", "0 0 */10 * *", "0 0 13 * */1", "0 0 * * */2", "0 0 */2 * 0-6", "0 0 13 * FRI"} {
		if err := (Schedule{ID: "s", Cron: cron, Zone: "UTC"}).Check(); err != nil {
			t.Errorf("%q: %v", cron, err)
		}
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var parts []string
		var want [5][]int
		for i, f := range fields() {
			parts = append(parts, randomField(r, f))
			want[i] = values(parts[i], f)
			slices.Sort(want[i])
			want[i] = slices.Compact(want[i])
		}
		got, err := Schedule{ID: "s", Cron: strings.Join(parts, " "), Zone: "UTC"}.Fields()
		if err != nil || !reflect.DeepEqual([5][]int{got.Minutes, got.Hours, got.Days, got.Months, got.Weekdays}, want) ||
			got.Either != (parts[2][0] != '*' && parts[4][0] != '*') {
			t.Fatalf("%q: %+v, %v", parts, got, err)
		}
	}
	if _, err := (Schedule{Cron: "61 * * * *"}).Fields(); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// search is the definition, without the library: the first minute that matches.
func search(parts []string, after time.Time) (time.Time, bool) {
	var sets [5][]int
	for i, f := range fields() {
		sets[i] = values(parts[i], f)
	}
	star := func(i int) bool { return parts[i][0] == '*' }
	day := func(t time.Time) bool {
		month, week := slices.Contains(sets[2], t.Day()), slices.Contains(sets[4], int(t.Weekday()))
		if star(2) || star(4) {
			return month && week
		}
		return month || week
	}
	t := after.Truncate(time.Minute).Add(time.Minute)
	for end := after.AddDate(3, 0, 0); t.Before(end); {
		switch {
		case !slices.Contains(sets[3], int(t.Month())) || !day(t):
			t = time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, time.UTC)
		case !slices.Contains(sets[1], t.Hour()):
			t = t.Truncate(time.Hour).Add(time.Hour)
		case !slices.Contains(sets[0], t.Minute()):
			t = t.Add(time.Minute)
		default:
			return t, true
		}
	}
	return time.Time{}, false
}

func values(part string, f field) (set []int) {
	for item := range strings.SplitSeq(part, ",") {
		span, by, stepped := strings.Cut(item, "/")
		first, last, step := f.min, f.max, 1
		if from, to, ranged := strings.Cut(span, "-"); span != "*" {
			first, _ = strconv.Atoi(from)
			if last = first; ranged {
				last, _ = strconv.Atoi(to)
			}
		}
		if stepped {
			step, _ = strconv.Atoi(by)
		}
		if span == "*" && f.max == 7 {
			last = 6
		}
		for v := first; v <= last; v += step {
			if f.max == 7 {
				set = append(set, v%7)
			} else {
				set = append(set, v)
			}
		}
	}
	return set
}

func randomField(r *rand.Rand, f field) string {
	value := func() int { return f.min + r.IntN(f.max-f.min+1) }
	switch r.IntN(6) {
	case 0:
		return "*"
	case 1:
		return fmt.Sprintf("*/%d", 1+r.IntN(f.max))
	case 2:
		a, b := value(), value()
		return fmt.Sprintf("%d-%d", min(a, b), max(a, b))
	case 3:
		a, b := value(), value()
		return fmt.Sprintf("%d-%d/%d", min(a, b), max(a, b), 1+r.IntN(f.max))
	case 4:
		a, b := value(), value()
		return fmt.Sprintf("%d,%d-%d", value(), min(a, b), max(a, b))
	default:
		return strconv.Itoa(value())
	}
}

func FuzzNext(f *testing.F) {
	f.Add("*/5 0-23/2 1,15 JAN-dec sun,1-6", "Europe/Berlin", int64(1792800000))
	f.Add("30 2 29 2 *", "Australia/Lord_Howe", int64(0))
	f.Add("* * * * * *", "Local", int64(-1))
	f.Fuzz(func(t *testing.T, cron, zone string, seconds int64) {
		after := time.Unix(seconds%(1<<33), 0)
		at, err := Schedule{ID: "s", Cron: cron, Zone: zone}.Next(after)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%q in %q: %v", cron, zone, err)
			}
			return
		}
		if !at.After(after) || at.Nanosecond() != 0 || at.Location() != time.UTC {
			t.Fatalf("%q in %q after %v is %v", cron, zone, after, at)
		}
	})
}
