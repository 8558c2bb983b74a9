package ci

import "strings"

// SkipMarker answers the text in the message of a head commit that asks for no
// build, as it is written there; empty when there is none.
func SkipMarker(message string) string {
	for at := 0; ; {
		open := strings.IndexByte(message[at:], '[')
		if open < 0 {
			return ""
		}
		at += open
		for _, marker := range []string{"[skip ci]", "[ci skip]"} {
			if len(message)-at >= len(marker) && strings.EqualFold(message[at:at+len(marker)], marker) {
				return message[at : at+len(marker)]
			}
		}
		at++
	}
}
