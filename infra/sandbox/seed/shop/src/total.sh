#!/bin/sh
# Prints the total of an order in cents: one line per item, "name count price".
set -eu
total=0
while read -r _ count price; do
	total=$((total + count * price))
done <"$1"
echo "$total"
