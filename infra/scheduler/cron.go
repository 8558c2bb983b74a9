package scheduler

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones do not depend on the machine
)

// Expression is a cron expression of EventBridge Scheduler in a time zone.
// (https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html)
type Expression struct {
	fields [6]set // minute, hour, day of the month, month, day of the week, year
	zone   *time.Location
}

// set holds the values of a field; nil is ?, which leaves the field out.
type set map[int]bool

// field is what may stand in one of the six.
type field struct {
	name     string
	min, max int
	names    string // of the values from min on, with spaces between
	any      bool   // ? is allowed
}

func fields() [6]field {
	return [6]field{
		{name: "minutes", min: 0, max: 59},
		{name: "hours", min: 0, max: 23},
		{name: "day-of-month", min: 1, max: 31, any: true},
		{name: "month", min: 1, max: 12, names: "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"},
		{name: "day-of-week", min: 1, max: 7, names: "SUN MON TUE WED THU FRI SAT", any: true},
		{name: "year", min: 1970, max: 2199},
	}
}

// horizon is how far Next looks: over eight years without a 29 February.
const horizon = 10 // years

// Parse reads cron(…). The wildcards L, W and # are not understood here.
func Parse(expression, zone string) (*Expression, error) {
	inner, ok := strings.CutPrefix(expression, "cron(")
	inner, closed := strings.CutSuffix(inner, ")")
	parts := strings.Fields(inner)
	if !ok || !closed || len(parts) != 6 {
		return nil, fmt.Errorf("%q is not cron() with six fields", expression)
	}
	location, err := time.LoadLocation(zone)
	if err != nil || zone == "" || zone == "Local" {
		return nil, fmt.Errorf("the timezone %q is not known", zone)
	}
	e := &Expression{zone: location}
	for i, f := range fields() {
		if e.fields[i], err = f.parse(parts[i]); err != nil {
			return nil, fmt.Errorf("%s %q: %w", f.name, parts[i], err)
		}
	}
	if (e.fields[2] == nil) == (e.fields[4] == nil) {
		return nil, errors.New("one of day-of-month and day-of-week has to be ?, and not both")
	}
	return e, nil
}

func (f field) parse(text string) (set, error) {
	if text == "?" && f.any {
		return nil, nil
	}
	values := set{}
	for item := range strings.SplitSeq(text, ",") {
		span, by, stepped := strings.Cut(item, "/")
		from, to, ranged := strings.Cut(span, "-")
		first, last := f.min, f.max
		if span != "*" {
			var err error
			if first, err = f.value(from); err != nil {
				return nil, err
			}
			if ranged {
				if last, err = f.value(to); err != nil {
					return nil, err
				}
			} else if !stepped {
				last = first
			}
		}
		step := 1
		if stepped {
			var err error
			if step, err = strconv.Atoi(by); err != nil || step < 1 {
				return nil, errors.New("that is no step")
			}
		}
		if first > last {
			return nil, errors.New("the range runs backwards")
		}
		for v := first; v <= last; v += step {
			values[v] = true
		}
	}
	return values, nil
}

func (f field) value(text string) (int, error) {
	for i, name := range strings.Fields(f.names) {
		if text == name {
			return f.min + i, nil
		}
	}
	v, err := strconv.Atoi(text)
	if err != nil || !regexp.MustCompile(`^[0-9]+$`).MatchString(text) || v < f.min || v > f.max {
		return 0, fmt.Errorf("%q is no value from %d to %d", text, f.min, f.max)
	}
	return v, nil
}

// Next answers the first minute after the given moment, or false when there is none within ten
// years. When clocks go forward, the times that they leave out do not come; when they go back, the times that come twice count once.
func (e *Expression) Next(after time.Time) (time.Time, bool) {
	for t := after.Truncate(time.Minute).Add(time.Minute); t.Before(after.AddDate(horizon, 0, 0)); {
		shown := t.In(e.zone)
		switch {
		case !e.day(shown):
			// To a while before midnight, in which clocks may be put forward or back: that is at whole quarters of an hour.
			rest := time.Duration(24*60-shown.Hour()*60-shown.Minute()) * time.Minute
			quarter := time.Duration(15-shown.Minute()%15) * time.Minute
			t = t.Add(max(quarter, rest-3*time.Hour))
		case !e.fields[1][shown.Hour()]:
			t = t.Add(time.Duration(60-shown.Minute()) * time.Minute)
		case !e.fields[0][shown.Minute()] || again(shown):
			t = t.Add(time.Minute)
		default:
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

func (e *Expression) day(shown time.Time) bool {
	fits := func(s set, v int) bool { return s == nil || s[v] }
	return fits(e.fields[2], shown.Day()) && fits(e.fields[3], int(shown.Month())) &&
		fits(e.fields[4], int(shown.Weekday())+1) && fits(e.fields[5], shown.Year())
}

// again reports whether clocks have shown this time before: they were put back less than that ago.
func again(shown time.Time) bool {
	start, _ := shown.ZoneBounds()
	if start.IsZero() {
		return false
	}
	_, now := shown.Zone()
	_, before := start.Add(-time.Second).Zone()
	return shown.Sub(start) < time.Duration(before-now)*time.Second
}
