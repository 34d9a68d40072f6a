// The sampler over simulated chips: what it measures, what it does about faults, and that its books balance whatever happens.
#include <stdlib.h>

#include "check.h"
#include "rig.h"

// Full books are kept of each run: 1.6 A on 0.1 ohm are 4000 counts, of which a microsecond is 1.6 uC. So the charge tells to the microsecond for
// how long a channel was measured, and it is not for the sampler to say.
#define BOOK_UA 1600000

static struct rig r;
static struct sampler_config config;
static struct sampler *const s = &r.sampler;
// What reports said so far.
static struct {
    uint64_t reports, batched[SAMPLER_CHANNELS], missing[SAMPLER_CHANNELS], sweeps;
    uint64_t t_us, total, wide;
} books;

static size_t encoded; // size of the last report

static void set_all(uint32_t ua) {
    for (int i = 0; i < SAMPLER_CHANNELS; i++) {
        r.load[i].low_ua = ua;
    }
}

static void fresh(uint32_t ua) {
    rig_init(&r, &config);
    memset(&books, 0, sizeof books);
    set_all(ua);
}

// Reads one varint of an encoded message.
static uint64_t varint(const uint8_t **p) {
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        uint8_t b = *(*p)++;
        v |= (uint64_t)(b & 127) << shift;
        if (b < 128) {
            return v;
        }
    }
}

static uint64_t count_varints(const uint8_t *p, const uint8_t *end) {
    uint64_t n = 0;
    while (p < end) {
        n += *p++ < 128;
    }
    return n;
}

// Counts samples and missing sweeps of a Batch message. Fields of proto/meter/v1: Batch 2 sweeps, 3 channels; ChannelSamples 2, 3.
static void read_batch(const struct telemetry_interval *i) {
    const uint8_t *p = i->batch, *end = p + i->batch_length;
    uint64_t sweeps = 0, counts[SAMPLER_CHANNELS] = {0}, missing[SAMPLER_CHANNELS] = {0};
    int channel = 0;
    while (p < end) {
        uint64_t tag = varint(&p), value = varint(&p);
        if (tag == (2 << 3 | 0)) {
            sweeps = value;
        }
        if (tag == (3 << 3 | 2) && CHECK(channel < SAMPLER_CHANNELS)) {
            const uint8_t *stop = p + value;
            while (p < stop) {
                uint64_t inner = varint(&p), size = varint(&p);
                if (inner == (2 << 3 | 2)) {
                    counts[channel] = count_varints(p, p + size);
                } else if (inner == (3 << 3 | 2)) {
                    missing[channel] = count_varints(p, p + size);
                }
                p += (inner & 7) == 2 ? size : 0;
            }
            channel++;
        }
    }
    books.sweeps += sweeps;
    for (channel = 0; channel < SAMPLER_CHANNELS; channel++) {
        CHECK_EQ(counts[channel] + missing[channel], sweeps);
        books.batched[channel] += counts[channel];
        books.missing[channel] += missing[channel];
    }
}

// Takes all reports and checks that each balances.
static void take(void) {
    const struct telemetry_interval *i;
    while ((i = telemetry_queue_peek(&r.queue))) {
        CHECK_EQ(i->seq, books.reports + 1);
        CHECK(i->t_us > books.t_us);
        CHECK_EQ(i->interval_us, i->t_us - books.t_us);
        // All sweeps of a report are a period apart, up to its time, unless there was a hole before them.
        uint64_t span = (i->sweeps - books.total) * config.sweep_period_us;
        CHECK(i->interval_us >= span);
        books.wide += i->interval_us > span;
        CHECK(books.wide <= s->counts.holes);
        uint8_t body[TELEMETRY_MAX_BODY];
        encoded = telemetry_encode_report(&r.identity, i, body, sizeof body);
        CHECK(encoded > 0);
        books.total = i->sweeps;
        books.t_us = i->t_us;
        books.reports++;
        for (int channel = 0; channel < SAMPLER_CHANNELS; channel++) {
            const struct metering_totals *t = &i->channel[channel].totals;
            if (r.load[channel].low_ua == BOOK_UA) {
                // Measured and unmeasured time are all of the time, to the microsecond.
                CHECK_EQ((t->charge_uc * 10 + 8) / 16 + (int64_t)t->unmeasured_us, i->t_us);
            }
            CHECK(t->sensor_errors <= i->sweeps);
            CHECK_EQ(t->sensor_errors == i->sweeps, t->charge_uc == 0);
        }
        if (i->batch_length) {
            read_batch(i);
        }
        if (!r.queue.dropped) {
            CHECK_EQ(books.sweeps, i->sweeps);
            for (int channel = 0; channel < SAMPLER_CHANNELS; channel++) {
                CHECK_EQ(books.missing[channel], i->channel[channel].totals.sensor_errors);
                CHECK_EQ(books.batched[channel], i->sweeps - i->channel[channel].totals.sensor_errors);
            }
        }
        r.last = *i;
        telemetry_queue_done(&r.queue);
    }
}

