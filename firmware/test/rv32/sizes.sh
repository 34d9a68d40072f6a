#!/bin/sh
# Prints what each plain component takes on rv32imac with -Os: sizes.sh "CC FLAGS" CONTEXTS.C component=object...
# Flash is code and constants, RAM variables (none), stack the largest frame of one function; contexts are the caller's.
cc=$1 contexts=$2
shift 2
tools=${cc%%gcc *}
echo "component      flash    RAM   largest frame"
for component in $(for pair in "$@"; do echo "${pair%%=*}"; done | awk '!seen[$0]++'); do
    objects=$(for pair in "$@"; do [ "${pair%%=*}" = "$component" ] && echo "${pair#*=}"; done)
    "${tools}size" $objects | awk -v c="$component" -v frame="$(for o in $objects; do cat "${o%.o}.su"; done | sort -t'	' -k2 -n | tail -1 | awk -F'	' '{n = split($1, p, ":"); print $2 "  " p[n]}')" '
        NR > 1 {flash += $1 + $2; ram += $2 + $3}
        END {printf "%-12s %7d %6d   %s\n", c, flash, ram, frame}'
done
object=$(mktemp)
trap 'rm -f "$object"' EXIT
if $cc -c "$contexts" -o "$object"; then
    echo
    echo "context                              RAM"
    "${tools}nm" -S --size-sort "$object" | while read -r _ size _ name; do
        printf '%-12s %-20s %7d\n' "${name%%__*}" "$(echo "${name#*__}" | tr _ ' ')" "0x$size"
    done
fi
