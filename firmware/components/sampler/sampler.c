#include "sampler.h"

#include <string.h>

#define SECOND_US 1000000
#define MEASURE_US 100000 // how long a cycle is measured
#define MEASURE_POLLS 4000 // the most, should the clock stand

static uint64_t now(const struct sampler *s) {
    return s->config.now(s->config.clock_context);
}

static const uint16_t conversion_us[] = {140, 204, 332, 588, 1100, 2116, 4156, 8244};
static const uint16_t averages[] = {1, 4, 16, 64, 128, 256, 512, 1024};

// Cycles of a chip in one of its averages.
static uint32_t cycles_averaged(const struct sampler *s) {
    return averages[s->config.average];
}

static struct ina3221_config chip_config(const struct sampler_config *c) {
    return (struct ina3221_config){
        .enabled = {true, true, true}, .average = c->average, .bus_time = c->conversion, .shunt_time = c->conversion, .mode = INA3221_BOTH,
    };
}

static uint32_t typical_cycle_us(const struct sampler_config *c) {
    struct ina3221_config config = chip_config(c);
    return ina3221_cycle_us(&config);
}

// The slowest oscillator is a tenth below typical. Whether the flag is up once a cycle or once an average is for the chip to say, so an average
// is the bound.
static uint32_t longest_cycle_us(const struct sampler *s) {
    uint32_t typical = typical_cycle_us(&s->config);
    return (typical + typical / 10) * cycles_averaged(s);
}

void sampler_defaults(struct sampler_config *config) {
    *config = (struct sampler_config){
        .address = {0x41, 0x40}, .chips = SAMPLER_CHIPS, .report_interval_us = 100000,
        .power_valid_upper = 594, .power_valid_lower = 575, // 4.75 V and 4.6 V: boards of 5 V
    };
    for (int channel = 0; channel < SAMPLER_CHANNELS; channel++) {
        config->calibration[channel].shunt_uohm = 100000;
    }
    sampler_rate(config, 500);
}

void sampler_rate(struct sampler_config *config, uint32_t sweeps_per_second) {
    config->sweep_period_us = SECOND_US / sweeps_per_second;
    config->conversion = INA3221_140_US;
    config->average = INA3221_AVG_4;
    while (config->average < INA3221_AVG_1024 && averages[config->average] * typical_cycle_us(config) < config->sweep_period_us) {
        config->average++;
    }
}

void sampler_describe(const struct sampler_config *config, struct telemetry_identity *identity) {
    identity->sweep_period_us = config->sweep_period_us;
    identity->report_interval_us = config->report_interval_us;
    identity->shunt_conversion_us = identity->bus_conversion_us = conversion_us[config->conversion];
    identity->averaging = averages[config->average];
    identity->channels = config->chips * INA3221_CHANNELS;
}

// ---- transfers

// Counts a transfer that was made, and says whether it went well.
static bool made(struct sampler *s, int result) {
    s->counts.transfers++;
    return result == INA3221_OK;
}

// Says whether a sweep has used up its period, as it has when a bus that is stuck lets each transfer time out.
static bool spent(const struct sampler *s, uint64_t begin_us) {
    return now(s) - begin_us >= s->config.sweep_period_us;
}

// Says whether a transfer that failed is to be made again.
static bool again(struct sampler *s, uint64_t begin_us) {
    if (spent(s, begin_us)) {
        s->counts.failed++;
        return false;
    }
    s->counts.retried++;
    return true;
}

static bool gone_wrong(struct sampler *s) {
    s->counts.failed++;
    return false;
}

static bool read_shunt(struct sampler *s, int i, int channel, uint64_t begin_us, int16_t *counts) {
    if (made(s, ina3221_shunt(&s->chip[i], channel, counts))) {
        return true;
    }
    return again(s, begin_us) && (made(s, ina3221_shunt(&s->chip[i], channel, counts)) || gone_wrong(s));
}

static bool read_bus(struct sampler *s, int i, int channel, uint64_t begin_us, int16_t *counts) {
    if (made(s, ina3221_bus_voltage(&s->chip[i], channel, counts))) {
        return true;
    }
    return again(s, begin_us) && (made(s, ina3221_bus_voltage(&s->chip[i], channel, counts)) || gone_wrong(s));
}