static void sweeps(int n) {
    while (n-- > 0) {
        rig_sweep(&r, false);
        take();
    }
}

static uint64_t errors(int channel) { return s->metering.account[channel].sensor_errors; }
static uint64_t unmeasured(int channel) { return s->metering.account[channel].unmeasured_us; }

static void test_measures(void) {
    fresh(BOOK_UA);
    r.load[1].supply_uv = 12000000;
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(1);
    uint64_t before = unmeasured(0);
    CHECK_EQ(before, s->tick_us - 2000); // nobody measured until the first tick but one
    sweeps(5000);
    CHECK_EQ(s->counts.sweeps, 5001);
    CHECK_EQ(s->counts.retried + s->counts.failed + s->counts.resets + s->counts.late + s->counts.overruns + s->counts.skipped, 0);
    CHECK_EQ(s->counts.holes, 1);
    CHECK(!s->rotate);
    CHECK_EQ(unmeasured(0), before);
    CHECK_EQ(r.last.t_us % 100000, 0);
    CHECK_EQ(r.last.interval_us, 100000);
    CHECK_EQ(r.last.channel[0].interval.power_uw, 8000000);
    CHECK_EQ(r.last.channel[1].interval.power_uw, 19200000);
    CHECK_EQ(r.last.channel[0].interval.current_ua, BOOK_UA);
    CHECK_EQ(r.last.channel[0].totals.energy_uj, (int64_t)(r.last.t_us - before) * 8);
    CHECK_EQ(errors(0), 0);
    CHECK_EQ(r.queue.dropped, 0);
}

// Current that flows back takes energy away.
static void test_signed(void) {
    fresh(0);
    for (int i = 0; i < SAMPLER_CHIPS; i++) {
        for (int channel = 0; channel < INA3221_CHANNELS; channel++) {
            r.chip[i].offset_nv[channel] = -40000000; // 1000 counts
        }
    }
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(500);
    CHECK_EQ(r.last.channel[5].totals.energy_uj, -2 * (int64_t)(r.last.t_us - unmeasured(5)));
}

static void test_saturated(void) {
    fresh(BOOK_UA);
    set_all(1700000);
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(100);
    CHECK_EQ(s->metering.account[0].saturated, 100);
    CHECK_EQ(s->counts.critical, 600);
    // A peak of one conversion does not fill an average: the chip's alert tells.
    fresh(400000);
    r.load[4] = (struct rig_load){.period_ns = 100000000, .on_ns = 1000000, .low_ua = 400000, .high_ua = 1700000, .supply_uv = 5000000, .shunt_uohm = 100000};
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(500);
    CHECK(s->counts.critical >= 9 && s->counts.critical <= 22);
    CHECK_EQ(s->metering.account[4].saturated, s->counts.critical);
    CHECK_EQ(s->metering.account[3].saturated, 0);
}

