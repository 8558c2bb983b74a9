package main

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// keepDescriptors makes sure that no child, and so no step of a build, gets a descriptor that
// whoever started the server left open in it.
func keepDescriptors() error {
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("keep inherited descriptors from builds (Linux 5.11 or later): %w", err)
	}
	return nil
}
