// Which rates a bus of 400 kHz sustains by the driver's time per transfer, with two chips: prints the table of README.md.
#include <stdio.h>

#include "rig.h"

// Runs 3 s at a rate. Returns whether bus voltages take turns in the end; counts are those of the last 2 s.
static bool run(uint32_t rate, uint32_t overhead_us, struct sampler_counts *counts) {
    static struct rig r;
    struct sampler_config config;
    rig_init(&r, &config);
    r.wire.overhead_us = overhead_us;
    config.sweep_period_us = 1000000 / rate;
    rig_start(&r, &config);
    struct sampler *s = &r.sampler;
    uint64_t begin = fake_i2c_now_us(&r.wire);
    while (s->tick_us < begin + 1000000) {
        rig_sweep(&r, true);
    }
    struct sampler_counts was = s->counts;
    while (s->tick_us < begin + 3000000) {
        rig_sweep(&r, true);
    }
    *counts = (struct sampler_counts){
        .sweeps = s->counts.sweeps - was.sweeps, .overruns = s->counts.overruns - was.overruns,
        .skipped = s->counts.skipped - was.skipped, .late = s->counts.late - was.late,
    };
    return s->rotate;
}

int main(void) {
    static const uint32_t overheads[] = {0, 20, 40, 60};
    printf("| driver time per transfer | all 12 registers | voltages in turn | at 500/s | at 1000/s |\n|---|---|---|---|---|\n");
    for (int i = 0; i < 4; i++) {
        uint32_t all = 0, turns = 0;
        for (uint32_t rate = 200; rate <= 1000; rate += 5) {
            struct sampler_counts c;
            bool rotate = run(rate, overheads[i], &c);
            if (c.skipped == 0) {
                turns = rate;
                if (!rotate) {
                    all = rate;
                }
            }
        }
        printf("| %u µs | %u/s | %u/s |", (unsigned)overheads[i], (unsigned)all, (unsigned)turns);
        for (uint32_t rate = 500; rate <= 1000; rate += 500) {
            struct sampler_counts c;
            bool rotate = run(rate, overheads[i], &c);
            printf(" %s, %.0f sweeps/s, %.0f overruns/s |", rotate ? "in turn" : "all", (double)(c.sweeps - c.skipped) / 2, (double)c.overruns / 2);
        }
        printf("\n");
    }
    return 0;
}
