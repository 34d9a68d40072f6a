// The accounts of energy and charge: against the simulator's, against exact arithmetic, and at the ends of every range.
#include "check.h"

#include "metering.h"

static struct metering meter;
static struct metering_totals totals;
static struct metering_interval interval;

static void start(uint32_t shunt_uohm, int32_t gain_ppm, int32_t offset_nv)
{
    struct metering_calibration c = {shunt_uohm, gain_ppm, offset_nv};
    CHECK(metering_init(&meter, &c, 1));
}

static void add(int shunt, int bus, uint32_t dt_us) { metering_add(&meter, 0, (int16_t)shunt, (int16_t)bus, dt_us); }

static void close_it(void) { metering_close(&meter, 0, &totals, &interval); }

// A small generator of good numbers (Steele, Lea, Flood: splitmix64).
static uint64_t state = 1;
static uint64_t rnd(uint64_t below)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % below;
}
static int between(int low, int high) { return low + (int)rnd((uint64_t)(high - low + 1)); }

// ---- the simulator's accounts, to the last digit

static void as_the_simulator(void)
{
#define ACCOUNT(shunt, gain, offset) start(shunt, gain, offset);
#define ADD(shunt, bus, us) add(shunt, bus, us);
#define MISS(us) metering_miss(&meter, 0, us);
#define GAP(us) metering_gap(&meter, us);
#define CLOSE(energy, charge, unmeasured, sat, errors, power, voltage, current, power_drop, power_rise, voltage_drop, voltage_rise) \
    close_it();                                                                                                                    \
    CHECK_EQ(totals.energy_uj, energy);                                                                                            \
    CHECK_EQ(totals.charge_uc, charge);                                                                                            \
    CHECK_EQ(totals.unmeasured_us, unmeasured);                                                                                    \
    CHECK_EQ(totals.saturated, sat);                                                                                               \
    CHECK_EQ(totals.sensor_errors, errors);                                                                                        \
    CHECK_EQ(interval.power_uw, power);                                                                                            \
    CHECK_EQ(interval.voltage_uv, voltage);                                                                                        \
    CHECK_EQ(interval.current_ua, current);                                                                                        \
    CHECK_EQ(interval.power_drop_uw, power_drop);                                                                                  \
    CHECK_EQ(interval.power_rise_uw, power_rise);                                                                                  \
    CHECK_EQ(interval.voltage_drop_uv, voltage_drop);                                                                              \
    CHECK_EQ(interval.voltage_rise_uv, voltage_rise);
#include "metering.inc"
}

// ---- by hand: at 0.1 ohm a count of shunt is 0.4 mA, a count of each 3.2 uW

static void one_second_by_hand(void)
{
    static const struct {
        int shunt, bus;
        int32_t gain, offset;
        int64_t energy, charge;
    } cases[] = {
        {0, 0, 0, 0, 0, 0},
        {1, 1, 0, 0, 3, 400},                         // 3200 nJ
        {-1, 1, 0, 0, -3, -400},
        {100, 640, 0, 0, 204800, 40000},              // 40 mA at 5.12 V
        {-100, 640, 0, 0, -204800, -40000},
        {100, -640, 0, 0, -204800, 40000},            // the bus can read below zero by an offset
        {4095, 4095, 0, 0, 53660880, 1638000},        // 53.66088 W: both ends of the range
        {-4096, 4095, 0, 0, -53673984, -1638400},
        {-4096, -4096, 0, 0, 53687091, -1638400},
        {1000, 625, -1200, 8000, 1997200, 399440},    // less 8 uV, less 0.12 %: 399.440096 mA at 5 V
        {0, 625, 0, 80000, -4000, -800},              // nothing but offset
        {1, 1, 500000, 0, 5, 600},                    // 4.8 uJ
        {1, 1, -500000, 0, 2, 200},                   // 1.6 uJ
        {0, 4095, 0, 100000000, -32760000, -1000000}, // the largest offset: 1 A at 32.76 V
        {0, 4095, 500000, -100000000, 49140000, 1500000},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        start(100000, cases[i].gain, cases[i].offset);
        add(cases[i].shunt, cases[i].bus, 1000000);
        close_it();
        CHECK_EQ(totals.energy_uj, cases[i].energy);
        CHECK_EQ(totals.charge_uc, cases[i].charge);
        // In a second uJ are uW, but for the rounding of the total.
        CHECK_NEAR(interval.power_uw, cases[i].energy, 1);
        CHECK_EQ(interval.voltage_uv, cases[i].bus * 8000);
        CHECK_NEAR(interval.current_ua, cases[i].charge, 1);
        CHECK(interval.power_drop_uw <= 1 && interval.power_rise_uw <= 1);
        CHECK_EQ(interval.voltage_drop_uv, 0);
        CHECK_EQ(interval.voltage_rise_uv, 0);
    }
}

