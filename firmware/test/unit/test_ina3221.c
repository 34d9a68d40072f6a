// The driver against the chip at register level, and against the data sheet's numbers.
#include "check.h"
#include "fake_ina3221.h"
#include "ina3221.h"

#define CHIPS 4

// What the chips measure, and the bus with a tap: the last bytes written, and an error to give back.
static int32_t shunt_nv[CHIPS][3], bus_uv[CHIPS][3];
static int indices[CHIPS] = {0, 1, 2, 3};
static struct fake_ina3221 fake[CHIPS];
static struct fake_i2c wire;
static struct ina3221 chip[CHIPS];
static struct {
    struct ina3221_bus bus;
    uint8_t written[3];
    unsigned reads, writes;
    int countdown, error; // the transfer after so many more gives back the error
} tap;

static void load(void *context, int channel, uint64_t from_ns, uint64_t to_ns, int32_t *nv, int32_t *uv) {
    (void)from_ns, (void)to_ns;
    *nv = shunt_nv[*(int *)context][channel];
    *uv = bus_uv[*(int *)context][channel];
}

static int tap_error(void) {
    return tap.error && tap.countdown-- == 0 ? tap.error : 0;
}

static int tap_write(void *context, uint8_t address, const uint8_t *bytes, size_t n) {
    (void)context;
    tap.writes++;
    CHECK_EQ(n, 3);
    memcpy(tap.written, bytes, 3);
    int error = tap_error();
    return error ? error : tap.bus.write(tap.bus.context, address, bytes, n);
}

static int tap_read(void *context, uint8_t address, uint8_t reg, uint8_t *bytes, size_t n) {
    (void)context;
    tap.reads++;
    CHECK_EQ(n, 2);
    int error = tap_error();
    return error ? error : tap.bus.read(tap.bus.context, address, reg, bytes, n);
}

static const struct ina3221_bus tapped = {.write = tap_write, .read = tap_read};

// All four chips as their supply comes, with a driver each.
static void set_up(void) {
    memset(shunt_nv, 0, sizeof shunt_nv);
    memset(bus_uv, 0, sizeof bus_uv);
    memset(&tap, 0, sizeof tap);
    fake_i2c_init(&wire);
    tap.bus = fake_i2c_bus(&wire);
    for (int i = 0; i < CHIPS; i++) {
        fake_ina3221_init(&fake[i], (struct fake_ina3221_input){load, &indices[i]});
        CHECK(fake_i2c_join(&wire, &fake[i], (uint8_t)(0x40 + i)));
        CHECK_EQ(ina3221_init(&chip[i], tapped, (uint8_t)(0x40 + i)), INA3221_OK);
    }
}

// A configuration in which the chip does nothing by itself, so that a test can put values into its registers.
static void stop(void) {
    struct ina3221_config config = chip[0].config;
    config.mode = INA3221_POWER_DOWN;
    CHECK_EQ(ina3221_configure(&chip[0], &config), INA3221_OK);
}

// 8.6.2: negative readings are two's complement, left-aligned. The data sheet's example is -80 mV = C180h.
static void shunt_voltages(void) {
    static const struct {
        int32_t nv;
        uint16_t reg;
        int16_t counts;
    } rows[] = {
        {-80000000, 0xc180, -2000}, {80000000, 0x3e80, 2000}, {0, 0x0000, 0}, {40000, 0x0008, 1}, {-40000, 0xfff8, -1},
        {163800000, 0x7ff8, 4095}, {-163800000, 0x8008, -4095}, {-163840000, 0x8000, -4096}, {500000000, 0x7ff8, 4095}, {-500000000, 0x8000, -4096},
    };
    set_up();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int channel = 0; channel < 3; channel++) {
            shunt_nv[0][channel] = rows[i].nv;
        }
        fake_i2c_advance(&wire, 2 * fake_ina3221_cycle_ns(&fake[0]));
        for (int channel = 0; channel < 3; channel++) {
            int16_t counts = 12345;
            CHECK_EQ(ina3221_shunt(&chip[0], channel, &counts), INA3221_OK);
            CHECK_EQ(counts, rows[i].counts);
            CHECK_EQ(fake[0].reg[1 + 2 * channel], rows[i].reg);
        }
    }
}

