package scheduler

import (
	"fmt"
	"strconv"
	"strings"

	"runnerhub/shared/timetable"
)

// expressions answers the cron expressions of EventBridge Scheduler that say what the
// schedule says: one, or two where a day of the month or one of the week suffices. Both may then be right on the
// same day, and its minutes come twice.
//
// They have six fields, the last for the year; days of the week are 1, Sunday, to 7; and one of the two days is
// always "?". Steps become lists of values, so that nothing hangs on how a step is read there.
func expressions(s timetable.Schedule) ([]string, error) {
	f, err := s.Fields()
	if err != nil {
		return nil, err
	}
	weekdays := make([]int, len(f.Weekdays))
	for i, day := range f.Weekdays {
		weekdays[i] = day + 1
	}
	expression := func(days, weekdays string) string {
		return fmt.Sprintf("cron(%s %s %s %s %s *)", list(f.Minutes, 0, 59), list(f.Hours, 0, 23), days, list(f.Months, 1, 12), weekdays)
	}
	byMonth, byWeek := expression(list(f.Days, 1, 31), "?"), expression("?", list(weekdays, 1, 7))
	everyDay := len(f.Days) == 31
	everyWeekday := len(f.Weekdays) == 7
	switch {
	case f.Either && (everyDay || everyWeekday):
		return []string{expression("*", "?")}, nil
	case f.Either && f.Days[0] > longest(f.Months):
		return []string{byWeek}, nil // the other one never comes
	case f.Either:
		return []string{byMonth, byWeek}, nil
	case everyWeekday:
		return []string{byMonth}, nil
	}
	return []string{byWeek}, nil // every day of the month is right: Check saw to it
}

// longest answers the most days that one of the months can have.
func longest(months []int) int {
	most := 0
	for _, month := range months {
		switch month {
		case 2:
			most = max(most, 29)
		case 4, 6, 9, 11:
			most = max(most, 30)
		default:
			most = 31
		}
	}
	return most
}

// list writes ascending values, * for all from the least to the most.
func list(values []int, least, most int) string {
	if len(values) == most-least+1 {
		return "*"
	}
	var items []string
	for i := 0; i < len(values); {
		run := i
		for run+1 < len(values) && values[run+1] == values[run]+1 {
			run++
		}
		switch run - i {
		case 0:
			items = append(items, strconv.Itoa(values[i]))
		default:
			items = append(items, strconv.Itoa(values[i])+"-"+strconv.Itoa(values[run]))
		}
		i = run + 1
	}
	return strings.Join(items, ",")
}