static void test_retry(void) {
    fresh(BOOK_UA);
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(10);
    r.chip[0].nack = 1;
    sweeps(1);
    CHECK_EQ(s->counts.retried, 1);
    CHECK_EQ(s->counts.failed, 0);
    CHECK_EQ(errors(0), 0);
    r.chip[0].nack = 2; // the first transfer of the chip, and its second try
    sweeps(1);
    CHECK_EQ(s->counts.retried, 2);
    CHECK_EQ(s->counts.failed, 1);
    CHECK_EQ(errors(0), 1);
    CHECK_EQ(errors(1) + errors(2) + errors(3), 0);
    r.chip[1].broken = 4; // shunt and bus of one channel
    sweeps(1);
    CHECK_EQ(s->counts.failed, 3);
    CHECK_EQ(errors(3), 1);
    CHECK_EQ(errors(4) + errors(5), 0);
    r.chip[1].broken = 14; // all, the flags among them
    sweeps(1);
    CHECK_EQ(errors(3), 2);
    CHECK_EQ(errors(4), 1);
    CHECK_EQ(unmeasured(4), unmeasured(1) + 2000);
    r.chip[1].broken = 0; // the sweep's time was up before all were tried twice
    sweeps(100);
    CHECK_EQ(errors(0) + errors(3) + errors(4), 4);
    CHECK_EQ(s->counts.resets, 0);
}

// The chip that holds channels 4 to 6 loses its supply for a moment: its registers are zero then, and none of that is measured.
static void test_brown_out(void) {
    for (int off_us = 0; off_us < 4000; off_us += 37) {
        fresh(BOOK_UA);
        CHECK_EQ(rig_start(&r, &config), 2);
        sweeps(20);
        // At any time within a sweep: the bus calls back between transfers by its clock, so it is between sweeps or within by advancing.
        fake_i2c_advance(&r.wire, (uint64_t)off_us * 1000);
        fake_ina3221_power(&r.chip[1], false);
        fake_ina3221_power(&r.chip[1], true);
        sweeps(60);
        CHECK_EQ(s->counts.resets, 1);
        CHECK(errors(3) >= 1 && errors(3) <= 5);
        CHECK(errors(0) <= 2); // of a sweep that came too late
        CHECK(s->settled[1]);
        CHECK_EQ(s->chip[1].config.average, INA3221_AVG_4);
        CHECK_EQ(s->metering.account[3].min_bus, 625);
    }
}

// A bus between the sampler and the chips, on which something happens to transfers that are chosen.
static struct {
    struct ina3221_bus bus;
    int countdown, chip; // reads until that chip loses its supply for a moment
    int writes;          // that fail
    int reg, reads;      // a register of any chip, and how many reads of it break
} between;

static int between_read(void *context, uint8_t address, uint8_t reg, uint8_t *bytes, size_t n) {
    (void)context;
    if (between.countdown-- == 0) {
        fake_ina3221_power(&r.chip[between.chip], false);
        fake_ina3221_power(&r.chip[between.chip], true);
    }
    int result = between.bus.read(between.bus.context, address, reg, bytes, n);
    if (reg == between.reg && between.reads > 0) {
        between.reads--;
        return -1;
    }
    return result;
}

static int between_write(void *context, uint8_t address, const uint8_t *bytes, size_t n) {
    (void)context;
    if (between.writes > 0) {
        between.writes--;
        return -1;
    }
    return between.bus.write(between.bus.context, address, bytes, n);
}

static void fresh_between(void) {
    fresh(BOOK_UA);
    memset(&between, 0, sizeof between);
    between.bus = config.bus;
    between.countdown = -1;
    config.bus = (struct ina3221_bus){.read = between_read, .write = between_write};
}

static void test_brown_out_within_a_sweep(void) {
    for (int at = 0; at < 20; at++) {
        for (int chip = 0; chip < SAMPLER_CHIPS; chip++) {
            fresh_between();
            between.chip = chip;
            CHECK_EQ(rig_start(&r, &config), 2);
            sweeps(20);
            between.countdown = at;
            sweeps(60); // take finds what is measured to be what there is
            CHECK_EQ(s->counts.resets, 1);
            CHECK_EQ(s->metering.account[chip * 3].min_bus, 625);
        }
    }
}