static void bus_voltages(void) {
    static const struct {
        int32_t uv;
        uint16_t reg;
        int16_t counts;
    } rows[] = {{12000000, 0x2ee0, 1500}, {8000, 0x0008, 1}, {5000000, 0x1388, 625}, {26000000, 0x6590, 3250}, {32760000, 0x7ff8, 4095}, {40000000, 0x7ff8, 4095}, {0, 0, 0}};
    set_up();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int channel = 0; channel < 3; channel++) {
            bus_uv[0][channel] = rows[i].uv;
        }
        fake_i2c_advance(&wire, 2 * fake_ina3221_cycle_ns(&fake[0]));
        for (int channel = 0; channel < 3; channel++) {
            int16_t counts = 12345;
            CHECK_EQ(ina3221_bus_voltage(&chip[0], channel, &counts), INA3221_OK);
            CHECK_EQ(counts, rows[i].counts);
            CHECK_EQ(fake[0].reg[2 + 2 * channel], rows[i].reg);
        }
    }
    // A negative value in the register is a negative reading.
    stop();
    fake[0].reg[4] = 0xfff8;
    int16_t counts;
    CHECK_EQ(ina3221_bus_voltage(&chip[0], 1, &counts), INA3221_OK);
    CHECK_EQ(counts, -1);
}

// The sum has one unused bit, where the others have three.
static void sums(void) {
    static const struct {
        uint16_t reg;
        int16_t counts;
    } rows[] = {{0x0000, 0}, {0x0002, 1}, {0xfffe, -1}, {0x7ffe, 16383}, {0x8000, -16384}, {0xf060, -2000}};
    set_up();
    stop();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int16_t counts = 12345;
        fake[0].reg[0x0d] = rows[i].reg;
        CHECK_EQ(ina3221_shunt_sum(&chip[0], &counts), INA3221_OK);
        CHECK_EQ(counts, rows[i].counts);
    }
    // End to end: channels 1 and 3 of three.
    set_up();
    shunt_nv[0][0] = 100 * 40000, shunt_nv[0][1] = 7 * 40000, shunt_nv[0][2] = -300 * 40000;
    CHECK_EQ(ina3221_set_sum(&chip[0], (const bool[]){true, false, true}, -201), INA3221_OK);
    fake_i2c_advance(&wire, 2 * fake_ina3221_cycle_ns(&fake[0]));
    int16_t counts;
    CHECK_EQ(ina3221_shunt_sum(&chip[0], &counts), INA3221_OK);
    CHECK_EQ(counts, -200);
    struct ina3221_flags flags;
    CHECK_EQ(ina3221_flags(&chip[0], &flags), INA3221_OK);
    CHECK(flags.sum); // -200 is above -201
    CHECK_EQ(ina3221_set_sum(&chip[0], (const bool[]){true, false, true}, -200), INA3221_OK);
    fake_i2c_advance(&wire, 2 * fake_ina3221_cycle_ns(&fake[0]));
    CHECK_EQ(ina3221_flags(&chip[0], &flags), INA3221_OK);
    CHECK(!flags.sum);
}

// Each channel of each of the four chips that a bus can have gives its own value.
static void all_channels_of_all_chips(void) {
    set_up();
    for (int i = 0; i < CHIPS; i++) {
        for (int channel = 0; channel < 3; channel++) {
            shunt_nv[i][channel] = 40000 * (100 * i + 10 * channel - 155);
            bus_uv[i][channel] = 8000 * (1000 + 100 * i + 10 * channel);
        }
    }
    fake_i2c_advance(&wire, 2 * fake_ina3221_cycle_ns(&fake[0]));
    for (int i = 0; i < CHIPS; i++) {
        for (int channel = 0; channel < 3; channel++) {
            int16_t shunt, bus;
            CHECK_EQ(ina3221_shunt(&chip[i], channel, &shunt), INA3221_OK);
            CHECK_EQ(ina3221_bus_voltage(&chip[i], channel, &bus), INA3221_OK);
            CHECK_EQ(shunt, 100 * i + 10 * channel - 155);
            CHECK_EQ(bus, 1000 + 100 * i + 10 * channel);
        }
    }
    CHECK_EQ(tap.writes, 0); // reading is no reason to write
}