// A third of a nanojoule is over each second at 30 mOhm: 32000/3 nJ, 4000000/3 nC.
static void rests_are_kept_for_a_day(void)
{
    start(30000, 0, 0);
    for (long second = 0; second < 86400; second++) {
        add(1, 1, 1000000);
    }
    close_it();
    CHECK_EQ(totals.energy_uj, 921600);
    CHECK_EQ(totals.charge_uc, 115200000);
    CHECK_EQ(meter.account[0].energy_nj, 0);
    CHECK_EQ(meter.account[0].energy_rest, 0);
    for (long second = 0; second < 86400; second++) {
        add(-1, 1, 1000000);
    }
    close_it();
    CHECK_EQ(totals.energy_uj, 0);
    CHECK_EQ(totals.charge_uc, 0);
}

// Noise around nothing stays nothing: what an absolute value would turn into energy.
static void noise_cancels(void)
{
    start(100000, 0, 0);
    for (int i = 0; i < 10000; i++) {
        add(i % 2 ? 3 : -3, 625, 2000);
    }
    close_it();
    CHECK_EQ(totals.energy_uj, 0);
    CHECK_EQ(totals.charge_uc, 0);
    CHECK_EQ(interval.power_drop_uw, 6000);
    CHECK_EQ(interval.power_rise_uw, 6000);
}

// On the wire is the nearest, halves up, of what is exact: a count of each for a microsecond is 3.2e-3 nJ.
static void rounds_to_the_nearest(void)
{
    static const struct { int shunt, bus; uint32_t us; int64_t nj; } steps[] = {
        {1, 1, 1000000, 3200}, {1, 1, 93750, 3500}, {-1, 1, 1, 3499}, {-1, 1, 999999, 300}, {-1, 1, 250000, -500}, {-1, 1, 1, -501},
        {-1, 1, 312500, -1501}, {1, 1, 625, -1499},
    };
    start(100000, 0, 0);
    int64_t counts_us = 0;
    for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        add(steps[i].shunt, steps[i].bus, steps[i].us);
        counts_us += steps[i].shunt * (int64_t)steps[i].us;
        close_it();
        int64_t and_half = counts_us * 32 + 5000000, towards_zero = and_half / 10000000;
        CHECK_EQ(totals.energy_uj, towards_zero - (and_half % 10000000 < 0));
        CHECK_NEAR(meter.account[0].energy_uj * 1000 + meter.account[0].energy_nj, steps[i].nj, 1);
    }
}

static void saturation_is_counted(void)
{
    static const struct { int shunt; uint64_t counted; } cases[] = {
        {4094, 0}, {-4094, 0}, {4095, 1}, {-4095, 2}, {-4096, 3}, {32767, 4}, {-32768, 5}, {0, 5},
    };
    start(100000, 0, 0);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        add(cases[i].shunt, 1, 0);
        close_it();
        CHECK_EQ(totals.saturated, cases[i].counted);
    }
    // What no register can hold is taken as its end.
    start(100000, 0, 0);
    add(32767, 32767, 1000000);
    add(-32768, 32767, 1000000);
    close_it();
    CHECK_EQ(totals.charge_uc, 1638000 - 1638400);
    CHECK_EQ(interval.voltage_uv, 4095 * 8000);
}

