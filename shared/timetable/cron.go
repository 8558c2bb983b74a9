package timetable

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // so that a zone is known or unknown everywhere alike, whatever the machine has

	"github.com/adhocore/gronx"

	"runnerhub/shared/fault"
)

// field is one of the five of a cron expression.
type field struct {
	name     string
	min, max int
	names    []string // of the values from min on
}

func fields() [5]field {
	return [5]field{
		{name: "minute", max: 59},
		{name: "hour", max: 23},
		{name: "day of month", min: 1, max: 31},
		{name: "month", min: 1, max: 12, names: []string{
			"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
		}},
		{name: "day of week", max: 7, names: []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}},
	}
}

// Check refuses a schedule that no driver takes. An ID is of [A-Za-z0-9_-]{1,64}. A field of
// the cron expression is *, or a list by commas of a value, a range a-b, and a range or * with
// a step, a-b/n; months and days of the week also go by their first three letters, and Sunday is
// 0 or 7. There are no seconds, years, tags such as @daily, or L, W, # and ?. An expression whose
// day never comes, such as 30 February, is refused too, and so is one that no entry of EventBridge Scheduler can
// say: that of a day of the month and a day of the week which must come together.
func (s Schedule) Check() error {
	if err := CheckID(s.ID); err != nil {
		return err
	}
	// Any moment will do: each expression that has a next time at all has it within years.
	if _, err := s.Next(time.Unix(0, 0)); err != nil {
		return err
	}
	f, err := s.Fields()
	if err != nil {
		return err
	}
	if !f.Either && len(f.Days) < 31 && len(f.Weekdays) < 7 {
		return fault.Field("cron", "%q asks for a day of the month that is a certain day of the week as well, because one of the two begins with *: "+
			"write * for one of them, or both without it, and either suffices", s.Cron)
	}
	return nil
}

// Fields is what a cron expression says, each field's values in ascending order.
type Fields struct {
	Minutes, Hours, Days, Months []int
	Weekdays                     []int // from 0, which is Sunday, to 6
	Either                       bool  // one of the two days suffices; otherwise both must be right
}

// Fields answers what the expression says.
func (s Schedule) Fields() (Fields, error) {
	expression, err := numeric(s.Cron)
	if err != nil {
		return Fields{}, err
	}
	parts := strings.Fields(expression)
	var values [5][]int
	for i, f := range fields() {
		values[i] = f.values(parts[i])
	}
	star := func(part string) bool { return strings.HasPrefix(part, "*") }
	return Fields{
		Minutes: values[0], Hours: values[1], Days: values[2], Months: values[3], Weekdays: values[4],
		Either: !star(parts[2]) && !star(parts[4]),
	}, nil
}