// whole says that no flag can have been lost: a read that broke may have cleared what it did not bring.
static bool read_flags(struct sampler *s, int i, uint64_t begin_us, struct ina3221_flags *flags, bool *whole) {
    *whole = true;
    if (made(s, ina3221_flags(&s->chip[i], flags))) {
        return true;
    }
    *whole = false;
    return again(s, begin_us) && (made(s, ina3221_flags(&s->chip[i], flags)) || gone_wrong(s));
}

// ---- chips

// Sets up a chip that answers. The configuration comes last: it starts the cycle that has to be finished before a reading counts. An average
// starts from what the register holds, which is nothing after a reset, so the first cycle goes without.
static bool start(struct sampler *s, int i) {
    struct ina3221 *chip = &s->chip[i];
    struct ina3221_config config = chip_config(&s->config);
    config.average = INA3221_AVG_1;
    s->settled[i] = false;
    for (int channel = 0; channel < INA3221_CHANNELS; channel++) {
        s->bus_known[i * INA3221_CHANNELS + channel] = false;
    }
    if (!made(s, ina3221_reset(chip))) {
        return false;
    }
    // The alert of a conversion at the end of the range, which the average of several would not show.
    for (int channel = 0; channel < INA3221_CHANNELS; channel++) {
        if (!made(s, ina3221_set_critical(chip, channel, INA3221_FULL_SCALE - 1))) {
            return false;
        }
    }
    if (s->config.power_valid_upper && !made(s, ina3221_set_power_valid(chip, s->config.power_valid_upper, s->config.power_valid_lower))) {
        return false;
    }
    if (!made(s, ina3221_set_latch(chip, true, true)) || !made(s, ina3221_configure(chip, &config))) {
        return false;
    }
    s->ready_us[i] = now(s);
    s->age_us[i] = 0;
    return true;
}

// Takes a chip as away: it is looked for in a second.
static void leave(struct sampler *s, int i, uint64_t at_us) {
    s->present[i] = s->settled[i] = false;
    s->failing[i] = 0;
    s->look_us[i] = at_us + SECOND_US;
}

static void find(struct sampler *s, int i, uint64_t at_us) {
    s->present[i] = made(s, ina3221_init(&s->chip[i], s->config.bus, s->config.address[i])) && (start(s, i) || start(s, i));
    if (!s->present[i]) {
        leave(s, i, at_us);
        return;
    }
    // The chips are checked in turn.
    s->check_us[i] = at_us + SECOND_US / SAMPLER_CHIPS * (uint64_t)(i + 1);
}

// Compares a chip's configuration with what was written.
static enum { UNKNOWN, SAME, DIFFERENT } compare(struct sampler *s, int i) {
    const struct ina3221_config *written = &s->chip[i].config;
    struct ina3221_config config;
    if (!made(s, ina3221_read_config(&s->chip[i], &config)) && !made(s, ina3221_read_config(&s->chip[i], &config))) {
        return UNKNOWN;
    }
    bool same = config.average == written->average && config.bus_time == written->bus_time && config.shunt_time == written->shunt_time &&
                config.mode == written->mode && memcmp(config.enabled, written->enabled, sizeof config.enabled) == 0;
    return same ? SAME : DIFFERENT;
}

// Notes that a cycle of a chip that is being set up was done, and of which configuration. Returns false if it has to be set up anew.
static bool settle(struct sampler *s, int i, uint64_t t) {
    struct ina3221_config config = chip_config(&s->config);
    s->ready_us[i] = t;
    s->age_us[i] = 0;
    switch (compare(s, i)) {
    case UNKNOWN: return true; // after the next cycle, perhaps
    case DIFFERENT: return false;
    case SAME: break;
    }
    if (s->chip[i].config.average == config.average) {
        s->settled[i] = true;
        return true;
    }
    return made(s, ina3221_configure(&s->chip[i], &config)) || made(s, ina3221_configure(&s->chip[i], &config));
}

// Sets up a chip anew that was found not to be as it was set up.
static void restart(struct sampler *s, int i, uint64_t at_us) {
    s->counts.resets++;
    if (!start(s, i) && !start(s, i)) {
        leave(s, i, at_us);
    }
}