static void min_mean_max(void)
{
    start(100000, 0, 0);
    add(1000, 625, 3000);  // 2 W
    add(3000, 600, 1000);  // 5.76 W
    add(-500, 650, 1000);  // -1.04 W
    close_it();
    // (2 * 3 + 5.76 - 1.04) / 5 W, (5 * 3 + 4.8 + 5.2) / 5 V, (0.4 * 3 + 1.2 - 0.2) / 5 A
    CHECK_EQ(interval.power_uw, 2144000);
    CHECK_EQ(interval.voltage_uv, 5000000);
    CHECK_EQ(interval.current_ua, 440000);
    CHECK_EQ(interval.power_drop_uw, 2144000 + 1040000);
    CHECK_EQ(interval.power_rise_uw, 5760000 - 2144000);
    CHECK_EQ(interval.voltage_drop_uv, 200000);
    CHECK_EQ(interval.voltage_rise_uv, 200000);
    // The next interval knows nothing of this one.
    add(1000, 625, 3000);
    close_it();
    CHECK_EQ(interval.power_uw, 2000000);
    CHECK_EQ(interval.power_drop_uw, 0);
    CHECK_EQ(interval.power_rise_uw, 0);
    CHECK_EQ(interval.voltage_drop_uv, 0);
    // The offset moves the product, not its order: the least power is not the least product of counts.
    start(100000, 0, 40000000); // 1000 counts
    add(900, 600, 1000);        // -100 * 600
    add(500, 10, 1000);         // -500 * 10
    close_it();
    CHECK_EQ(interval.power_uw - (int64_t)interval.power_drop_uw, -60000 * 32 / 10);
    CHECK_EQ(interval.power_uw + (int64_t)interval.power_rise_uw, -5000 * 32 / 10);
}

static void what_is_not_measured(void)
{
    struct metering_calibration c[2] = {{100000, 0, 0}, {50000, 0, 0}};
    CHECK(metering_init(&meter, c, 2));
    close_it();
    CHECK_EQ(totals.energy_uj, 0);
    CHECK_EQ(interval.power_uw, 0);
    CHECK_EQ(interval.power_drop_uw, 0);
    CHECK_EQ(interval.voltage_rise_uv, 0);

    add(1000, 625, 2000);
    metering_miss(&meter, 0, 2000);
    metering_gap(&meter, 5000000000);
    close_it();
    CHECK_EQ(totals.unmeasured_us, 5000002000);
    CHECK_EQ(totals.sensor_errors, 1);
    CHECK_EQ(totals.energy_uj, 4000);
    CHECK_EQ(interval.power_uw, 2000000); // of the measured time
    metering_close(&meter, 1, &totals, &interval);
    CHECK_EQ(totals.unmeasured_us, 5000000000);
    CHECK_EQ(totals.sensor_errors, 0);

    // An interval of nothing but errors keeps its totals, and has no means.
    metering_miss(&meter, 0, 100000);
    close_it();
    CHECK_EQ(totals.energy_uj, 4000);
    CHECK_EQ(totals.sensor_errors, 2);
    CHECK_EQ(interval.power_uw, 0);
    CHECK_EQ(interval.voltage_uv, 0);
    CHECK_EQ(interval.power_drop_uw, 0);

    // A reading stands for a second at the most.
    add(1000, 625, 1000001);
    close_it();
    CHECK_EQ(totals.energy_uj, 4000 + 2000000);
    CHECK_EQ(totals.unmeasured_us, 5000102001);
    add(0, 0, UINT32_MAX);
    close_it();
    CHECK_EQ(totals.unmeasured_us, 5000102001 + UINT32_MAX - 1000000);
}

