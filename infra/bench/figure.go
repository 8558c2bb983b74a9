package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// figure is one line of the result.
type figure struct {
	what     string
	measured string
	floor    string // measured in the same run; empty where there is none
	ratio    string
	reach    string // in words
	reached  bool
	beside   string   // what the best self-hosted server of today does
	notes    []string // how it spread, and what else was seen
}

func (f figure) verdict() string {
	if f.reached {
		return "reached"
	}
	return "missed"
}

// show prints the figures as a table and the notes below it.
func show(w io.Writer, figures []figure) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "WHAT\tMEASURED\tFLOOR\tRATIO\tTO REACH\tVERDICT\tBESIDE IT")
	for _, f := range figures {
		_, _ = fmt.Fprintln(t, strings.Join([]string{f.what, f.measured, f.floor, f.ratio, f.reach, f.verdict(), f.beside}, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range figures {
		if _, err := fmt.Fprintf(w, "\n%s\n", f.what); err != nil {
			return err
		}
		for _, note := range f.notes {
			if _, err := fmt.Fprintf(w, "  %s\n", note); err != nil {
				return err
			}
		}
	}
	return nil
}

// sample is a set of measurements of one thing.
type sample []time.Duration

// at answers the measurement that the share p of all does not exceed, by the nearest rank.
func (s sample) at(p float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

func (s sample) median() time.Duration { return s.at(0.5) }

// spread is how a sample lies, in words.
func (s sample) spread() string {
	return fmt.Sprintf("min %s, median %s, p99 %s, max %s", short(s.at(0)), short(s.median()), short(s.at(0.99)), short(s.at(1)))
}

// short prints a time with three digits.
func short(d time.Duration) string {
	unit := time.Microsecond
	switch {
	case d < time.Microsecond:
		unit = time.Nanosecond
	case d >= time.Second:
		unit = time.Second
	case d >= time.Millisecond:
		unit = time.Millisecond
	}
	text := fmt.Sprintf("%.3g", float64(d)/float64(unit))
	return text + " " + map[time.Duration]string{time.Nanosecond: "ns", time.Microsecond: "µs", time.Millisecond: "ms", time.Second: "s"}[unit]
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }
