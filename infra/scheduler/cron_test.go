package scheduler

import (
	"strings"
	"testing"
	"time"
)

func TestNext(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, expression, zone, after, want string }{
		{"every minute", "cron(* * * * ? *)", "UTC", "2026-11-23T06:36:35Z", "2026-11-23T06:37:00Z 2026-11-23T06:38:00Z"},
		{"every day", "cron(0 10 * * ? *)", "UTC", "2026-11-23T10:00:00Z", "2026-11-24T10:00:00Z"},
		{"weekdays by name", "cron(0 18 ? * MON-FRI *)", "UTC", "2026-11-27T17:00:00Z", "2026-11-27T18:00:00Z 2026-11-30T18:00:00Z"},
		{"Sunday is 1", "cron(0 0 ? * 1 *)", "UTC", "2026-11-23T00:00:00Z", "2026-11-29T00:00:00Z"},
		{"steps from a value", "cron(1/10 * * * ? *)", "UTC", "2026-11-23T06:36:00Z", "2026-11-23T06:41:00Z 2026-11-23T06:51:00Z 2026-11-23T07:01:00Z"},
		{"steps of all, and lists", "cron(*/30,7 0-1 31 JAN,3 ? *)", "UTC", "2026-11-23T00:00:00Z", "2027-01-31T00:00:00Z 2027-01-31T00:07:00Z 2027-01-31T00:30:00Z 2027-01-31T01:00:00Z"},
		{"29 February", "cron(0 0 29 2 ? *)", "UTC", "2097-01-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"a year", "cron(0 0 1 1 ? 2030)", "UTC", "2026-01-01T00:00:00Z", "2030-01-01T00:00:00Z"},
		{"in a zone", "cron(30 9 * * ? *)", "Asia/Kathmandu", "2026-11-23T06:36:00Z", "2026-11-24T03:45:00Z"},
		{"left out", "cron(30 2 * * ? *)", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-28T01:30:00Z 2026-03-30T00:30:00Z"},
		{"twice", "cron(30 2 * * ? *)", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z 2026-10-26T01:30:00Z"},
		{"every half hour, back", "cron(0,30 * * * ? *)", "Europe/Berlin", "2026-10-24T23:45:00Z", "2026-10-25T00:00:00Z 2026-10-25T00:30:00Z 2026-10-25T02:00:00Z"},
		{"midnight twice", "cron(0 0 1 11 ? *)", "America/Havana", "2026-10-01T00:00:00Z", "2026-11-01T04:00:00Z 2027-11-01T04:00:00Z"},
		{"midnight left out", "cron(0 0 * 9 ? *)", "America/Santiago", "2026-09-05T05:00:00Z", "2026-09-07T03:00:00Z"},
		{"half an hour twice", "cron(45 1 * * ? *)", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", "2026-04-04T14:45:00Z 2026-04-05T15:15:00Z"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e, err := Parse(test.expression, test.zone)
			if err != nil {
				t.Fatal(err)
			}
			at, _ := time.Parse(time.RFC3339, test.after)
			for want := range strings.FieldsSeq(test.want) {
				var ok bool
				if at, ok = e.Next(at); !ok || at.Format(time.RFC3339) != want {
					t.Fatalf("next is %v, %v; want %s", at, ok, want)
				}
			}
		})
	}
	e, err := Parse("cron(0 0 31 2 ? *)", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	if at, ok := e.Next(time.Unix(0, 0)); ok {
		t.Errorf("31 February is at %v", at)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, expression := range []string{
		"", "rate(1 minute)", "cron(* * * * ?)", "cron(* * * * * *)", "cron(* * ? * ? *)", "cron(* * 1 * 2 *)", "cron(60 * * * ? *)",
		"cron(* 24 * * ? *)", "cron(* * 0 * ? *)", "cron(* * ? * 0 *)", "cron(* * ? * 8 *)", "cron(* * * 13 ? *)", "cron(? * * * ? *)", "cron(* * L * ? *)",
		"cron(* * ? * 2#1 *)", "cron(*/0 * * * ? *)", "cron(5-1 * * * ? *)", "cron(1,,2 * * * ? *)", "cron(+1 * * * ? *)", "cron(* * ? * mon *)", "cron(* * * * ? 1969)",
	} {
		if _, err := Parse(expression, "UTC"); err == nil {
			t.Errorf("%s is taken", expression)
		}
	}
	for _, zone := range []string{"", "Local", "Mars/Olympus"} {
		if _, err := Parse("cron(* * * * ? *)", zone); err == nil || !strings.Contains(err.Error(), "timezone") {
			t.Errorf("the zone %q: %v", zone, err)
		}
	}
}