// One transfer that fails while a chip is set up does not send it away.
static void test_setting_up(void) {
    fresh_between();
    between.writes = 1;
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(20);
    CHECK_EQ(errors(0), 0);
    between.countdown = 0;
    between.writes = 1;
    sweeps(20);
    CHECK(s->settled[0] && s->settled[1]);
    CHECK_EQ(s->counts.resets, 1);
    CHECK(errors(0) < 10);
}

// A read of the flags that broke has cleared them: nothing is concluded from what the second says.
static void test_broken_flags(void) {
    fresh_between();
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(20);
    between.reg = 0x0f;
    for (int i = 0; i < 500; i++) {
        between.reads = 1;
        sweeps(1);
    }
    CHECK_EQ(s->counts.retried, 500);
    CHECK_EQ(s->counts.repeated + s->counts.missed + s->counts.resets, 0);
    CHECK_EQ(errors(0) + errors(3), 0);
}

// A voltage that could not be read is not taken from before.
static void test_voltage_unknown(void) {
    fresh_between();
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(20);
    between.reg = 0x02;
    between.reads = 2;
    sweeps(1);
    CHECK_EQ(errors(0), 1);
    CHECK_EQ(errors(1) + errors(3), 0);
    // In rotation, not until its next turn.
    s->rotate = true;
    while (s->turn != 0) {
        sweeps(1);
    }
    between.reads = 2;
    sweeps(10);
    CHECK_EQ(errors(0), 4);
    CHECK_EQ(errors(1) + errors(2) + errors(3), 0);
    // After a brown-out, each waits for its turn.
    between.countdown = 0;
    sweeps(60);
    uint64_t e[3] = {errors(0) - 4, errors(1), errors(2)}, least = e[0], most = e[0];
    for (int i = 1; i < 3; i++) {
        least = e[i] < least ? e[i] : least;
        most = e[i] > most ? e[i] : most;
    }
    CHECK_EQ(most - least, 2);
}

static void test_away(void) {
    fresh(BOOK_UA);
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(50);
    r.chip[0].absent = true;
    sweeps(SAMPLER_AWAY + 2);
    CHECK(!s->present[0]);
    uint64_t transfers = s->counts.transfers;
    sweeps(1000);
    // It is looked for twice in two seconds, and the other chip is read all the time.
    CHECK_EQ(s->counts.transfers - transfers, 1000 * 7 + 2 + 2);
    CHECK_EQ(errors(3), 0);
    CHECK_EQ(s->counts.overruns, 0);
    r.chip[0].absent = false;
    sweeps(600);
    CHECK(s->present[0] && s->settled[0]);
    CHECK_EQ(s->counts.resets, 1);
    CHECK(errors(0) > 1012 && errors(0) < 1012 + 520);
    CHECK_EQ(unmeasured(0) - unmeasured(3), errors(0) * 2000);
    CHECK(!s->rotate);
}

// Something else wrote to the chip: what can be seen at once is, the rest is seen within a second.
static void test_rewritten(void) {
    fresh(BOOK_UA);
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(50);
    fake_ina3221_write(&r.chip[0], 0x00, 0x8000);
    sweeps(10);
    CHECK_EQ(s->counts.resets, 1);
    fake_ina3221_write(&r.chip[0], 0x00, 0x7007); // without average
    sweeps(510);
    CHECK_EQ(s->counts.resets, 2);
    CHECK_EQ(r.chip[0].reg[0] >> 9 & 7, INA3221_AVG_4);
    fake_ina3221_write(&r.chip[1], 0x00, 0x7200); // the converter stands
    sweeps(10);
    CHECK_EQ(s->counts.resets, 3);
    CHECK_EQ(errors(0) + errors(3) < 20, 1);
}

static void test_identity(void) {
    fresh(BOOK_UA);
    r.chip[0].die = 0x2260;
    CHECK_EQ(rig_start(&r, &config), 1);
    sweeps(600);
    CHECK(!s->present[0]);
    CHECK_EQ(r.last.channel[0].totals.charge_uc, 0);
    CHECK_EQ(r.last.channel[0].totals.unmeasured_us, r.last.t_us);
    CHECK_EQ(errors(3), 0);
    fresh(BOOK_UA);
    r.chip[0].absent = r.chip[1].absent = true;
    CHECK_EQ(rig_start(&r, &config), 0);
    sweeps(100);
    r.chip[0].absent = r.chip[1].absent = false;
    sweeps(600);
    CHECK(s->settled[0] && s->settled[1]);
    CHECK_EQ(s->counts.resets, 2);
    CHECK(r.last.channel[5].totals.charge_uc > 0);
}