// The setters, each with the registers it must have changed, from those at power-on.
#define SETTERS 12
static int set(struct ina3221 *c, int setter, uint16_t expected[0x12]) {
    static const struct ina3221_config config = {
        .enabled = {true, false, true}, .average = INA3221_AVG_16, .bus_time = INA3221_140_US, .shunt_time = INA3221_8244_US, .mode = INA3221_SHUNT,
    };
    switch (setter) {
    case 0:
        expected[0x00] = 0x543d;
        return ina3221_configure(c, &config);
    case 1: case 2: case 3:
        expected[0x07 + 2 * (setter - 1)] = (uint16_t)(1000 * 8 * setter);
        return ina3221_set_critical(c, setter - 1, (int16_t)(1000 * setter));
    case 4: case 5: case 6:
        expected[0x08 + 2 * (setter - 4)] = (uint16_t)(-8 * setter);
        return ina3221_set_warning(c, setter - 4, (int16_t)-setter);
    case 7:
        expected[0x0f] = 0x0402;
        return ina3221_set_latch(c, true, false);
    case 8:
        expected[0x0f] = 0x0802;
        return ina3221_set_latch(c, false, true);
    case 9:
        expected[0x0f] = 0x3002, expected[0x0e] = 0x2468;
        return ina3221_set_sum(c, (const bool[]){false, true, true}, 0x1234);
    case 10:
        expected[0x10] = 594 * 8, expected[0x11] = 575 * 8;
        return ina3221_set_power_valid(c, 594, 575); // 4.75 V, 4.60 V
    default: { // two at once
        expected[0x0f] = 0x7c02, expected[0x0e] = 0x8000;
        int result = ina3221_set_latch(c, true, true);
        return result == INA3221_OK ? ina3221_set_sum(c, (const bool[]){true, true, true}, -16384) : result;
    }
    }
}

static const uint16_t at_power_on[0x12] = {
    0x7127, 0, 0, 0, 0, 0, 0, 0x7ff8, 0x7ff8, 0x7ff8, 0x7ff8, 0x7ff8, 0x7ff8, 0, 0x7ffe, 0x0002, 0x2710, 0x2328,
};

// A reset bit that stays in what the driver remembers resets the chip with the next write; what is remembered from before the reset comes
// back with it. So: set everything, reset, set one thing, and only that may differ from power-on.
static void every_setter_after_a_reset(void) {
    for (int setter = 0; setter < SETTERS; setter++) {
        set_up();
        uint16_t expected[0x12];
        for (int i = 0; i < SETTERS; i++) {
            CHECK_EQ(set(&chip[0], i, expected), INA3221_OK);
        }
        CHECK_EQ(ina3221_reset(&chip[0]), INA3221_OK);
        CHECK_EQ(fake[0].resets, 1);
        CHECK_MEM(fake[0].reg, at_power_on, sizeof at_power_on);
        memcpy(expected, at_power_on, sizeof expected);
        CHECK_EQ(set(&chip[0], setter, expected), INA3221_OK);
        CHECK_EQ(fake[0].resets, 1);
        if (!CHECK_MEM(fake[0].reg, expected, sizeof expected)) {
            printf("    after setter %d\n", setter);
        }
        // What the driver holds is what the chip holds.
        struct ina3221_config config;
        CHECK_EQ(ina3221_read_config(&chip[0], &config), INA3221_OK);
        CHECK_MEM(config.enabled, chip[0].config.enabled, sizeof config.enabled);
        CHECK_EQ(config.mode, chip[0].config.mode);
        CHECK_EQ(config.average, chip[0].config.average);
        CHECK_EQ(chip[0].writable_mask, fake[0].reg[0x0f] & 0x7c00);
    }
}

