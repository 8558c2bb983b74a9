#!/bin/sh
# Runs the tests; exits with 1 when one fails.
set -eu
cd "$(dirname "$0")/.."
got=$(sh src/total.sh examples/order.txt)
if [ "$got" != 550 ]; then
	echo "total of examples/order.txt: got $got, want 550" >&2
	exit 1
fi
echo "1 test passed"
