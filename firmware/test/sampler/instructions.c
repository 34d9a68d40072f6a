// Sweeps for callgrind to count: instructions.sh.
#include <stdlib.h>

#include "rig.h"

int main(int argc, char **argv) {
    static struct rig r;
    struct sampler_config config;
    rig_init(&r, &config);
    for (int i = 0; i < SAMPLER_CHANNELS; i++) {
        r.load[i] = (struct rig_load){
            .period_ns = 25000000 + (uint64_t)i * 100000, .on_ns = 5000000, .low_ua = 400000, .high_ua = 1200000, .supply_uv = 5000000,
            .source_uohm = 60000, .shunt_uohm = 100000,
        };
    }
    for (int i = 0; i < SAMPLER_CHIPS; i++) {
        r.chip[i].noise_nv = 80000;
    }
    if (rig_start(&r, &config) != SAMPLER_CHIPS) {
        return 1;
    }
    for (int n = argc > 1 ? atoi(argv[1]) : 1000; n > 0; n--) {
        rig_sweep(&r, true);
    }
    return r.sampler.counts.failed != 0;
}