// And one setter after another, in every order of two: none undoes another.
static void setters_keep_each_other(void) {
    for (int a = 0; a < SETTERS; a++) {
        for (int b = 0; b < SETTERS; b++) {
            set_up();
            uint16_t expected[0x12], of_b[0x12];
            memcpy(expected, at_power_on, sizeof expected);
            memcpy(of_b, at_power_on, sizeof of_b);
            CHECK_EQ(set(&chip[0], a, expected), INA3221_OK);
            CHECK_EQ(set(&chip[0], b, of_b), INA3221_OK);
            for (int reg = 0; reg < 0x12; reg++) {
                if (reg == 0x0f) { // latches and sum share it
                    uint16_t bits_of_b = b == 7 || b == 8 ? 0x0c00 : b == 9 ? 0x7000 : b == 11 ? 0x7c00 : 0;
                    expected[reg] = (uint16_t)((expected[reg] & ~bits_of_b) | (of_b[reg] & bits_of_b));
                } else if (of_b[reg] != at_power_on[reg]) {
                    expected[reg] = of_b[reg];
                }
            }
            if (!CHECK_MEM(fake[0].reg, expected, sizeof expected)) {
                printf("    setter %d, then %d\n", a, b);
            }
        }
    }
}

// All 28,672 configurations go to the chip and back, and take as long as the driver says.
static void configurations(void) {
    set_up();
    static const int modes[] = {0, 1, 2, 3, 5, 6, 7};
    unsigned wrong = 0;
    for (int bits = 0; bits < 8 * 8 * 8 * 8; bits++) {
        for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
            struct ina3221_config config = {
                .enabled = {bits >> 11 & 1, bits >> 10 & 1, bits >> 9 & 1},
                .average = (enum ina3221_average)(bits >> 6 & 7), .bus_time = (enum ina3221_time)(bits >> 3 & 7), .shunt_time = (enum ina3221_time)(bits & 7),
                .mode = (enum ina3221_mode)modes[m],
            };
            struct ina3221_config back = {0};
            wrong += ina3221_configure(&chip[0], &config) != INA3221_OK || ina3221_read_config(&chip[0], &back) != INA3221_OK;
            wrong += fake[0].reg[0] != (bits << 3 | modes[m]);
            wrong += memcmp(config.enabled, back.enabled, sizeof config.enabled) != 0 || config.average != back.average || config.bus_time != back.bus_time
                || config.shunt_time != back.shunt_time || config.mode != back.mode || chip[0].config.mode != config.mode;
            wrong += ina3221_cycle_us(&config) * (uint64_t)1000 != fake_ina3221_cycle_ns(&fake[0]);
        }
    }
    CHECK_EQ(wrong, 0);
    CHECK_EQ(fake[0].resets, 0);

    // What cannot be asked for is not sent.
    struct ina3221_config good = chip[0].config;
    unsigned writes = tap.writes;
    for (int field = 0; field < 5; field++) {
        struct ina3221_config bad = good;
        switch (field) {
        case 0: bad.average = (enum ina3221_average)8; break;
        case 1: bad.bus_time = (enum ina3221_time)8; break;
        case 2: bad.shunt_time = (enum ina3221_time)8; break;
        case 3: bad.mode = (enum ina3221_mode)8; break;
        default: bad.mode = (enum ina3221_mode)4; break;
        }
        CHECK_EQ(ina3221_configure(&chip[0], &bad), INA3221_ARGUMENT);
    }
    CHECK_EQ(tap.writes, writes);
    CHECK_MEM(&chip[0].config, &good, sizeof good);
    // 4 is the chip's other code for power-down.
    struct ina3221_config config;
    fake[0].reg[0] = 0x7124;
    CHECK_EQ(ina3221_read_config(&chip[0], &config), INA3221_OK);
    CHECK_EQ(config.mode, INA3221_POWER_DOWN);
}

