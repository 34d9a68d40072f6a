// Any meter, any loads, any faults: nanopb reads from its datagrams what went in.
#include "oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct oracle_tally tally = {0};
    oracle_run(bytes, n, &tally);
    return 0;
}
