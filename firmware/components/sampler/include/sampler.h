// Sweeps over the sensors: reads all channels of both chips at the conversion rate, integrates them, and closes reports.
//
// Plain C11. It knows neither tasks nor timers: whoever runs it waits for sampler_next and calls sampler_sweep with that tick. Nothing here
// waits but for the bus. A transfer that fails is tried once more, then counted, and the time it stood for is unmeasured.
//
// What a reading stands for. Ticks lie on a fixed grid, and a reading stands for the time from the tick before to its own, not for the time
// between two reads: that depends on the bus, and would weigh a load that is in step with the sweep. Each sweep gives each channel one sample
// or one sensor error, so samples = sweeps - sensor errors, and the time of both adds up to the time since the boot. Up to two ticks that were
// skipped leave their time to the next reading and count as sweeps whose conversions were not read; a longer hole is unmeasured.
//
// What is trusted. The mask/enable register is read after the channels of a chip: its latch bits, which are not as at power-on, say that the
// chip was not reset before or while they were read. Without that register the readings of the sweep are not taken; nor are those of a chip
// that was configured and has not finished a cycle since.
//
// The chips convert by themselves, in cycles that no tick is in step with, of 0.84 ms by default, and average what lies between two sweeps. The
// conversion-ready flag, read with each sweep, tells whether a cycle was done since: if not, the same conversions are read twice (repeated). If
// more were done than the average holds, conversions were lost (missed): the flag is one bit, but the length of a cycle is measured at the
// start. Neither changes what time is measured.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ina3221.h"
#include "metering.h"
#include "telemetry.h"

#define SAMPLER_CHIPS 2
#define SAMPLER_CHANNELS (SAMPLER_CHIPS * INA3221_CHANNELS)
#define SAMPLER_HOLD 3      // periods a reading stands for at most
#define SAMPLER_AWAY 10     // sweeps in a row without an answer, after which a chip is only looked for
#define SAMPLER_OVERRUNS 10 // sweeps in a row that take longer than the period, after which bus voltages take turns

struct sampler_config {
    struct ina3221_bus bus;
    // Chips in the order of their channels' numbers. The earlier boards: 1 to 3 at 0x41, 4 to 6 at 0x40.
    uint8_t address[SAMPLER_CHIPS];
    int chips;
    struct metering_calibration calibration[METERING_MAX_CHANNELS]; // by channel, 3 for each chip
    uint32_t sweep_period_us;    // 500 to 1,000,000; sampler_rate sets it with the two below
    uint32_t report_interval_us; // 100000; at least a period
    enum ina3221_time conversion; // of shunt and bus
    enum ina3221_average average; // in the chip: an exponential filter, of some such cycles
    // Power-valid limits in counts of 8 mV: below lower the supply of the boards is failing. 0 leaves the chip's.
    int16_t power_valid_upper, power_valid_lower;
    // The clock in us since boot.
    uint64_t (*now)(void *context);
    void *clock_context;
};

// Counts of what the sensors did, for people and for metrics. Cycles are a chip's, of three channels each.
struct sampler_counts {
    uint64_t sweeps;             // ticks that were skipped among them
    uint64_t late;               // sweeps that began more than half a period behind
    uint64_t overruns;           // sweeps that took longer than the period
    uint64_t skipped;            // ticks without a sweep whose time the next reading stands for
    uint64_t holes;              // times that were longer than SAMPLER_HOLD periods
    uint64_t repeated, missed;   // cycles read twice; cycles that no reading has any part of
    uint64_t transfers, retried, failed; // retried is among transfers; failed: twice, or once if there was no time for another
    uint64_t resets;             // chips found unconfigured, or away and back
    uint64_t critical, warning;  // sweeps with the channel's alert; critical is set to mean the positive end of the range in any conversion
    uint64_t power_invalid;      // sweeps with the power-valid flag down; 0 without limits
};

struct sampler {
    struct sampler_config config;
    struct ina3221 chip[SAMPLER_CHIPS];
    bool present[SAMPLER_CHIPS]; // answers; if not, it is looked for each second
    bool settled[SAMPLER_CHIPS]; // has finished a cycle since it was configured
    struct metering metering;
    struct telemetry_batch batch;
    const struct telemetry_identity *identity;
    struct telemetry_queue *queue;
    struct sampler_counts counts;
    uint64_t tick_us;   // of the last sweep: what readings stand for goes from tick to tick
    uint64_t closed_us; // of the last report
    uint64_t due_us;    // the report interval's next
    uint32_t seq;
    bool rotate;        // one bus voltage per chip and sweep in turn, for buses that are too slow for all; until restarted
    int turn;
    uint32_t overruns;  // in a row
    int16_t bus[SAMPLER_CHANNELS]; // last bus voltage read
    bool bus_known[SAMPLER_CHANNELS];
    uint32_t failing[SAMPLER_CHIPS];  // sweeps in a row without an answer
    uint64_t look_us[SAMPLER_CHIPS];  // when a chip that is away is looked for
    uint64_t check_us[SAMPLER_CHIPS]; // when the configuration is compared
    uint32_t cycle_us[SAMPLER_CHIPS]; // length of a cycle: measured, or the most it can be
    uint64_t ready_us[SAMPLER_CHIPS]; // when the flag was last up
    uint32_t age_us[SAMPLER_CHIPS];   // of the cycle it told of, at that time
};

// Sets the defaults: 500 sweeps and 10 reports a second, the earlier boards' addresses, 0.1 ohm. Bus and clock remain to be set.
void sampler_defaults(struct sampler_config *config);
// Sets the period, and the chips to convert as fast as they can and to average until they are read: so all conversions count, not only those
// that happen to be read, and the energy of short bursts is nearer the truth. firmware/test/sampler/README.md has by how much.
void sampler_rate(struct sampler_config *config, uint32_t sweeps_per_second);
// Says how the sensors are run in the fields of an identity.
void sampler_describe(const struct sampler_config *config, struct telemetry_identity *identity);
// Finds the chips, starts them and measures their cycles, which takes 0.1 s each. A chip that does not answer is looked for again each
// second; its channels are unmeasured until then. Returns the number of chips found, or INA3221_ARGUMENT.
int sampler_init(struct sampler *s, const struct sampler_config *config, const struct telemetry_identity *identity, struct telemetry_queue *queue);
// The tick that is due next, on the grid of multiples of the period. It may be past by up to a period; ticks before that are skipped.
uint64_t sampler_next(const struct sampler *s, uint64_t now_us);
// One sweep, due at tick_us. Returns whether a report was published. A tick that is not after the last does nothing.
bool sampler_sweep(struct sampler *s, uint64_t tick_us);
