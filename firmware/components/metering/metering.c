#include "metering.h"

#include <string.h>

// One count in nV of shunt voltage and in uV of bus voltage (TI SBOS576, 8.6.2), and the ends of the 13-bit registers.
#define SHUNT_NV 40000
#define BUS_UV 8000
#define COUNT_MIN (-4096)
#define COUNT_MAX 4095

#define CARRY_US 1000000 // sums are carried before they stand for more
#define PPM 1000000

// Bounds. Sums stand for at most CARRY_US, so with counts of 13 bits, offsets of 100 mV and gains below 1.5:
//
//   |sum_power * SHUNT_NV|  4096 * 4096 * 1e6 * 40000 < 6.8e17     |offset * sum_bus|   1e8 * 4096 * 1e6 < 4.1e17
//   their difference                                  < 1.1e18     and int64 holds      9.2e18
//
// The divisors are the shunt times 1e9 and times 1e6, at most 1e16 < 2^54; the factors are the gain times 8, at most 1.2e7 < 2^24, and 1000.
// At full scale of 0.1 ohm and at 26 V, uJ in 64 bits last 6,800 years, nJ would last 7. What an open
// interval has is in nJ: it must be closed within as many years, or within a day where all of a calibration is at its limit.
_Static_assert((int64_t)COUNT_MIN * COUNT_MIN * SHUNT_NV < INT64_MAX / CARRY_US / 4, "a carry's worth of power fits, with its offset");
_Static_assert(METERING_LONGEST_US <= CARRY_US, "one conversion alone does not pass the bound");

// Returns floor((n * m + rest) / d), and leaves what is over in rest, so that nothing is ever lost; 0 <= rest < d < 2^54, m < 2^24.
//
// n * m takes up to 85 bits, and the chip has no division of 128. With n = a * d + b, 0 <= b < d, only b * m remains to be divided, and that
// in digits of m of 8 bits, as on paper: each step divides less than 2^63. The divisor floors, and what is over is not negative; so a sum
// of many such results is the same however the terms were grouped.
static int64_t scale(int64_t n, uint32_t m, int64_t *rest, int64_t d)
{
    int64_t a = n / d, b = n - a * d;
    if (b < 0) {
        a--;
        b += d;
    }
    uint64_t divisor = (uint64_t)d, quotient, over;
    if (b >> 39 == 0) {
        over = (uint64_t)b * m;
        quotient = over / divisor;
        over -= quotient * divisor;
    } else {
        quotient = over = 0;
        for (int shift = 16; shift >= 0; shift -= 8) {
            over = (over << 8) + (uint64_t)b * (m >> shift & 255);
            uint64_t digit = over / divisor;
            over -= digit * divisor;
            quotient = (quotient << 8) + digit;
        }
    }
    over += (uint64_t)*rest;
    if (over >= divisor) {
        over -= divisor;
        quotient++;
    }
    *rest = (int64_t)over;
    return a * (int64_t)m + (int64_t)quotient;
}

// Returns n * m / d to the nearest, halves up.
static int64_t nearest(int64_t n, uint32_t m, int64_t d)
{
    int64_t half = d / 2;
    return scale(n, m, &half, d);
}

static uint32_t gain(const struct metering_account *a) { return (uint32_t)(PPM + a->calibration.gain_ppm); }

// Adds n thousandths to a total.
static void book(int64_t *total, int32_t *thousandths, int64_t n)
{
    int64_t rest = *thousandths;
    *total += scale(n, 1, &rest, 1000);
    *thousandths = (int32_t)rest;
}

// Moves the sums into the totals.
//
// nV counts us, times 8 mV, over uOhm, are 8e-3 nJ, and the gain is in millionths: hence shunt * 1e9. nV us over uOhm are nC.
static void carry(struct metering_account *a)
{
    int64_t shunt = a->calibration.shunt_uohm, offset = a->calibration.offset_nv;
    int64_t nj = scale(a->sum_power * SHUNT_NV - offset * a->sum_bus, BUS_UV / 1000 * gain(a), &a->energy_rest, shunt * 1000000000);
    int64_t nc = scale(a->sum_shunt * SHUNT_NV - offset * a->sum_time, gain(a), &a->charge_rest, shunt * PPM);
    book(&a->energy_uj, &a->energy_nj, nj);
    book(&a->charge_uc, &a->charge_nc, nc);
    a->in_energy += nj;
    a->in_charge += nc;
    a->in_bus += a->sum_bus;
    a->in_time += a->sum_time;
    a->sum_power = a->sum_shunt = a->sum_bus = a->sum_time = 0;
}

static void open_interval(struct metering_account *a)
{
    a->in_energy = a->in_charge = a->in_bus = a->in_time = 0;
    a->min_power = INT64_MAX;
    a->max_power = INT64_MIN;
    a->min_bus = INT16_MAX;
    a->max_bus = INT16_MIN;
}

static int16_t clamp(int16_t count) { return count < COUNT_MIN ? COUNT_MIN : count > COUNT_MAX ? COUNT_MAX : count; }

