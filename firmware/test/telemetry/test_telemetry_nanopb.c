// Random meters against nanopb, without a fuzzer: the same comparison for whoever has no clang. With a folder as argument it writes a few inputs
// for the fuzzer's corpus.
#include "check.h"

#include "oracle.h"

static uint64_t state = 1;
static uint64_t rnd(uint64_t below)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % below;
}

static size_t input(uint8_t *bytes, size_t max)
{
    size_t n = 100 + rnd(max - 100);
    uint8_t common = (uint8_t)rnd(0xe0);
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (uint8_t)(rnd(6) == 0 ? common : rnd(4) ? rnd(256) : rnd(8));
    }
    return n;
}

int main(int argc, char **argv)
{
    static uint8_t bytes[4000];
    if (argc == 2) {
        for (int i = 0; i < 8; i++) {
            char path[400];
            snprintf(path, sizeof path, "%s/random-%d", argv[1], i);
            FILE *f = fopen(path, "wb");
            size_t n = input(bytes, 500);
            CHECK(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
        }
        return check_end();
    }
    struct oracle_tally tally = {0};
    for (int i = 0; i < 1500; i++) {
        oracle_run(bytes, input(bytes, sizeof bytes), &tally);
    }
    printf("%lu reports (%lu closed early) of %lu sweeps and %lu missed conversions; %lu lists of %lu batches\n", tally.reports, tally.early, tally.sweeps,
           tally.missed, tally.lists, tally.batches);
    CHECK(tally.reports > 10000);
    CHECK(tally.early > 1000);
    CHECK(tally.sweeps > 100000);
    CHECK(tally.missed > 10000);
    CHECK(tally.batches > 5000);
    return check_end();
}