// Cycles with three channels, from the conversion times of 7.5.
static void cycle_times(void) {
    static const struct {
        enum ina3221_time bus, shunt;
        enum ina3221_mode mode;
        uint32_t us;
    } rows[] = {
        {INA3221_140_US, INA3221_140_US, INA3221_BOTH, 840}, {INA3221_332_US, INA3221_332_US, INA3221_BOTH, 1992},
        {INA3221_1100_US, INA3221_1100_US, INA3221_BOTH, 6600}, {INA3221_2116_US, INA3221_2116_US, INA3221_BOTH, 12696},
        {INA3221_8244_US, INA3221_140_US, INA3221_SHUNT, 420}, {INA3221_204_US, INA3221_8244_US, INA3221_BUS_ONLY, 612},
        {INA3221_588_US, INA3221_4156_US, INA3221_BOTH_ONCE, 14232}, {INA3221_332_US, INA3221_332_US, INA3221_POWER_DOWN, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct ina3221_config config = {{true, true, true}, INA3221_AVG_1024, rows[i].bus, rows[i].shunt, rows[i].mode};
        CHECK_EQ(ina3221_cycle_us(&config), rows[i].us);
        config.enabled[1] = false;
        CHECK_EQ(ina3221_cycle_us(&config), rows[i].us / 3 * 2);
    }
}

static unsigned pack(const struct ina3221_flags *f) {
    unsigned bits = (unsigned)f->sum << 6 | (unsigned)f->power_valid << 2 | (unsigned)f->timing << 1 | (unsigned)f->ready;
    for (int channel = 0; channel < 3; channel++) {
        bits |= (unsigned)f->critical[channel] << (9 - channel) | (unsigned)f->warning[channel] << (5 - channel);
    }
    return bits;
}

static void flags(void) {
    set_up();
    stop();
    // Each bit of 0Fh alone, and all: the ten flags are told, the settings and the unused bits are not.
    for (int bit = 0; bit <= 16; bit++) {
        uint16_t value = (uint16_t)(bit == 16 ? 0xffff : 1 << bit);
        fake[0].reg[0x0f] = value;
        struct ina3221_flags f;
        memset(&f, 0, sizeof f);
        CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
        CHECK_EQ(pack(&f), value & 0x03ff);
    }

    // Ready: after a cycle, once; not after a new configuration.
    set_up();
    struct ina3221_flags f;
    uint64_t cycle = fake_ina3221_cycle_ns(&fake[0]);
    CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
    CHECK(!f.ready && f.timing);
    fake_i2c_advance(&wire, cycle);
    CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
    CHECK(f.ready);
    CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
    CHECK(!f.ready);
    fake_i2c_advance(&wire, cycle);
    struct ina3221_config same = chip[0].config;
    CHECK_EQ(ina3221_configure(&chip[0], &same), INA3221_OK);
    CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
    CHECK(!f.ready);
}

// The settings that are read along with the flags tell that the chip forgot them: only if there were some, whatever flags are up.
static void lost(void) {
    struct ina3221_flags f;
    for (int which = 0; which < 3; which++) {
        set_up();
        CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
        CHECK(!f.lost);
        CHECK_EQ(ina3221_set_latch(&chip[0], which == 0, which == 1), INA3221_OK);
        CHECK_EQ(ina3221_set_sum(&chip[0], (const bool[]){false, false, which == 2}, 0), INA3221_OK);
        shunt_nv[0][2] = 40000;
        fake_i2c_advance(&wire, 2 * fake_ina3221_cycle_ns(&fake[0]));
        CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
        CHECK(f.ready && !f.lost);
        fake_ina3221_power(&fake[0], false);
        fake_ina3221_power(&fake[0], true);
        CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
        CHECK(f.lost);
        CHECK_EQ(ina3221_reset(&chip[0]), INA3221_OK);
        CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
        CHECK(!f.lost); // one that the driver knows of
    }
}

// Alerts end to end, for each channel; latched ones last until they are read, and survive the setters between.
static void alerts(void) {
    for (int channel = 0; channel < 3; channel++) {
        set_up();
        struct ina3221_flags f;
        shunt_nv[0][channel] = 500 * 40000;
        CHECK_EQ(ina3221_set_latch(&chip[0], true, true), INA3221_OK);
        CHECK_EQ(ina3221_set_critical(&chip[0], channel, 500), INA3221_OK);
        CHECK_EQ(ina3221_set_warning(&chip[0], channel, 499), INA3221_OK);
        fake_i2c_advance(&wire, 2 * fake_ina3221_cycle_ns(&fake[0]));
        CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
        CHECK_EQ(pack(&f) & 0x03f8, 0x20 >> channel); // 500 is above 499, not above 500
        CHECK_EQ(ina3221_set_critical(&chip[0], channel, 499), INA3221_OK);
        fake_i2c_advance(&wire, 2 * fake_ina3221_cycle_ns(&fake[0]));
        shunt_nv[0][channel] = 0;
        fake_i2c_advance(&wire, 2 * fake_ina3221_cycle_ns(&fake[0]));
        CHECK_EQ(ina3221_set_sum(&chip[0], (const bool[]){true, true, true}, 16383), INA3221_OK);
        CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
        CHECK_EQ(pack(&f) & 0x03f8, 0x220 >> channel);
        CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
        CHECK_EQ(pack(&f) & 0x03f8, 0);
    }

    // Power-valid, as a meter of 5 V boards sets it.
    set_up();
    struct ina3221_flags f;
    CHECK_EQ(ina3221_set_power_valid(&chip[0], 594, 575), INA3221_OK);
    static const struct {
        int32_t mv;
        bool valid;
    } steps[] = {{4700, false}, {4760, true}, {4700, true}, {4608, true}, {4592, false}, {4700, false}, {5000, true}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        for (int channel = 0; channel < 3; channel++) {
            bus_uv[0][channel] = (channel == 1 ? steps[i].mv : 5100) * 1000;
        }
        fake_i2c_advance(&wire, 2 * fake_ina3221_cycle_ns(&fake[0]));
        CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
        CHECK_EQ(f.power_valid, steps[i].valid);
    }
}

// A setter of 0Fh sends settings only, whatever flags the chip has up.
static void flags_are_not_written_back(void) {
    set_up();
    stop();
    fake[0].reg[0x0f] = 0x03ff;
    struct ina3221_flags f;
    CHECK_EQ(ina3221_flags(&chip[0], &f), INA3221_OK);
    CHECK_EQ(ina3221_set_latch(&chip[0], true, false), INA3221_OK);
    CHECK_MEM(tap.written, ((const uint8_t[]){0x0f, 0x04, 0x00}), 3);
    CHECK_EQ(ina3221_set_sum(&chip[0], (const bool[]){true, false, false}, 1), INA3221_OK);
    CHECK_MEM(tap.written, ((const uint8_t[]){0x0f, 0x44, 0x00}), 3);
    CHECK_EQ(ina3221_reset(&chip[0]), INA3221_OK);
    struct ina3221_config config = chip[0].config;
    CHECK_EQ(ina3221_configure(&chip[0], &config), INA3221_OK);
    CHECK_MEM(tap.written, ((const uint8_t[]){0x00, 0x71, 0x27}), 3);
}

// Limits over their whole range, and beyond.
static void limits(void) {
    set_up();
    static const int16_t good[] = {-4096, -4095, -2000, -1, 0, 1, 2000, 4094, 4095};
    static const int16_t bad[] = {-32768, -4097, 4096, 32767};
    for (int channel = 0; channel < 3; channel++) {
        for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
            CHECK_EQ(ina3221_set_critical(&chip[0], channel, good[i]), INA3221_OK);
            CHECK_EQ((int16_t)fake[0].reg[0x07 + 2 * channel], good[i] * 8);
            CHECK_EQ(ina3221_set_warning(&chip[0], channel, good[i]), INA3221_OK);
            CHECK_EQ((int16_t)fake[0].reg[0x08 + 2 * channel], good[i] * 8);
            CHECK_EQ(ina3221_set_power_valid(&chip[0], good[i], good[i]), INA3221_OK);
            CHECK_EQ((int16_t)fake[0].reg[0x10], good[i] * 8);
            CHECK_EQ((int16_t)fake[0].reg[0x11], good[i] * 8);
        }
    }
    CHECK_EQ(ina3221_set_sum(&chip[0], (const bool[3]){0}, -16384), INA3221_OK);
    CHECK_EQ(fake[0].reg[0x0e], 0x8000);
    CHECK_EQ(ina3221_set_sum(&chip[0], (const bool[3]){0}, 16383), INA3221_OK);
    CHECK_EQ(fake[0].reg[0x0e], 0x7ffe);

    unsigned transfers = tap.reads + tap.writes;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_EQ(ina3221_set_critical(&chip[0], 0, bad[i]), INA3221_ARGUMENT);
        CHECK_EQ(ina3221_set_warning(&chip[0], 0, bad[i]), INA3221_ARGUMENT);
        CHECK_EQ(ina3221_set_power_valid(&chip[0], bad[i], -4096), INA3221_ARGUMENT);
        CHECK_EQ(ina3221_set_power_valid(&chip[0], 4095, bad[i]), INA3221_ARGUMENT);
    }
    CHECK_EQ(ina3221_set_power_valid(&chip[0], 575, 594), INA3221_ARGUMENT);
    CHECK_EQ(ina3221_set_sum(&chip[0], (const bool[3]){0}, 16384), INA3221_ARGUMENT);
    CHECK_EQ(ina3221_set_sum(&chip[0], (const bool[3]){0}, -16385), INA3221_ARGUMENT);
    int16_t counts = 77;
    for (int i = 0; i < 2; i++) {
        int channel = i ? 3 : -1;
        CHECK_EQ(ina3221_shunt(&chip[0], channel, &counts), INA3221_ARGUMENT);
        CHECK_EQ(ina3221_bus_voltage(&chip[0], channel, &counts), INA3221_ARGUMENT);
        CHECK_EQ(ina3221_set_critical(&chip[0], channel, 0), INA3221_ARGUMENT);
        CHECK_EQ(ina3221_set_warning(&chip[0], channel, 0), INA3221_ARGUMENT);
    }
    CHECK_EQ(counts, 77);
    CHECK_EQ(tap.reads + tap.writes, transfers);
}