// values answers the values of a field that numeric made.
func (f field) values(part string) []int {
	weekday := f.max == 7
	var all []int
	for item := range strings.SplitSeq(part, ",") {
		span, by, stepped := strings.Cut(item, "/")
		first, last, step := f.min, f.max, 1
		if weekday && span == "*" {
			last = 6
		}
		if span != "*" {
			from, to, ranged := strings.Cut(span, "-")
			first, _ = number(from)
			if last = first; ranged {
				last, _ = number(to)
			}
		}
		if stepped {
			step, _ = number(by)
		}
		for v := first; v <= last; v += step {
			if weekday {
				all = append(all, v%7)
			} else {
				all = append(all, v)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Next answers the first minute after the given moment at which the schedule is due, in UTC.
// Where both days are given, that is neither begins with *, one of them suffices, as cron has it.
//
// The expression is about what clocks in the zone show, and each time they show counts once. A
// time that is left out when they go forward is due at the moment they do so; of a time that comes
// twice when they go back, the first is due. A driver whose scheduler has it otherwise may leave the former out,
// as EventBridge Scheduler does, and nothing else.
func (s Schedule) Next(after time.Time) (time.Time, error) {
	expression, err := numeric(s.Cron)
	if err != nil {
		return time.Time{}, err
	}
	zone, err := location(s.Zone)
	if err != nil {
		return time.Time{}, err
	}
	// What the clocks show is reckoned with as if it were UTC, where no time is left out or
	// comes twice.
	local := after.In(zone)
	shown := time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), 0, 0, time.UTC)
	for {
		shown, err = gronx.NextTickAfter(expression, shown, false)
		if err != nil {
			return time.Time{}, fault.Field("cron", "%q names a day that never comes", s.Cron)
		}
		if at := firstShown(shown, zone); at.After(after) {
			return at.UTC(), nil
		}
	}
}

// firstShown answers when clocks in the zone show the time for the first time, or when
// they leave it out.
func firstShown(shown time.Time, zone *time.Location) time.Time {
	at := time.Date(shown.Year(), shown.Month(), shown.Day(), shown.Hour(), shown.Minute(), 0, 0, zone)
	start, end := at.ZoneBounds()
	_, offset := at.Zone()
	shows := at.Unix() + int64(offset) // the same reckoning as shown.Unix
	switch {
	case shows > shown.Unix():
		return start // left out, and at is after the change
	case shows < shown.Unix():
		return end // left out, and at is before the change
	case start.IsZero():
		return at
	}
	_, before := start.Add(-time.Second).Zone()
	if earlier := time.Unix(shown.Unix()-int64(before), 0).In(zone); earlier.Before(start) {
		return earlier
	}
	return at
}

// location answers the zone. The empty name and "Local" would be the machine's business.
func location(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fault.Field("zone", "%q is no name of a time zone, such as Europe/Berlin or UTC", name)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fault.Field("zone", "%.100q is no known time zone; names are those of the IANA database, such as Europe/Berlin", name)
	}
	return zone, nil
}

// numeric checks the expression and answers it with numbers in the place of names. It is
// stricter than the library, which takes a name in any field, and much else.
func numeric(cron string) (string, error) {
	if len(cron) > 500 {
		return "", fault.Field("cron", "the expression is longer than 500 characters")
	}
	parts := strings.Fields(cron)
	if len(parts) != 5 {
		return "", fault.Field("cron",
			"the expression has %d fields; it needs five: minute, hour, day of month, month, day of week", len(parts))
	}
	for i, f := range fields() {
		part, err := f.list(parts[i])
		if err != nil {
			return "", fault.Field("cron", "the %s %q %s", f.name, parts[i], err)
		}
		parts[i] = part
	}
	return strings.Join(parts, " "), nil
}

func (f field) list(text string) (string, error) {
	if text == "*" {
		return text, nil
	}
	items := strings.Split(text, ",")
	for i, item := range items {
		span, step, stepped := strings.Cut(item, "/")
		span, err := f.span(span, stepped)
		if err != nil {
			return "", err
		}
		if stepped {
			n, err := number(step)
			if err != nil || n < 1 || n > f.max {
				return "", fmt.Errorf("has a step that is not from 1 to %d", f.max)
			}
			span += "/" + strconv.Itoa(n)
		}
		items[i] = span
	}
	return strings.Join(items, ","), nil
}

func (f field) span(text string, stepped bool) (string, error) {
	if text == "*" {
		if !stepped {
			return "", errors.New("has a * in a list, where it makes the rest mean nothing")
		}
		return text, nil
	}
	from, to, ranged := strings.Cut(text, "-")
	first, err := f.value(from)
	if err != nil {
		return "", err
	}
	if !ranged {
		if stepped {
			return "", fmt.Errorf("has a step without a range; write %s-%d/…", from, f.max)
		}
		return strconv.Itoa(first), nil
	}
	last, err := f.value(to)
	if err != nil {
		return "", err
	}
	if last < first {
		return "", fmt.Errorf("has a range that runs backwards, %s", text)
	}
	return fmt.Sprintf("%d-%d", first, last), nil
}

func (f field) value(text string) (int, error) {
	for i, name := range f.names {
		if strings.EqualFold(text, name) {
			return f.min + i, nil
		}
	}
	n, err := number(text)
	if err != nil || n < f.min || n > f.max {
		return 0, fmt.Errorf("is not made of values from %d to %d", f.min, f.max)
	}
	return n, nil
}

// number reads one or two digits and nothing else, so no sign.
func number(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || len(text) > 2 {
		return 0, errors.New("no number")
	}
	return int(n), nil
}

// CheckID refuses what is no ID of a schedule.
func CheckID(id string) error {
	foreign := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, foreign) {
		return fault.Field("id", "%.100q is not 1 to 64 of the characters A-Z, a-z, 0-9, _ and -", id)
	}
	return nil
}
