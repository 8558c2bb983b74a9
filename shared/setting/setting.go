// Package setting reads settings from an environment. An error names the variable, its
// value and the remedy; secrets are not read here, so nothing of them is named.
package setting

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Environment is variables by name. One that is not set is empty.
type Environment map[string]string

// Read reads pairs as os.Environ answers them.
func Read(environ []string) Environment {
	e := Environment{}
	for _, pair := range environ {
		if name, value, ok := strings.Cut(pair, "="); ok {
			e[name] = value
		}
	}
	return e
}

// Or answers a variable, or something else where it is not set.
func (e Environment) Or(name, otherwise string) string {
	if v := e[name]; v != "" {
		return v
	}
	return otherwise
}

// URL answers the address of a server in the form everything else takes: http or https,
// without a slash at its end.
func URL(name, text string) (string, error) {
	u, err := url.Parse(strings.TrimRight(text, "/"))
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%s is %q; it is an address such as https://ci.example.com", name, text)
	}
	return u.String(), nil
}

// List answers the names in a text that separates them by commas.
func List(text string) []string {
	var list []string
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			list = append(list, name)
		}
	}
	return list
}

// Concurrency answers how many builds run at a time.
func Concurrency(name, text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1000 {
		return 0, fmt.Errorf("%s is %q; it is a number of builds from 1 to 1000", name, text)
	}
	return n, nil
}