// Measures the cycle of a chip by watching its flag come up, to about 0.2 % at 400 kHz.
static void measure(struct sampler *s, int i) {
    uint64_t begin = now(s), first = 0, last = 0;
    uint32_t cycles = 0;
    for (int polls = 0; polls < MEASURE_POLLS; polls++) {
        struct ina3221_flags flags;
        if (!made(s, ina3221_flags(&s->chip[i], &flags))) {
            break;
        }
        uint64_t t = now(s);
        if (flags.ready && s->settled[i]) {
            cycles++;
            last = s->ready_us[i] = t;
        } else if (flags.ready) {
            if (!settle(s, i, t)) {
                break;
            }
            first = last = t;
        }
        if (t - begin >= MEASURE_US && (cycles > 0 || t - begin >= 4 * MEASURE_US)) {
            break;
        }
    }
    // Polls that are as far apart as cycles see too few of them.
    if (cycles > 0 && (last - first) / cycles < s->cycle_us[i]) {
        s->cycle_us[i] = (uint32_t)((last - first) / cycles);
    }
}

int sampler_init(struct sampler *s, const struct sampler_config *config, const struct telemetry_identity *identity, struct telemetry_queue *queue) {
    if (!config->now || config->chips < 1 || config->chips > SAMPLER_CHIPS || config->sweep_period_us < 500 ||
        config->sweep_period_us > SECOND_US || config->report_interval_us < config->sweep_period_us ||
        (unsigned)config->conversion > INA3221_8244_US || (unsigned)config->average > INA3221_AVG_1024 ||
        identity->channels != config->chips * INA3221_CHANNELS) {
        return INA3221_ARGUMENT;
    }
    memset(s, 0, sizeof *s);
    s->config = *config;
    s->identity = identity;
    s->queue = queue;
    if (!metering_init(&s->metering, config->calibration, config->chips * INA3221_CHANNELS)) {
        return INA3221_ARGUMENT;
    }
    telemetry_batch_reset(&s->batch);
    int found = 0;
    for (int i = 0; i < config->chips; i++) {
        s->cycle_us[i] = longest_cycle_us(s);
        find(s, i, now(s));
        if (s->present[i]) {
            measure(s, i);
            found++;
        }
    }
    return found;
}

// ---- a sweep

// Tells from the flag what became of the cycles since it was last up. age is the time from the end of a cycle to the flag that told of it.
static void follow(struct sampler *s, int i, bool ready, uint64_t t) {
    uint64_t cycle = s->cycle_us[i], since = t - s->ready_us[i] + s->age_us[i];
    if (!ready) {
        s->counts.repeated++;
        // No cycle has ended since: it cannot be older than that.
        if (since >= cycle) {
            uint64_t over = since - cycle + 1;
            s->age_us[i] = over < s->age_us[i] ? s->age_us[i] - (uint32_t)over : 0;
        }
        return;
    }
    uint64_t ended = since / cycle;
    if (ended < 1) {
        ended = 1;
        since = cycle;
    }
    // An average has a part of the cycles before.
    if (ended > cycles_averaged(s)) {
        s->counts.missed += ended - cycles_averaged(s);
    }
    s->age_us[i] = (uint32_t)(since - ended * cycle);
    s->ready_us[i] = t;
}