// Other chips of the family share the addresses. The INA226 has TI's id too, the INA219 and INA228 have none in these registers.
static void identities(void) {
    static const struct {
        uint16_t manufacturer, die;
        int result;
    } rows[] = {
        {0x5449, 0x3220, INA3221_OK}, {0x5449, 0x2260, INA3221_IDENTITY}, {0x5449, 0x2261, INA3221_IDENTITY}, {0x5449, 0x2281, INA3221_IDENTITY},
        {0x0000, 0x0000, INA3221_IDENTITY}, {0xffff, 0xffff, INA3221_IDENTITY}, {0x399f, 0x399f, INA3221_IDENTITY}, {0x5449, 0x3221, INA3221_IDENTITY},
        {0x4954, 0x2032, INA3221_IDENTITY}, {0x0000, 0x3220, INA3221_IDENTITY},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        set_up();
        fake[2].manufacturer = rows[i].manufacturer;
        fake[2].die = rows[i].die;
        CHECK_EQ(ina3221_init(&chip[2], tapped, 0x42), rows[i].result);
        CHECK_EQ(tap.writes, 0); // nothing is written to a stranger
    }
    set_up();
    fake[1].absent = true;
    CHECK_EQ(ina3221_init(&chip[1], tapped, 0x41), INA3221_BUS);
    unsigned transfers = tap.reads + tap.writes;
    CHECK_EQ(ina3221_init(&chip[1], tapped, 0x3f), INA3221_ARGUMENT);
    CHECK_EQ(ina3221_init(&chip[1], tapped, 0x44), INA3221_ARGUMENT);
    CHECK_EQ(ina3221_init(&chip[1], (struct ina3221_bus){.read = tap_read}, 0x41), INA3221_ARGUMENT);
    CHECK_EQ(ina3221_init(&chip[1], (struct ina3221_bus){.write = tap_write}, 0x41), INA3221_ARGUMENT);
    CHECK_EQ(tap.reads + tap.writes, transfers);
}

