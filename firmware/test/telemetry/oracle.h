// Runs a meter on any bytes and has nanopb read what it sends.
#pragma once

#include <stddef.h>
#include <stdint.h>

// What a run had, so that a test can say that it was not nothing.
struct oracle_tally {
    unsigned long reports, sweeps, missed, early, lists, batches;
};

// Takes identity, calibrations, counts, failures and requests from the bytes. Every message is encoded, decoded by nanopb and compared with what went
// in, field by field; a report is the same as its past batch, and none is larger than a datagram. On a difference it says so and aborts.
void oracle_run(const uint8_t *bytes, size_t n, struct oracle_tally *tally);