// Reads one chip. ok says for each of its channels whether shunt and bus are a reading, clipped whether a conversion was at the end of the range.
static void read_chip(struct sampler *s, int i, uint64_t tick_us, uint64_t begin_us, int16_t *shunt, bool *ok, bool *clipped) {
    if (!s->present[i]) {
        if (tick_us >= s->look_us[i]) {
            find(s, i, tick_us);
            s->counts.resets += s->present[i];
        }
        return;
    }
    int16_t bus[INA3221_CHANNELS];
    bool taken[INA3221_CHANNELS] = {false, false, false}, bus_taken[INA3221_CHANNELS] = {false, false, false};
    for (int channel = 0; channel < INA3221_CHANNELS && s->settled[i]; channel++) {
        // Voltage and current of a channel are read, as they are converted, one right after the other.
        taken[channel] = read_shunt(s, i, channel, begin_us, &shunt[channel]);
        if (!taken[channel] && spent(s, begin_us)) {
            break;
        }
        if (!s->rotate || channel == s->turn) {
            bus_taken[channel] = read_bus(s, i, channel, begin_us, &bus[channel]);
            if (!bus_taken[channel] && spent(s, begin_us)) {
                break;
            }
        }
    }
    struct ina3221_flags flags;
    bool whole;
    if (!read_flags(s, i, begin_us, &flags, &whole)) {
        if (++s->failing[i] >= SAMPLER_AWAY) {
            leave(s, i, tick_us);
        }
        return;
    }
    uint64_t t = now(s);
    s->failing[i] = 0;
    if (flags.lost) {
        restart(s, i, tick_us);
        return;
    }
    if (!s->settled[i]) {
        if (flags.ready && !settle(s, i, t)) {
            restart(s, i, tick_us);
            return;
        }
    } else {
        int16_t *known = &s->bus[i * INA3221_CHANNELS];
        bool *is_known = &s->bus_known[i * INA3221_CHANNELS];
        for (int channel = 0; channel < INA3221_CHANNELS; channel++) {
            if (bus_taken[channel]) {
                known[channel] = bus[channel];
            }
            if (!s->rotate || channel == s->turn) {
                is_known[channel] = bus_taken[channel];
            }
            ok[channel] = taken[channel] && is_known[channel];
            clipped[channel] = flags.critical[channel];
            s->counts.critical += flags.critical[channel];
            s->counts.warning += flags.warning[channel];
        }
        s->counts.power_invalid += s->config.power_valid_upper && !flags.power_valid;
        if (whole) {
            follow(s, i, flags.ready, t);
        } else {
            s->ready_us[i] = t; // perhaps
            s->age_us[i] = 0;
        }
    }
    // A converter that stands, and once a second a configuration that is not as written: something wrote to the chip.
    bool stands = t - s->ready_us[i] > 4 * (uint64_t)s->cycle_us[i] + 2 * (uint64_t)s->config.sweep_period_us;
    if (stands || tick_us >= s->check_us[i]) {
        s->check_us[i] = tick_us + SECOND_US;
        if (compare(s, i) == DIFFERENT || stands) {
            for (int channel = 0; channel < INA3221_CHANNELS; channel++) {
                ok[channel] = false;
            }
            restart(s, i, tick_us);
        }
    }
}

// Closes the report of all sweeps up to tick_us. Returns false if there is no room for it: then all goes on.
static bool close_report(struct sampler *s) {
    struct telemetry_interval *slot = telemetry_queue_slot(s->queue);
    if (!slot) {
        return false;
    }
    slot->seq = ++s->seq;
    slot->t_us = s->tick_us;
    slot->interval_us = (uint32_t)(s->tick_us - s->closed_us);
    slot->sweeps = s->counts.sweeps;
    slot->channels = s->metering.channels;
    for (int channel = 0; channel < s->metering.channels; channel++) {
        metering_close(&s->metering, channel, &slot->channel[channel].totals, &slot->channel[channel].interval);
    }
    telemetry_batch_close(&s->batch, s->identity, slot);
    telemetry_queue_publish(s->queue);
    telemetry_batch_reset(&s->batch);
    s->closed_us = s->tick_us;
    s->due_us = (s->tick_us / s->config.report_interval_us + 1) * s->config.report_interval_us;
    return true;
}

// Makes room in the batch: by a report if one can be made, or by giving up the samples, of which the totals still know.
static bool make_room(struct sampler *s) {
    if (close_report(s)) {
        return true;
    }
    telemetry_batch_reset(&s->batch);
    telemetry_queue_drop(s->queue);
    return false;
}

// Says whether a sweep fits the open report. The exact answer costs divisions and is asked for only when the cheap one is no.
static bool fits(struct sampler *s, uint64_t tick_us, uint32_t dt_us, const int16_t *shunt, const bool *ok) {
    if (telemetry_batch_fits(&s->batch, s->identity, NULL, shunt, ok)) {
        return true;
    }
    struct telemetry_interval *slot = telemetry_queue_slot(s->queue);
    if (!slot) {
        return false;
    }
    slot->seq = s->seq + 1;
    slot->t_us = tick_us;
    slot->interval_us = (uint32_t)(tick_us - s->closed_us);
    slot->sweeps = s->counts.sweeps + 1;
    slot->channels = s->metering.channels;
    for (int channel = 0; channel < s->metering.channels; channel++) {
        metering_preview(&s->metering, channel, ok[channel], shunt[channel], s->bus[channel], dt_us, &slot->channel[channel].totals,
                         &slot->channel[channel].interval);
    }
    return telemetry_batch_fits(&s->batch, s->identity, slot, shunt, ok);
}

// Declares time without a reading as unmeasured, up to which a report can be closed.
static void pass(struct sampler *s, uint64_t us) {
    metering_gap(&s->metering, us);
    s->tick_us += us;
}