// The processor restarts, the chip does not: the new driver finds what the old one set, and keeps it.
static void a_chip_that_stayed(void) {
    set_up();
    uint16_t expected[0x12];
    memcpy(expected, at_power_on, sizeof expected);
    CHECK_EQ(set(&chip[0], 0, expected), INA3221_OK);
    CHECK_EQ(set(&chip[0], 9, expected), INA3221_OK);
    struct ina3221 old = chip[0];
    memset(&chip[0], 0xff, sizeof chip[0]);
    CHECK_EQ(ina3221_init(&chip[0], tapped, 0x40), INA3221_OK);
    CHECK_EQ(chip[0].config.mode, old.config.mode);
    CHECK_EQ(chip[0].config.enabled[1], false);
    CHECK_EQ(chip[0].writable_mask, 0x3000);
    CHECK_EQ(ina3221_set_latch(&chip[0], true, true), INA3221_OK);
    CHECK_EQ(fake[0].reg[0x0f] & 0x7c00, 0x3c00);

    // And the other way: the chip loses its supply, which the configuration tells.
    struct ina3221_config config;
    CHECK_EQ(ina3221_read_config(&chip[0], &config), INA3221_OK);
    CHECK_EQ(config.mode, chip[0].config.mode);
    fake_ina3221_power(&fake[0], false);
    CHECK_EQ(ina3221_read_config(&chip[0], &config), INA3221_BUS);
    fake_ina3221_power(&fake[0], true);
    CHECK_EQ(ina3221_read_config(&chip[0], &config), INA3221_OK);
    CHECK(config.mode == INA3221_BOTH && chip[0].config.mode == INA3221_SHUNT);
    CHECK_EQ(ina3221_configure(&chip[0], &chip[0].config), INA3221_OK);
    CHECK_EQ(ina3221_read_config(&chip[0], &config), INA3221_OK);
    CHECK_EQ(config.mode, INA3221_SHUNT);
}