static void add(struct metering_account *a, int16_t shunt_counts, int16_t bus_counts, uint32_t dt_us)
{
    // The registers cannot hold more; a caller's error must not break the bounds above.
    int64_t shunt = clamp(shunt_counts), bus = clamp(bus_counts), dt = dt_us;
    if (shunt >= METERING_FULL_SCALE || shunt <= -METERING_FULL_SCALE) {
        a->saturated++;
    }
    if (dt > METERING_LONGEST_US) {
        a->unmeasured_us += (uint64_t)(dt - METERING_LONGEST_US);
        dt = METERING_LONGEST_US;
    }
    if (a->sum_time + dt > CARRY_US) {
        carry(a);
    }
    a->sum_power += shunt * bus * dt;
    a->sum_shunt += shunt * dt;
    a->sum_bus += bus * dt;
    a->sum_time += dt;
    // The gain is positive, so the extremes of power are those of this product, which waits for it until the interval closes.
    int64_t power = (shunt * SHUNT_NV - a->calibration.offset_nv) * bus;
    if (power < a->min_power) {
        a->min_power = power;
    }
    if (power > a->max_power) {
        a->max_power = power;
    }
    if (bus < a->min_bus) {
        a->min_bus = (int16_t)bus;
    }
    if (bus > a->max_bus) {
        a->max_bus = (int16_t)bus;
    }
}

static void miss(struct metering_account *a, uint32_t dt_us)
{
    a->sensor_errors++;
    a->unmeasured_us += dt_us;
}

static uint64_t distance(int64_t from, int64_t to) { return to > from ? (uint64_t)(to - from) : 0; }

static void close_interval(struct metering_account *a, struct metering_totals *t, struct metering_interval *i)
{
    carry(a);
    *t = (struct metering_totals){
        .energy_uj = a->energy_uj + (a->energy_nj >= 500), // the nearest, halves up
        .charge_uc = a->charge_uc + (a->charge_nc >= 500),
        .unmeasured_us = a->unmeasured_us, .saturated = a->saturated, .sensor_errors = a->sensor_errors,
    };
    *i = (struct metering_interval){0};
    if (a->in_time > 0) {
        // nJ over us are mW. The means may lie beside the extremes by a rounding.
        i->power_uw = nearest(a->in_energy, 1000, a->in_time);
        i->current_ua = nearest(a->in_charge, 1000, a->in_time);
        i->voltage_uv = nearest(a->in_bus, BUS_UV, a->in_time);
        // nV counts, times 8 mV, over uOhm, are 8 uW.
        int64_t divisor = (int64_t)a->calibration.shunt_uohm * PPM;
        i->power_drop_uw = distance(nearest(a->min_power, BUS_UV / 1000 * gain(a), divisor), i->power_uw);
        i->power_rise_uw = distance(i->power_uw, nearest(a->max_power, BUS_UV / 1000 * gain(a), divisor));
        i->voltage_drop_uv = distance(a->min_bus * BUS_UV, i->voltage_uv);
        i->voltage_rise_uv = distance(i->voltage_uv, a->max_bus * BUS_UV);
    }
    open_interval(a);
}

bool metering_init(struct metering *m, const struct metering_calibration *calibration, int n)
{
    if (n < 1 || n > METERING_MAX_CHANNELS) {
        return false;
    }
    memset(m, 0, sizeof *m);
    for (int i = 0; i < n; i++) {
        const struct metering_calibration *c = &calibration[i];
        if (c->shunt_uohm < 100 || c->shunt_uohm > 10000000 || c->gain_ppm < -500000 || c->gain_ppm > 500000 || c->offset_nv < -100000000 ||
            c->offset_nv > 100000000) {
            return false;
        }
        m->account[i].calibration = *c;
        open_interval(&m->account[i]);
    }
    m->channels = n;
    return true;
}

void metering_add(struct metering *m, int channel, int16_t shunt, int16_t bus, uint32_t dt_us) { add(&m->account[channel], shunt, bus, dt_us); }

void metering_saturated(struct metering *m, int channel) { m->account[channel].saturated++; }

void metering_miss(struct metering *m, int channel, uint32_t dt_us) { miss(&m->account[channel], dt_us); }

void metering_gap(struct metering *m, uint64_t dt_us)
{
    for (int i = 0; i < m->channels; i++) {
        m->account[i].unmeasured_us += dt_us;
    }
}

void metering_close(struct metering *m, int channel, struct metering_totals *totals, struct metering_interval *interval)
{
    close_interval(&m->account[channel], totals, interval);
}

void metering_preview(const struct metering *m, int channel, bool ok, int16_t shunt, int16_t bus, uint32_t dt_us, struct metering_totals *totals,
                      struct metering_interval *interval)
{
    struct metering_account a = m->account[channel];
    if (ok) {
        add(&a, shunt, bus, dt_us);
    } else {
        miss(&a, dt_us);
    }
    close_interval(&a, totals, interval);
}
