#!/bin/sh
# Holds the plain components to what they promise: rules.sh CC component=object...
#   no heap; no variable of their own, not even a static one; no floating point in those that every joule goes through.
nm=${1%gcc}nm
shift
bad=0
for pair in "$@"; do
    component=${pair%%=*} object=${pair#*=}
    [ -s "$object" ] || { echo "$component is not built: $object"; bad=1; continue; }
    undefined=$("$nm" -u "$object" | awk '{print $2}')
    heap=$(echo "$undefined" | grep -E '^(malloc|calloc|realloc|free|strdup|alloca)$')
    [ -z "$heap" ] || { echo "$component uses the heap: " $heap; bad=1; }
    state=$("$nm" "$object" | awk '$2 ~ /^[bBdDsSgGC]$/ {print $3}')
    [ -z "$state" ] || { echo "$component has variables of its own: " $state; bad=1; }
    case $component in
    ina3221 | metering | sampler | telemetry)
        # The soft-float library: __adddf3, __floatsisf, __fixdfdi, __ltdf2 and so on.
        float=$(echo "$undefined" | grep -E '^__[a-z]*(sf|df|tf)(2|3|si|di)?$|^__float|^__fix')
        [ -z "$float" ] || { echo "$component computes in floating point: " $float; bad=1; }
        ;;
    esac
done
[ $# -gt 0 ] || { echo "no component to check"; bad=1; }
exit $bad