static void calibrations_are_checked(void)
{
    static const struct { struct metering_calibration c; bool good; } cases[] = {
        {{99, 0, 0}, false}, {{100, 0, 0}, true}, {{10000000, 0, 0}, true}, {{10000001, 0, 0}, false}, {{0, 0, 0}, false},
        {{1000, 500000, 0}, true}, {{1000, 500001, 0}, false}, {{1000, -500000, 0}, true}, {{1000, -500001, 0}, false},
        {{1000, 0, 100000000}, true}, {{1000, 0, 100000001}, false}, {{1000, 0, -100000000}, true}, {{1000, 0, -100000001}, false},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_EQ(metering_init(&meter, &cases[i].c, 1), cases[i].good);
    }
    struct metering_calibration many[METERING_MAX_CHANNELS + 1];
    for (int i = 0; i <= METERING_MAX_CHANNELS; i++) {
        many[i] = cases[1].c;
    }
    CHECK(!metering_init(&meter, many, 0));
    CHECK(!metering_init(&meter, many, -1));
    CHECK(metering_init(&meter, many, METERING_MAX_CHANNELS));
    CHECK(!metering_init(&meter, many, METERING_MAX_CHANNELS + 1));
    many[METERING_MAX_CHANNELS - 1].shunt_uohm = 1;
    CHECK(!metering_init(&meter, many, METERING_MAX_CHANNELS));
}

static void random_calibration(struct metering_calibration *c)
{
    switch (rnd(4)) {
    case 0: // corners
        *c = (struct metering_calibration){rnd(2) ? 100 : 10000000, rnd(2) ? 500000 : -500000, rnd(2) ? 100000000 : -100000000};
        break;
    default:
        *c = (struct metering_calibration){(uint32_t)between(100, 200000), between(-500000, 500000), between(-100000000, 100000000)};
    }
}

// Whenever it is asked, a total is what the readings say: two meters, one of which is read all the time.
static void asking_changes_nothing(void)
{
    static struct metering other;
    for (int round = 0; round < 200; round++) {
        struct metering_calibration c;
        random_calibration(&c);
        CHECK(metering_init(&meter, &c, 1) && metering_init(&other, &c, 1));
        for (int i = 0; i < 60; i++) {
            int16_t shunt = (int16_t)between(-4096, 4095), bus = (int16_t)between(-4096, 4095);
            uint32_t dt = (uint32_t)rnd(rnd(2) ? 1000001 : 4000);
            metering_add(&meter, 0, shunt, bus, dt);
            metering_add(&other, 0, shunt, bus, dt);
            if (rnd(3) == 0) {
                close_it();
            }
        }
        struct metering_totals of_other;
        close_it();
        metering_close(&other, 0, &of_other, &interval);
        CHECK_EQ(totals.energy_uj, of_other.energy_uj);
        CHECK_EQ(totals.charge_uc, of_other.charge_uc);
        CHECK_EQ(meter.account[0].energy_nj, other.account[0].energy_nj);
        CHECK_EQ(meter.account[0].energy_rest, other.account[0].energy_rest);
        CHECK_EQ(meter.account[0].charge_rest, other.account[0].charge_rest);
    }
}

static void positive_power_never_lowers_a_total(void)
{
    start(33333, 777, 0);
    int64_t before = 0;
    for (int i = 0; i < 20000; i++) {
        add(between(0, 3), between(0, 3), (uint32_t)rnd(300));
        close_it();
        CHECK(totals.energy_uj >= before);
        before = totals.energy_uj;
    }
    CHECK(before > 0);
}

static void a_preview_is_what_a_close_tells(void)
{
    for (int round = 0; round < 300; round++) {
        struct metering_calibration c;
        random_calibration(&c);
        CHECK(metering_init(&meter, &c, 1));
        for (int i = between(0, 20); i > 0; i--) {
            add(between(-4096, 4095), between(-4096, 4095), (uint32_t)rnd(400000));
            if (rnd(8) == 0) {
                close_it();
            }
        }
        bool ok = rnd(4) > 0;
        int shunt = between(-4096, 4095), bus = between(-4096, 4095);
        uint32_t dt = (uint32_t)rnd(1000001);
        struct metering before = meter;
        struct metering_totals seen;
        struct metering_interval seen_interval;
        metering_preview(&meter, 0, ok, (int16_t)shunt, (int16_t)bus, dt, &seen, &seen_interval);
        CHECK_MEM(&before.account[0], &meter.account[0], sizeof meter.account[0]);
        if (ok) {
            add(shunt, bus, dt);
        } else {
            metering_miss(&meter, 0, dt);
        }
        close_it();
        CHECK_MEM(&seen, &totals, sizeof totals);
        CHECK_MEM(&seen_interval, &interval, sizeof interval);
    }
}