static void test_late_ticks(void) {
    fresh(BOOK_UA);
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(50);
    uint64_t was = unmeasured(0), holes = s->counts.holes, reports = books.reports;
    fake_i2c_advance_to(&r.wire, (s->tick_us + 4000) * 1000); // one tick is skipped
    sweeps(1);
    CHECK_EQ(s->counts.skipped, 1);
    CHECK_EQ(unmeasured(0), was);
    CHECK_EQ(errors(0), 1);
    fake_i2c_advance_to(&r.wire, (s->tick_us + 7900) * 1000); // two, and the sweep is late
    sweeps(1);
    CHECK_EQ(s->counts.skipped, 3);
    CHECK_EQ(s->counts.late, 1);
    CHECK_EQ(unmeasured(0), was);
    CHECK_EQ(errors(5), 3);
    CHECK_EQ(books.reports, reports);
    fake_i2c_advance_to(&r.wire, (s->tick_us + 8000) * 1000); // longer than a reading can stand for
    sweeps(1);
    CHECK_EQ(s->counts.holes, holes + 1);
    CHECK_EQ(unmeasured(0), was + 6000);
    CHECK_EQ(errors(0), 3);
    // Samples before the hole have a report of their own.
    CHECK_EQ(books.reports, reports + 1);
    fake_i2c_advance_to(&r.wire, (s->tick_us + 60000000) * 1000);
    sweeps(1);
    CHECK_EQ(unmeasured(0), was + 6000 + 59998000);
    sweeps(100);
    CHECK_EQ(r.last.t_us % 100000, 0);
    // A tick that is past does nothing.
    struct sampler_counts counts = s->counts;
    CHECK(!sampler_sweep(s, s->tick_us));
    CHECK(!sampler_sweep(s, s->tick_us - 2000));
    CHECK_MEM(&counts, &s->counts, sizeof counts);
}

static void test_next(void) {
    fresh(BOOK_UA);
    CHECK_EQ(rig_start(&r, &config), 2);
    s->tick_us = 10000;
    CHECK_EQ(sampler_next(s, 10001), 12000);
    CHECK_EQ(sampler_next(s, 11999), 12000);
    CHECK_EQ(sampler_next(s, 12000), 12000);
    CHECK_EQ(sampler_next(s, 13999), 12000); // it can still be taken, late
    CHECK_EQ(sampler_next(s, 14000), 14000);
    CHECK_EQ(sampler_next(s, 19000), 18000);
    s->tick_us = 10700; // one that was off the grid
    CHECK_EQ(sampler_next(s, 10701), 12000);
}

// A reader that does not come: totals wait for it, samples do not.
static void test_full_queue(void) {
    fresh(BOOK_UA);
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(50);
    for (int i = 0; i < 1000; i++) {
        rig_sweep(&r, false);
    }
    CHECK(r.queue.dropped > 0);
    uint64_t t = s->tick_us;
    sweeps(1);
    take();
    sweeps(1);
    CHECK(books.t_us > t); // a report is made as soon as there is room
    CHECK_EQ(r.last.interval_us > 1400000, 1);
    sweeps(100);
    CHECK_EQ(r.last.interval_us, 100000);
    CHECK_EQ(unmeasured(0), r.last.t_us - (uint64_t)(r.last.channel[0].totals.charge_uc * 10 + 8) / 16);
}

