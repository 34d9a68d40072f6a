// A meter without a network: two simulated chips with loads on one bus, the sampler, and someone who takes its reports.
#pragma once

#include "fake_ina3221.h"
#include "sampler.h"

// A board on one channel: current steps between low and high, on for so long in each period. The supply has a source resistance.
struct rig_load {
    uint64_t period_ns, on_ns, phase_ns;
    uint32_t low_ua, high_ua;
    uint32_t supply_uv, source_uohm, shunt_uohm;
};

struct rig {
    struct fake_i2c wire;
    struct fake_ina3221 chip[SAMPLER_CHIPS];
    struct rig_load load[SAMPLER_CHANNELS];
    struct rig_inputs { struct rig *rig; int chip; } inputs[SAMPLER_CHIPS];
    struct telemetry_identity identity;
    struct telemetry_queue queue;
    struct sampler sampler;
    struct telemetry_interval last; // report taken
    uint64_t reports;
};

// Six boards that draw 0.4 A at 5 V, and a configuration that fits; set what shall be different, then rig_start.
void rig_init(struct rig *r, struct sampler_config *config);
int rig_start(struct rig *r, const struct sampler_config *config);
// Waits for the next tick, sweeps at it, and takes a report if take is set.
void rig_sweep(struct rig *r, bool take);
// Takes reports until there is none.
void rig_take(struct rig *r);
// Energy that a board drew up to a time, in pJ (uW times us), as far as 64 bits go: 5 W for 20 days.
uint64_t rig_energy_pj(const struct rig_load *load, uint64_t ns);