#ifdef __SIZEOF_INT128__
__extension__ typedef __int128 wide;

static wide floor_div(wide n, wide d) { return n / d - (n % d < 0); }

// What is exact: energy in 1e-9 nJ over uOhm, charge in 1e-6 nC over uOhm.
struct exact {
    struct metering_calibration c;
    wide energy, charge;
};

static void exact_add(struct exact *x, int shunt, int bus, uint32_t dt)
{
    wide nv = (wide)shunt * 40000 - x->c.offset_nv;
    x->energy += nv * bus * dt * 8 * (1000000 + x->c.gain_ppm);
    x->charge += nv * dt * (1000000 + x->c.gain_ppm);
}

// Compares totals, rests and all.
static void exact_check(const struct exact *x)
{
    const struct metering_account *a = &meter.account[0];
    wide nj = (wide)x->c.shunt_uohm * 1000000000, nc = (wide)x->c.shunt_uohm * 1000000;
    close_it();
    CHECK(floor_div(x->energy, nj) == (wide)a->energy_uj * 1000 + a->energy_nj);
    CHECK(floor_div(x->charge, nc) == (wide)a->charge_uc * 1000 + a->charge_nc);
    CHECK(x->energy - floor_div(x->energy, nj) * nj == a->energy_rest);
    CHECK(x->charge - floor_div(x->charge, nc) * nc == a->charge_rest);
    CHECK(floor_div(x->energy + nj * 500, nj * 1000) == totals.energy_uj);
    CHECK(floor_div(x->charge + nc * 500, nc * 1000) == totals.charge_uc);
}

static void exact_to_the_last_bit(void)
{
    for (int round = 0; round < 3000; round++) {
        struct exact x = {0};
        random_calibration(&x.c);
        CHECK(metering_init(&meter, &x.c, 1));
        for (int i = 0; i < 40; i++) {
            bool wild = rnd(2);
            int shunt = wild ? between(-4096, 4095) : between(-3, 3), bus = wild ? between(-4096, 4095) : between(-3, 3250);
            uint32_t dt = (uint32_t)rnd(rnd(2) ? 1000001 : 4000);
            add(shunt, bus, dt);
            exact_add(&x, shunt, bus, dt);
            if (rnd(5) == 0) {
                exact_check(&x);
            }
        }
        exact_check(&x);
    }
}

// Ten years at the end of the range, second by second, through a shunt and a calibration that leave a rest each time.
static void ten_years(void)
{
    struct exact x = {.c = {29989, -1237, 80003}};
    CHECK(metering_init(&meter, &x.c, 1));
    for (int year = 0; year < 10; year++) {
        for (long second = 0; second < 31557600; second++) {
            add(-4096, 4095, 1000000);
        }
        struct exact second = {.c = x.c};
        exact_add(&second, -4096, 4095, 1000000);
        x.energy += second.energy * 31557600;
        x.charge += second.charge * 31557600;
        exact_check(&x);
    }
    CHECK(totals.energy_uj < -56000000000000000); // 179 W for 3.2e8 s
    CHECK_EQ(totals.saturated, 315576000);
}
#endif

int main(void)
{
    RUN(as_the_simulator);
    RUN(one_second_by_hand);
    RUN(rests_are_kept_for_a_day);
    RUN(noise_cancels);
    RUN(rounds_to_the_nearest);
    RUN(saturation_is_counted);
    RUN(min_mean_max);
    RUN(what_is_not_measured);
    RUN(calibrations_are_checked);
    RUN(asking_changes_nothing);
    RUN(positive_power_never_lowers_a_total);
    RUN(a_preview_is_what_a_close_tells);
#ifdef __SIZEOF_INT128__
    RUN(exact_to_the_last_bit);
    RUN(ten_years);
#endif
    return check_end();
}
