#!/bin/sh
# Instructions per sweep of each component, two chips and six channels, reports included, counted by callgrind. What the simulated sensors, the bus and
# the C library take is not in it. x86-64 instructions of -O2: a measure for comparing, not the ESP32's.
#
#   firmware/test/sampler/instructions.sh [build directory]
set -eu
cd "$(dirname "$0")/../../.."
build=${1:-.cache/firmware}
program=$build/sampler/sampler_instructions
sweeps=5000
[ -x "$program" ] || { echo "$program is not there: build firmware/test first" >&2; exit 1; }
command -v valgrind >/dev/null || { echo "valgrind is not installed: apt install valgrind" >&2; exit 1; }
out=$(mktemp)
trap 'rm -f "$out" "$out.txt"' EXIT
valgrind -q --tool=callgrind --callgrind-out-file="$out" --toggle-collect=sampler_sweep "$program" $sweeps
callgrind_annotate --threshold=100 --auto=no --show-percs=no "$out" >"$out.txt"
# Lines are: instructions, file:function [object].
awk -v sweeps=$sweeps '
    match($0, /components\/[a-z0-9]+\//) {
        n = $1; gsub(",", "", n)
        name = substr($0, RSTART + 11, RLENGTH - 12)
        sum[name] += n; total += n
    }
    END {
        for (name in sum) printf "%-10s %6.0f instructions per sweep\n", name, sum[name] / sweeps
        printf "%-10s %6.0f\n", "all", total / sweeps
    }' "$out.txt" | sort