// Books a sweep of all channels, and skipped ones before it, up to a tick.
static bool book(struct sampler *s, uint64_t tick_us, uint32_t skipped, const int16_t *shunt, const bool *ok, const bool *clipped) {
    static const int16_t nothing[METERING_MAX_CHANNELS];
    static const bool none[METERING_MAX_CHANNELS];
    uint64_t period = s->config.sweep_period_us;
    int channels = s->metering.channels;
    bool published = false;
    uint64_t ahead = 0; // skipped sweeps in the batch that tick_us is not yet past
    for (uint32_t i = 0; i < skipped; i++) {
        if (!telemetry_batch_fits(&s->batch, s->identity, NULL, nothing, none)) {
            pass(s, ahead * period);
            ahead = 0;
            published |= make_room(s);
        }
        telemetry_batch_add(&s->batch, channels, nothing, none);
        for (int channel = 0; channel < channels; channel++) {
            metering_miss(&s->metering, channel, 0); // its time is the next reading's
        }
        s->counts.sweeps++;
        s->counts.skipped++;
        ahead++;
    }
    if (!fits(s, tick_us, (uint32_t)(tick_us - s->tick_us), shunt, ok)) {
        pass(s, ahead * period);
        published |= make_room(s);
    }
    telemetry_batch_add(&s->batch, channels, shunt, ok);
    uint32_t dt_us = (uint32_t)(tick_us - s->tick_us);
    for (int channel = 0; channel < channels; channel++) {
        if (ok[channel]) {
            metering_add(&s->metering, channel, shunt[channel], s->bus[channel], dt_us);
            if (clipped[channel] && shunt[channel] > -METERING_FULL_SCALE && shunt[channel] < METERING_FULL_SCALE) {
                metering_saturated(&s->metering, channel);
            }
        } else {
            metering_miss(&s->metering, channel, dt_us);
        }
    }
    s->counts.sweeps++;
    s->tick_us = tick_us;
    if (tick_us >= s->due_us) {
        published |= close_report(s);
    }
    return published;
}

uint64_t sampler_next(const struct sampler *s, uint64_t now_us) {
    uint64_t period = s->config.sweep_period_us, next = (s->tick_us / period + 1) * period, latest = now_us / period * period;
    return next > latest ? next : latest;
}

bool sampler_sweep(struct sampler *s, uint64_t tick_us) {
    if (tick_us <= s->tick_us) {
        return false;
    }
    uint64_t period = s->config.sweep_period_us, begin = now(s), transfers = s->counts.transfers;
    s->counts.late += begin > tick_us + period / 2;

    int16_t shunt[SAMPLER_CHANNELS] = {0};
    bool ok[SAMPLER_CHANNELS] = {false}, clipped[SAMPLER_CHANNELS] = {false};
    uint64_t nominal = 0;
    for (int i = 0; i < s->config.chips; i++) {
        if (s->counts.sweeps == 0) {
            s->ready_us[i] = begin; // cycles before the first sweep are not missed
        }
        nominal += !s->settled[i] ? 0 : s->rotate ? INA3221_CHANNELS + 2 : 2 * INA3221_CHANNELS + 1;
        read_chip(s, i, tick_us, begin, &shunt[i * INA3221_CHANNELS], &ok[i * INA3221_CHANNELS],
                  &clipped[i * INA3221_CHANNELS]);
    }
    if (s->rotate) {
        s->turn = (s->turn + 1) % INA3221_CHANNELS;
    }

    bool published = false;
    uint64_t periods = (tick_us - s->tick_us + period / 2) / period;
    if (periods > SAMPLER_HOLD) {
        // Samples on either side of a hole are not a period apart: they belong into different batches.
        if (s->batch.sweeps > 0) {
            published |= make_room(s);
        }
        pass(s, tick_us - s->tick_us - period);
        s->due_us = (s->tick_us / s->config.report_interval_us + 1) * s->config.report_interval_us;
        s->counts.holes++;
        periods = 1;
    }
    published |= book(s, tick_us, periods > 1 ? (uint32_t)periods - 1 : 0, shunt, ok, clipped);

    // The bus is too slow if a sweep takes longer than the period though nothing went wrong in it.
    uint64_t took = now(s) - begin;
    s->counts.overruns += took > period;
    if (s->counts.transfers - transfers == nominal) {
        s->overruns = took > period ? s->overruns + 1 : 0;
        if (s->overruns >= SAMPLER_OVERRUNS) {
            s->rotate = true;
        }
    }
    return published;
}
