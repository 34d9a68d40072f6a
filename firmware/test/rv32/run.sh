#!/bin/sh
# Runs a program on the 32-bit machine: run.sh QEMU PROGRAM STATUS. Its output comes through by semihosting; the result is whether it ended
# with the status. The machine has no firmware of its own, and no input.
"$1" -M virt -bios none -nographic -semihosting-config enable=on,target=native -kernel "$2" </dev/null
status=$?
if [ "$status" != "$3" ]; then
    echo "$2: ended with status $status, not $3"
    exit 1
fi
