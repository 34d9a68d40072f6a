// Integration of energy and charge to 64-bit totals, in integers, one account per channel.
//
// Plain C11: no heap, no clock, no floating point. Whoever converts calls it with counts and the time they stand for. With counts of
// shunt voltage (40 uV) and bus voltage (8 mV), dt in us and the shunt R in uOhm:
//
//   energy = sum(shunt * bus * dt) * 320 / R nJ        charge = sum(shunt * dt) * 40000 / R nC
//
// less the offset, times the gain. Nothing is rounded but on the way out, to the nearest, halves up: what a division leaves is carried into the
// next. So a total depends on the conversions alone, not on when it was asked for, and never falls under positive power.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define METERING_MAX_CHANNELS 12
#define METERING_FULL_SCALE 4095 // counts; at or beyond it the reading is a bound
#define METERING_LONGEST_US 1000000 // that one conversion can stand for

// One channel as it is wired and calibrated.
struct metering_calibration {
    uint32_t shunt_uohm; // 100 to 10,000,000
    int32_t gain_ppm;    // correction: 1000 makes the result 0.1 % larger; within 500,000
    int32_t offset_nv;   // of the shunt voltage, subtracted; within 100,000,000
};

// Running totals since the boot.
struct metering_totals {
    int64_t energy_uj, charge_uc;
    uint64_t unmeasured_us, saturated, sensor_errors;
};

// What a closed interval was like. Means are zero when nothing was measured in it, and so are the distances.
struct metering_interval {
    int64_t power_uw, voltage_uv, current_ua;                                // means over measured time
    uint64_t power_drop_uw, power_rise_uw, voltage_drop_uv, voltage_rise_uv; // mean - min, max - mean
};

// An account; its fields are metering's.
struct metering_account {
    struct metering_calibration calibration;
    // Sums since the last carry: counts^2 us, counts us of shunt and of bus, us.
    int64_t sum_power, sum_shunt, sum_bus, sum_time;
    // Totals: whole uJ and uC, the nJ and nC beside them, and the rests of their divisions, none of which is negative.
    int64_t energy_uj, charge_uc;
    int32_t energy_nj, charge_nc;
    int64_t energy_rest, charge_rest;
    uint64_t unmeasured_us, saturated, sensor_errors;
    // The open interval: what was carried in it in nJ and nC, counts us of bus, us, and extremes in nV counts and counts.
    int64_t in_energy, in_charge, in_bus, in_time;
    int64_t min_power, max_power;
    int16_t min_bus, max_bus;
};

struct metering {
    int channels;
    struct metering_account account[METERING_MAX_CHANNELS];
};

// Starts n accounts at zero. Returns false if a calibration or n is out of range.
bool metering_init(struct metering *m, const struct metering_calibration *calibration, int n);
// One conversion of a channel stands for dt microseconds. What is beyond METERING_LONGEST_US is unmeasured: nobody knows what was there.
void metering_add(struct metering *m, int channel, int16_t shunt, int16_t bus, uint32_t dt_us);
// The reading just added is a bound although its count does not show it: it is an average in the chip, of which a conversion was at full scale.
void metering_saturated(struct metering *m, int channel);
// A conversion could not be read: dt is unmeasured, and an error is counted.
void metering_miss(struct metering *m, int channel, uint32_t dt_us);
// Nobody sampled for dt: unmeasured, without an error of the sensor.
void metering_gap(struct metering *m, uint64_t dt_us);
// Closes the open interval of a channel, tells its totals and what it was like, and opens the next.
void metering_close(struct metering *m, int channel, struct metering_totals *totals, struct metering_interval *interval);
// Tells what metering_close would, had one more conversion been added before, or missed if ok is false. Nothing changes.
void metering_preview(const struct metering *m, int channel, bool ok, int16_t shunt, int16_t bus, uint32_t dt_us, struct metering_totals *totals,
                      struct metering_interval *interval);
