// Sweeps over the sensors: reads all channels of both chips at the conversion rate, integrates them, and closes reports.
//
// Plain C11. It knows neither tasks nor timers: whoever runs it calls sampler_sweep at each tick with a clock. Nothing here waits but for
// the bus. A transfer that fails is tried once more, then counted, and the time it stood for is unmeasured.
//
// The chips convert by themselves, in cycles of about 2 ms that no tick is in step with. The conversion-ready flag, read with each sweep,
// tells whether a cycle was done since: if not, the same conversions are read twice (repeated); if the time since says that more than one
// was done, conversions were lost (missed). Neither changes a total, since a reading stands for the time since the last, but both are
// counted, and both are zero-mean for loads that are not in step with the sweep.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ina3221.h"
#include "metering.h"
#include "telemetry.h"

#define SAMPLER_CHIPS 2

struct sampler_config {
    struct ina3221_bus bus;
    // Chips in the order of their channels' numbers. The earlier boards: 1 to 3 at 0x41, 4 to 6 at 0x40.
    uint8_t address[SAMPLER_CHIPS];
    int chips;
    struct metering_calibration calibration[METERING_MAX_CHANNELS]; // by channel, 3 for each chip
    uint32_t sweep_period_us;    // 2000
    uint32_t report_interval_us; // 100000
    enum ina3221_time conversion; // of shunt and bus: INA3221_332_US
    // Power-valid limits in counts of 8 mV: below lower the supply of the boards is failing. 0 leaves the chip's.
    int16_t power_valid_upper, power_valid_lower;
    // The clock in us since boot, taken right after each transfer.
    uint64_t (*now)(void *context);
    void *clock_context;
};

// Counts of what the sensors did, for people and for metrics.
struct sampler_counts {
    uint64_t sweeps, late;       // late: sweeps that began more than half a period behind
    uint64_t repeated, missed;   // conversions, by the ready flag of each chip
    uint64_t transfers, retried, failed;
    uint64_t resets;             // chips found unconfigured, or away and back
    uint64_t critical, warning;  // alerts
    uint64_t power_invalid;      // sweeps with the power-valid flag down
};

struct sampler {
    struct sampler_config config;
    struct ina3221 chip[SAMPLER_CHIPS];
    bool present[SAMPLER_CHIPS];
    struct metering metering;
    struct telemetry_batch batch;
    const struct telemetry_identity *identity;
    struct telemetry_queue *queue;
    struct sampler_counts counts;
    uint64_t tick_us;     // of the last sweep: what readings stand for goes from tick to tick
    uint64_t closed_us;   // of the last report
    uint64_t ready_us[SAMPLER_CHIPS];
    uint32_t seq;
    bool rotate;          // one bus voltage per chip and sweep in turn: for buses that are too slow for all
    int turn;
    uint32_t overruns;    // sweeps in a row that took longer than the period
    int16_t bus[METERING_MAX_CHANNELS]; // last bus voltage read
    bool bus_known[METERING_MAX_CHANNELS];
    uint32_t retry_in[SAMPLER_CHIPS]; // sweeps until a chip that is away is looked for
};

// Finds the chips and starts them. A chip that does not answer is looked for again each second; its channels are unmeasured until then.
// Returns the number of chips found, or INA3221_ARGUMENT.
int sampler_init(struct sampler *s, const struct sampler_config *config, const struct telemetry_identity *identity, struct telemetry_queue *queue);
// One sweep, due at tick_us. Returns whether a report was published.
bool sampler_sweep(struct sampler *s, uint64_t tick_us);