// Wild samples close reports early, none of which loses one.
static void test_early_reports(void) {
    fresh(400000);
    for (int i = 0; i < SAMPLER_CHIPS; i++) {
        r.chip[i].noise_nv = 100000000;
    }
    config.report_interval_us = 200000; // 100 sweeps of 6 channels and 2 bytes
    CHECK_EQ(rig_start(&r, &config), 2);
    uint64_t begin = s->tick_us;
    sweeps(2000);
    CHECK(books.reports > (s->tick_us - begin) / 200000 + 5);
    CHECK_EQ(r.queue.dropped, 0);
    // They are as full as can be, so that there are no more of them than need be.
    uint64_t early = 0;
    for (int i = 0; i < 2000; i++) {
        uint64_t reports = books.reports;
        sweeps(1);
        if (books.reports != reports && r.last.t_us % 200000) {
            early++;
            CHECK(encoded > TELEMETRY_MAX_BODY - 2 * SAMPLER_CHANNELS - 8);
        }
    }
    CHECK(early > 5);
    // With ticks left out at all places of a report.
    for (int i = 0; i < 3000; i++) {
        if (i % 7 == 0) {
            fake_i2c_advance_to(&r.wire, (s->tick_us + 6000) * 1000);
        }
        sweeps(1);
    }
    CHECK(s->counts.skipped > 800);
    CHECK_EQ(s->counts.holes, 1);
}

// The sum of what was read and what was lost is what the chip converted.
static void test_cycles(void) {
    for (int32_t ppm = -100000; ppm <= 100000; ppm += 10000) {
        fresh(BOOK_UA);
        config.conversion = INA3221_332_US;
        config.average = INA3221_AVG_1;
        r.chip[0].rate_ppm = r.chip[1].rate_ppm = ppm;
        CHECK_EQ(rig_start(&r, &config), 2);
        uint64_t cycle_ns = fake_ina3221_cycle_ns(&r.chip[0]);
        CHECK_NEAR(s->cycle_us[0], cycle_ns / 1000, cycle_ns / 1000 / 400);
        sweeps(2);
        struct sampler_counts was = s->counts;
        uint64_t cycles = r.chip[0].cycles + r.chip[1].cycles;
        sweeps(10000);
        cycles = r.chip[0].cycles + r.chip[1].cycles - cycles;
        uint64_t repeated = s->counts.repeated - was.repeated, missed = s->counts.missed - was.missed;
        CHECK_NEAR(20000 - repeated + missed, cycles, cycles / 400 + 2);
        CHECK_EQ(ppm <= 0, missed > repeated); // up to 4000 ppm a cycle is shorter than the period
        CHECK(missed + repeated > 50);
    }
    // Polls that are further apart than cycles cannot measure them: then it is the most that a cycle can be.
    fresh(BOOK_UA);
    config.average = INA3221_AVG_1;
    r.wire.overhead_us = 900;
    CHECK_EQ(rig_start(&r, &config), 2);
    CHECK_EQ(s->cycle_us[0], 924);
    // An average holds the cycles between.
    fresh(BOOK_UA);
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(2000);
    CHECK_EQ(s->counts.missed + s->counts.repeated, 0);
}

// A bus that is slower than thought: voltages take turns, and stay so.
static void test_rotation(void) {
    fresh(BOOK_UA);
    r.wire.overhead_us = 40;
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(9);
    CHECK(!s->rotate);
    sweeps(5);
    CHECK(s->rotate);
    uint64_t overruns = s->counts.overruns, skipped = s->counts.skipped, transfers = s->counts.transfers, failed = errors(2);
    CHECK_EQ(overruns, SAMPLER_OVERRUNS);
    sweeps(990);
    CHECK_EQ(s->counts.overruns, overruns);
    CHECK_EQ(s->counts.skipped, skipped);
    CHECK_NEAR(s->counts.transfers - transfers, 9900, 6); // and the configuration, once a second
    CHECK_EQ(errors(2), failed);
    CHECK_EQ(r.last.channel[2].interval.power_uw, 8000000);
    r.wire.overhead_us = 0;
    sweeps(100);
    CHECK(s->rotate);
    // A fault makes a sweep long, but not the bus slow.
    fresh(BOOK_UA);
    CHECK_EQ(rig_start(&r, &config), 2);
    for (int i = 0; i < 100; i++) {
        r.chip[0].nack = 7;
        r.chip[1].nack = 7;
        sweeps(1);
    }
    CHECK(!s->rotate);
    // Too slow even so: sweeps are fewer, and nothing is lost of the time.
    fresh(BOOK_UA);
    r.wire.overhead_us = 150;
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(1000);
    CHECK(s->rotate);
    CHECK(s->counts.overruns > 900 && s->counts.skipped > 200);
    CHECK_EQ(s->counts.holes, 1);
}