// All calls that use the bus. Results go to out, whose bytes tell whether something was returned.
#define CALLS (SETTERS + 7)
static union {
    int16_t counts;
    struct ina3221_flags flags;
    struct ina3221_config config;
    uint8_t bytes[64];
} out;
static int call(int n) {
    uint16_t ignored[0x12];
    switch (n - SETTERS) {
    case 0: return ina3221_reset(&chip[0]);
    case 1: return ina3221_read_config(&chip[0], &out.config);
    case 2: return ina3221_shunt(&chip[0], 1, &out.counts);
    case 3: return ina3221_bus_voltage(&chip[0], 2, &out.counts);
    case 4: return ina3221_shunt_sum(&chip[0], &out.counts);
    case 5: return ina3221_flags(&chip[0], &out.flags);
    case 6: return ina3221_init(&(struct ina3221){.address = 0}, tapped, 0x40);
    default: return set(&chip[0], n, ignored);
    }
}

// Whatever the bus says is passed on, and nothing changes in what the driver holds: then the same call, tried again, does it.
static void bus_errors(void) {
    static const int errors[] = {-1, -2, -263, INT32_MIN, 1};
    for (int n = 0; n < CALLS; n++) {
        set_up();
        unsigned before = tap.reads + tap.writes;
        CHECK_EQ(call(n), INA3221_OK);
        int transfers = (int)(tap.reads + tap.writes - before);
        CHECK(transfers >= 1);
        for (int failing = 0; failing < transfers; failing++) {
            for (size_t e = 0; e < sizeof errors / sizeof *errors; e++) {
                set_up();
                struct ina3221 was = chip[0];
                memset(&out, 0xa5, sizeof out);
                tap.error = errors[e];
                tap.countdown = failing;
                int result = call(n);
                if (!CHECK_EQ(result, INA3221_BUS)) {
                    printf("    call %d, transfer %d\n", n, failing);
                }
                // Of two writes the first may be done: only the call with two settings in it keeps that.
                if (n != SETTERS - 1) {
                    CHECK_MEM(&chip[0], &was, sizeof was);
                } else {
                    CHECK_EQ(chip[0].writable_mask, failing == 0 ? 0 : 0x0c00);
                }
                for (size_t i = 0; i < sizeof out; i++) {
                    CHECK_EQ(out.bytes[i], 0xa5);
                }
                CHECK_EQ(call(n), INA3221_OK);
                CHECK_EQ(chip[0].writable_mask, fake[0].reg[0x0f] & 0x7c00);
            }
        }
    }

    // The same from the chip's side: it does not acknowledge its address, or the last byte.
    for (int n = 0; n < CALLS; n++) {
        set_up();
        fake[0].nack = 1;
        CHECK_EQ(call(n), INA3221_BUS);
        CHECK_EQ(call(n), INA3221_OK);
        fake[0].broken = 1;
        CHECK_EQ(call(n), INA3221_BUS);
        CHECK_EQ(call(n), INA3221_OK);
        wire.stuck = 1;
        CHECK_EQ(call(n), INA3221_BUS);
        CHECK_EQ(call(n), INA3221_OK);
    }
}

int main(void) {
    RUN(shunt_voltages);
    RUN(bus_voltages);
    RUN(sums);
    RUN(all_channels_of_all_chips);
    RUN(every_setter_after_a_reset);
    RUN(setters_keep_each_other);
    RUN(configurations);
    RUN(cycle_times);
    RUN(flags);
    RUN(lost);
    RUN(alerts);
    RUN(flags_are_not_written_back);
    RUN(limits);
    RUN(identities);
    RUN(a_chip_that_stayed);
    RUN(bus_errors);
    return check_end();
}