static void test_stuck_bus(void) {
    fresh(BOOK_UA);
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(50);
    r.wire.timeout_us = 5000;
    r.wire.stuck = FAKE_FOREVER;
    uint64_t transfers = s->counts.transfers;
    sweeps(100);
    CHECK(!s->present[0] && !s->present[1]);
    // A few time-outs in each sweep until the chips are given up, and then none.
    CHECK(s->counts.transfers - transfers <= 4 * SAMPLER_AWAY + 2);
    r.wire.stuck = 0;
    sweeps(1200);
    CHECK(s->settled[0] && s->settled[1]);
    CHECK(!s->rotate);
}

static void test_power_valid(void) {
    fresh(BOOK_UA);
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(100);
    CHECK_EQ(s->counts.power_invalid, 0);
    r.load[1].supply_uv = 4500000;
    sweeps(100);
    CHECK(s->counts.power_invalid > 90 && s->counts.power_invalid <= 100);
    config.power_valid_upper = 0;
    memset(&books, 0, sizeof books);
    rig_take(&r);
    fresh(BOOK_UA);
    config.power_valid_upper = 0;
    CHECK_EQ(rig_start(&r, &config), 2);
    sweeps(10);
    CHECK_EQ(s->counts.power_invalid, 0);
}

static void test_rate(void) {
    static const struct { uint32_t rate, period_us, averaging; } cases[] = {
        {1200, 833, 4}, {500, 2000, 4}, {300, 3333, 4}, {250, 4000, 16}, {100, 10000, 16}, {50, 20000, 64}, {1, 1000000, 1024},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fresh(BOOK_UA);
        sampler_rate(&config, cases[i].rate);
        sampler_describe(&config, &r.identity);
        CHECK_EQ(r.identity.sweep_period_us, cases[i].period_us);
        CHECK_EQ(r.identity.shunt_conversion_us, 140);
        CHECK_EQ(r.identity.averaging, cases[i].averaging);
        CHECK_EQ(r.identity.report_interval_us, 100000);
        CHECK_EQ(r.identity.channels, 6);
    }
}

static void test_arguments(void) {
    static const struct { size_t offset; uint32_t value; } wrong[] = {
        {offsetof(struct sampler_config, sweep_period_us), 0}, {offsetof(struct sampler_config, sweep_period_us), 2000000},
        {offsetof(struct sampler_config, report_interval_us), 1000}, {offsetof(struct sampler_config, chips), 0},
        {offsetof(struct sampler_config, chips), 3}, {offsetof(struct sampler_config, conversion), 8},
        {offsetof(struct sampler_config, average), 8}, {offsetof(struct sampler_config, calibration), 0},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        fresh(BOOK_UA);
        sampler_describe(&config, &r.identity);
        memcpy((char *)&config + wrong[i].offset, &wrong[i].value, sizeof wrong[i].value);
        CHECK_EQ(sampler_init(s, &config, &r.identity, &r.queue), INA3221_ARGUMENT);
    }
    fresh(BOOK_UA);
    r.identity.channels = 3;
    CHECK_EQ(sampler_init(s, &config, &r.identity, &r.queue), INA3221_ARGUMENT);
    config.chips = 1;
    CHECK_EQ(rig_start(&r, &config), 1);
}

static uint64_t seed;

static uint32_t below(uint32_t n) {
    uint64_t z = seed += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    z ^= z >> 31;
    return (uint32_t)(z >> 32) % n;
}

// Any faults in any order, over any setting: each report balances to the microsecond, no reading is taken that was not converted, and once
// the faults are over all channels are measured again.
static void any_faults(uint64_t number) {
    static const uint32_t periods[] = {1000, 1250, 2000, 4000, 10000};
    static const enum ina3221_average averages[] = {INA3221_AVG_1, INA3221_AVG_4, INA3221_AVG_16};
    seed = number;
    fresh(BOOK_UA);
    config.sweep_period_us = periods[below(5)];
    config.report_interval_us = config.sweep_period_us * (1 + below(100));
    config.conversion = (enum ina3221_time)below(4);
    config.average = averages[below(3)];
    r.wire.overhead_us = below(3) ? 0 : below(100);
    r.wire.timeout_us = 1 + below(20000);
    for (int i = 0; i < SAMPLER_CHIPS; i++) {
        r.chip[i].rate_ppm = (int32_t)below(200001) - 100000;
        r.chip[i].absent = !below(10);
    }
    if (!CHECK(rig_start(&r, &config) >= 0)) {
        return;
    }
    bool reading = true;
    uint32_t often = 1 + below(60);
    int n = 100 + (int)below(300);
    for (int i = 0; i < n; i++) {
        struct fake_ina3221 *chip = &r.chip[below(2)];
        switch (below(often)) {
        case 0:
            switch (below(12)) {
            case 0: chip->nack = below(30); break;
            case 1: chip->broken = below(30); break;
            case 2: r.wire.stuck = below(10); break;
            case 3: chip->absent = !chip->absent; break;
            case 4: fake_ina3221_power(chip, !chip->powered); break;
            case 5: fake_ina3221_power(chip, false); fake_ina3221_power(chip, true); break;
            case 6: fake_ina3221_write(chip, 0x00, (uint16_t)(below(2) ? 0x8000 : below(0x8000))); break;
            case 7: fake_i2c_advance(&r.wire, (uint64_t)below(40000) * 1000); break;
            case 8: fake_i2c_advance(&r.wire, (uint64_t)below(3000000) * 1000); break;
            case 9: reading = !reading; break;
            case 10: fake_ina3221_write(chip, 0x0f, (uint16_t)below(0x8000)); break;
            default: r.wire.overhead_us = below(200); break;
            }
        }
        rig_sweep(&r, false);
        if (reading) {
            take();
        }
    }
    for (int i = 0; i < SAMPLER_CHIPS; i++) {
        r.chip[i].nack = r.chip[i].broken = 0;
        r.chip[i].absent = false;
        fake_ina3221_power(&r.chip[i], true);
    }
    r.wire.stuck = r.wire.overhead_us = 0;
    uint64_t until = s->tick_us + 2500000;
    while (s->tick_us < until) {
        rig_sweep(&r, false);
        take();
    }
    uint64_t errors_then[SAMPLER_CHANNELS];
    for (int channel = 0; channel < SAMPLER_CHANNELS; channel++) {
        errors_then[channel] = errors(channel);
    }
    uint64_t skipped = s->counts.skipped;
    sweeps(20);
    for (int channel = 0; channel < SAMPLER_CHANNELS; channel++) {
        CHECK_EQ(errors(channel) - errors_then[channel], s->counts.skipped - skipped);
    }
}

static void test_any_faults(uint64_t n) {
    for (uint64_t number = 1; number <= n; number++) {
        long failed = check_failed;
        any_faults(number);
        if (check_failed != failed) {
            printf("schedule %llu\n", (unsigned long long)number);
            break;
        }
    }
}

int main(int argc, char **argv) {
    RUN(test_measures);
    RUN(test_signed);
    RUN(test_saturated);
    RUN(test_retry);
    RUN(test_brown_out);
    RUN(test_brown_out_within_a_sweep);
    RUN(test_setting_up);
    RUN(test_broken_flags);
    RUN(test_voltage_unknown);
    RUN(test_away);
    RUN(test_rewritten);
    RUN(test_identity);
    RUN(test_late_ticks);
    RUN(test_next);
    RUN(test_full_queue);
    RUN(test_early_reports);
    RUN(test_cycles);
    RUN(test_rotation);
    RUN(test_stuck_bus);
    RUN(test_power_valid);
    RUN(test_rate);
    RUN(test_arguments);
    // Thousands on a PC; the 32-bit machine is slow and sees some of the same.
    test_any_faults(argc > 1 ? strtoull(argv[1], NULL, 10) : sizeof(void *) > 4 ? 3000 : 100);
    return check_end();
}
