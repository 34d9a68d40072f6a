// The chip that the other tests stand on, against the data sheet's numbers: seen through the bus, without the driver.
#include "check.h"
#include "fake_ina3221.h"

static struct fake_ina3221 chip;
static struct fake_i2c wire;
static struct ina3221_bus bus;

// What is wired to the chip: constants by channel, and a step of channel 1 at a time. The conversions asked for are noted.
static struct {
    int32_t shunt_nv[3], bus_uv[3];
    uint64_t step_ns;
    int32_t step_nv;
    struct {
        int channel;
        uint64_t from_ns, to_ns;
    } asked[64];
    int conversions;
} input;

static void mean(void *context, int channel, uint64_t from_ns, uint64_t to_ns, int32_t *shunt_nv, int32_t *bus_uv) {
    (void)context;
    if (input.conversions < 64) {
        input.asked[input.conversions].channel = channel;
        input.asked[input.conversions].from_ns = from_ns;
        input.asked[input.conversions].to_ns = to_ns;
    }
    input.conversions++;
    *shunt_nv = input.shunt_nv[channel];
    *bus_uv = input.bus_uv[channel];
    if (channel == 0 && input.step_ns && to_ns > input.step_ns) {
        uint64_t after = to_ns - (from_ns > input.step_ns ? from_ns : input.step_ns);
        *shunt_nv += (int32_t)((int64_t)input.step_nv * (int64_t)after / (int64_t)(to_ns - from_ns));
    }
}

static void set_up(void) {
    memset(&input, 0, sizeof input);
    fake_ina3221_init(&chip, (struct fake_ina3221_input){.mean = mean});
    fake_i2c_init(&wire);
    CHECK(fake_i2c_join(&wire, &chip, 0x40));
    bus = fake_i2c_bus(&wire);
}

// Over the bus, so that the transfers themselves are tested; and in no time, for tests of timing.
static uint16_t get(uint8_t reg) {
    uint8_t b[2] = {0, 0};
    CHECK_EQ(bus.read(bus.context, 0x40, reg, b, 2), 0);
    return (uint16_t)(b[0] << 8 | b[1]);
}

static void put(uint8_t reg, uint16_t value) {
    const uint8_t b[3] = {reg, (uint8_t)(value >> 8), (uint8_t)value};
    CHECK_EQ(bus.write(bus.context, 0x40, b, 3), 0);
}

static uint16_t peek(uint8_t reg) { return fake_ina3221_read(&chip, reg); }
static void poke(uint8_t reg, uint16_t value) { fake_ina3221_write(&chip, reg, value); }
static void pass(uint64_t us) { fake_ina3221_advance(&chip, us * 1000); }

static const uint16_t at_power_on[0x12] = {
    0x7127, 0, 0, 0, 0, 0, 0, 0x7ff8, 0x7ff8, 0x7ff8, 0x7ff8, 0x7ff8, 0x7ff8, 0, 0x7ffe, 0x0002, 0x2710, 0x2328,
};

// 8.6.1, the column of power-on values.
static void registers_at_power_on(void) {
    set_up();
    for (uint8_t reg = 0; reg < 0x12; reg++) {
        CHECK_EQ(get(reg), at_power_on[reg]);
    }
    CHECK_EQ(get(0xfe), 0x5449);
    CHECK_EQ(get(0xff), 0x3220);
    CHECK_EQ(0x2710 / 8 * 8, 10000); // 10.000 V and 9.000 V in counts of 8 mV
    CHECK_EQ(0x2328 / 8 * 8, 9000);
}

static void only_writable_bits_are_written(void) {
    // 00h without RST; the limits without their unused bits; of 0Fh the settings; nothing of what is measured.
    static const uint16_t writable[0x12] = {
        0x7fff, 0, 0, 0, 0, 0, 0, 0xfff8, 0xfff8, 0xfff8, 0xfff8, 0xfff8, 0xfff8, 0, 0xfffe, 0x7c00, 0xfff8, 0xfff8,
    };
    for (uint8_t reg = 0; reg < 0x12; reg++) {
        set_up();
        put(reg, reg ? 0xffff : 0x7fff);
        CHECK_EQ(get(reg), writable[reg] | (at_power_on[reg] & ~writable[reg]));
        put(reg, 0);
        CHECK_EQ(get(reg), at_power_on[reg] & ~writable[reg]);
        for (uint8_t other = 0; other < 0x12; other++) {
            CHECK(other == reg || get(other) == at_power_on[other]);
        }
    }
    set_up();
    put(0xfe, 0x1234);
    put(0xff, 0x1234);
    put(0x12, 0x1234);
    CHECK_EQ(get(0xfe), 0x5449);
    CHECK_EQ(get(0xff), 0x3220);
}

// 8.3.3: RST is as a power-on, and clears itself.
static void reset(void) {
    set_up();
    input.shunt_nv[0] = 40000 * 100;
    for (uint8_t reg = 1; reg < 0x12; reg++) {
        put(reg, 0x1230);
    }
    put(0, 0x7fff & ~0x0e00);
    pass(60000);
    CHECK(get(1) == 800 && get(0x0f) != 2);
    put(0, 0xffff);
    for (uint8_t reg = 0; reg < 0x12; reg++) {
        CHECK_EQ(get(reg), at_power_on[reg]);
    }
    put(0, 0x4127); // a write after it is a write, not another reset
    CHECK_EQ(get(0), 0x4127);
    CHECK_EQ(chip.resets, 1);
}

// One ADC: channel 1 shunt, channel 1 bus, channel 2 shunt and so on, each for its time (7.5), one after another without a pause.
static void conversions_in_their_order_and_time(void) {
    static const uint64_t typical[8] = {140, 204, 332, 588, 1100, 2116, 4156, 8244};
    for (unsigned bus_time = 0; bus_time < 8; bus_time++) {
        for (unsigned shunt_time = 0; shunt_time < 8; shunt_time++) {
            set_up();
            poke(0, (uint16_t)(0x7007 | bus_time << 6 | shunt_time << 3));
            uint64_t cycle = 3 * (typical[bus_time] + typical[shunt_time]);
            CHECK_EQ(fake_ina3221_cycle_ns(&chip), cycle * 1000);
            pass(2 * cycle);
            CHECK_EQ(input.conversions, 12);
            CHECK_EQ(chip.cycles, 2);
            uint64_t t = 0;
            for (int i = 0; i < 12; i++) {
                CHECK_EQ(input.asked[i].channel, i / 2 % 3);
                CHECK_EQ(input.asked[i].from_ns, t);
                t += 1000 * (i % 2 ? typical[bus_time] : typical[shunt_time]);
                CHECK_EQ(input.asked[i].to_ns, t);
            }
        }
    }

    // Only what is enabled, only what the mode has; what is not converted keeps its value.
    set_up();
    for (int i = 0; i < 3; i++) {
        input.shunt_nv[i] = 40000 * (i + 1);
        input.bus_uv[i] = 8000 * (i + 101);
    }
    poke(0, 0x5006); // channels 1 and 3, bus
    pass(280);
    CHECK_EQ(input.conversions, 2);
    CHECK(peek(2) == 808 && peek(6) == 824 && peek(4) == 0 && peek(1) == 0 && peek(3) == 0 && peek(5) == 0);
    poke(0, 0x2005); // channel 2, shunt
    pass(140);
    CHECK_EQ(input.conversions, 3);
    CHECK(peek(2) == 808 && peek(6) == 824 && peek(4) == 0 && peek(1) == 0 && peek(3) == 16 && peek(5) == 0);
    for (int none = 0; none < 3; none++) {
        static const uint16_t off[] = {0x7000, 0x7004, 0x0007};
        poke(0, off[none]);
        pass(1000000);
        CHECK_EQ(input.conversions, 3);
        CHECK_EQ(fake_ina3221_cycle_ns(&chip), 0);
    }
}

// The oscillator: a tenth more is the data sheet's maximum; 456 to 502 whole cycles a second at 332 us.
static void oscillator(void) {
    static const uint64_t longest[8] = {154000, 224400, 365200, 646800, 1210000, 2327600, 4571600, 9068400};
    for (unsigned code = 0; code < 8; code++) {
        set_up();
        chip.rate_ppm = 100000;
        poke(0, (uint16_t)(0x7007 | code << 6 | code << 3));
        CHECK_EQ(fake_ina3221_conversion_ns(&chip, false), longest[code]);
        CHECK_EQ(fake_ina3221_conversion_ns(&chip, true), longest[code]);
        chip.rate_ppm = -100000;
        CHECK_EQ(fake_ina3221_conversion_ns(&chip, true), longest[code] * 9 / 11);
    }
    static const struct {
        int32_t ppm;
        uint64_t cycles;
    } rows[] = {{0, 502}, {100000, 456}, {-100000, 557}, {50000, 478}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        set_up();
        chip.rate_ppm = rows[i].ppm;
        poke(0, 0x7097);
        pass(1000000);
        CHECK_EQ(chip.cycles, rows[i].cycles);
    }
}

// A reading is the mean over its own conversion: a step in the middle of it counts by half, and whatever is outside not at all.
static void each_reading_is_its_own_mean(void) {
    set_up();
    poke(0, 0x7097); // 332 us
    input.step_ns = (1992 + 166) * 1000;
    input.step_nv = 40000 * 1000;
    pass(1992);
    CHECK_EQ(peek(1), 0);
    pass(332);
    CHECK_EQ(peek(1), 500 * 8);
    pass(1991);
    CHECK_EQ(peek(1), 500 * 8); // until the end of the next
    pass(1);
    CHECK_EQ(peek(1), 1000 * 8);
}

// 40 uV and 8 mV, to the nearest, until the range ends: 163.8 mV, 32.76 V.
static void resolution_and_range(void) {
    static const struct {
        int32_t nv;
        int counts;
    } shunt[] = {{0, 0}, {19999, 0}, {20000, 1}, {40000, 1}, {-19999, 0}, {-20001, -1}, {-40000, -1}, {163800000, 4095}, {163840000, 4095}, {2000000000, 4095},
                 {-163800000, -4095}, {-163840000, -4096}, {-2000000000, -4096}};
    set_up();
    for (size_t i = 0; i < sizeof shunt / sizeof *shunt; i++) {
        input.shunt_nv[2] = shunt[i].nv;
        pass(6600);
        CHECK_EQ((int16_t)peek(5), shunt[i].counts * 8);
    }
    static const struct {
        int32_t uv;
        int counts;
    } voltage[] = {{3999, 0}, {4000, 1}, {5000000, 625}, {26000000, 3250}, {32760000, 4095}, {32770000, 4095}};
    for (size_t i = 0; i < sizeof voltage / sizeof *voltage; i++) {
        input.bus_uv[1] = voltage[i].uv;
        pass(6600);
        CHECK_EQ((int16_t)peek(4), voltage[i].counts * 8);
    }
    // Errors of the part: gain and offset, before the steps.
    chip.gain_ppm[0] = 2500;
    chip.offset_nv[0] = -80000;
    input.shunt_nv[0] = 40000 * 1000;
    pass(6600);
    CHECK_EQ((int16_t)peek(1), (1000 + 2 - 2 + 1) * 8); // 1000 * 1.0025 - 2 = 1000.5, to the nearest
}

// CVRF comes with the last conversion of the cycle, and goes by reading 0Fh or by writing 00h, but for power-down (8.6.2.16).
static void conversion_ready(void) {
    set_up();
    poke(0, 0x7007); // 840 us
    fake_ina3221_advance(&chip, 839999);
    CHECK_EQ(peek(0x0f) & 1, 0);
    fake_ina3221_advance(&chip, 1);
    CHECK_EQ(chip.reg[0x0f] & 1, 1);
    peek(0), peek(1), peek(0x10);
    CHECK_EQ(chip.reg[0x0f] & 1, 1); // other registers leave it
    CHECK_EQ(peek(0x0f) & 1, 1);
    CHECK_EQ(peek(0x0f) & 1, 0);
    pass(840);
    poke(0x0f, 0x0400);
    CHECK_EQ(chip.reg[0x0f] & 1, 1); // writing 0Fh leaves it
    poke(0, 0x7000);
    CHECK_EQ(chip.reg[0x0f] & 1, 1);
    poke(0, 0x7007);
    CHECK_EQ(peek(0x0f) & 1, 0);
    // Writing gives up the cycle and starts anew; reading does not.
    pass(700);
    poke(0, 0x7007);
    pass(700);
    peek(0);
    CHECK_EQ(peek(0x0f) & 1, 0);
    pass(140);
    CHECK_EQ(peek(0x0f) & 1, 1);
    // One that nobody reads stays; it does not count.
    pass(8400);
    CHECK_EQ(peek(0x0f) & 1, 1);
    CHECK_EQ(peek(0x0f) & 1, 0);
}

static void once_and_no_more(void) {
    for (uint16_t mode = 1; mode <= 3; mode++) {
        set_up();
        input.shunt_nv[0] = 40000 * 10;
        input.bus_uv[0] = 8000 * 20;
        poke(0, 0x7000 | mode);
        pass(100000);
        CHECK_EQ(input.conversions, mode == 3 ? 6 : 3);
        CHECK_EQ(peek(1), mode & 1 ? 80 : 0);
        CHECK_EQ(peek(2), mode & 2 ? 160 : 0);
        CHECK_EQ(peek(0x0f) & 1, 1);
        pass(100000);
        CHECK_EQ(peek(0x0f) & 1, 0);
        CHECK_EQ(peek(0), 0x7000 | mode);
        poke(0, 0x7000 | mode); // again
        pass(839);
        CHECK_EQ(peek(0x0f) & 1, mode == 3 ? 0 : 1);
        pass(1);
        CHECK_EQ(chip.cycles, 2);
    }
}

// 8.4.1: the register goes by (new - register) / N each cycle. Not a block mean: it is there at once and never arrives.
static void averaging(void) {
    static const int n[8] = {1, 4, 16, 64, 128, 256, 512, 1024};
    for (unsigned code = 0; code < 8; code++) {
        set_up();
        input.shunt_nv[1] = 40000 * 4000;
        input.bus_uv[1] = 8000 * 4000;
        poke(0, (uint16_t)(0x7007 | code << 9));
        pass(840);
        CHECK_NEAR(peek(3) / 8, 4000 / n[code], 1);
        CHECK_NEAR(peek(4) / 8, 4000 / n[code], 1);
        pass(840);
        CHECK_NEAR(peek(3) / 8, 4000 - 4000LL * (n[code] - 1) * (n[code] - 1) / n[code] / n[code], 1);
        pass(840 * (uint64_t)(n[code] - 2 + (n[code] == 1)));
        if (n[code] >= 16) {
            CHECK_NEAR(peek(3) / 8, 4000 * 0.638, 50); // 1 - 1/e, and a little for small N
        }
        pass(840 * 10 * (uint64_t)n[code]);
        CHECK_NEAR(peek(3) / 8, 4000, 1);
        // The filter goes on from the register when the configuration is written, and the mean of what it gives is that of the input.
        poke(0, 0x7007);
        input.shunt_nv[1] = 0;
        pass(840);
        CHECK_EQ(peek(3), 0);
    }
    // A reset starts it from 0, and the register is the nearest count.
    set_up();
    input.shunt_nv[0] = 40000 * 4000;
    poke(0, 0x7207); // 4
    pass(8400);
    poke(0, 0x8000);
    input.shunt_nv[0] = 40000 * 3;
    poke(0, 0x7207);
    pass(840);
    CHECK_EQ(peek(1), 8); // 0.75

    set_up();
    poke(0, 0x7207);
    int64_t in = 0, out = 0;
    for (int i = 0; i < 4000; i++) {
        input.shunt_nv[0] = i % 5 == 0 ? 40000 * 1000 : 0;
        in += input.shunt_nv[0] / 40000;
        pass(840);
        out += (int16_t)peek(1) / 8;
    }
    CHECK_NEAR(out, in, in / 200);
}

// Critical is compared with each conversion, warning with the average; above is above; limits are signed.
static void alerts(void) {
    for (int channel = 0; channel < 3; channel++) {
        int critical = 0x200 >> channel, warning = 0x20 >> channel;
        set_up();
        input.shunt_nv[channel] = 40000 * 100;
        poke((uint8_t)(7 + 2 * channel), 100 * 8);
        poke((uint8_t)(8 + 2 * channel), 99 * 8);
        poke(0, 0x7007);
        pass(840);
        CHECK_EQ(chip.reg[0x0f] & 0x3f8, warning);
        CHECK(!fake_ina3221_critical(&chip) && fake_ina3221_warning(&chip));
        // Transparent: follows each conversion, and reading does not clear it.
        CHECK_EQ(peek(0x0f) & 0x3f8, warning);
        CHECK_EQ(peek(0x0f) & 0x3f8, warning);
        input.shunt_nv[channel] = 40000 * 101;
        pass(840);
        CHECK_EQ(peek(0x0f) & 0x3f8, critical | warning);
        CHECK(fake_ina3221_critical(&chip));
        input.shunt_nv[channel] = 0;
        pass(840);
        CHECK_EQ(peek(0x0f) & 0x3f8, 0);

        // Latched: stays until it is read, and comes again while it is so. Each latch is its own.
        for (int latch = 0; latch < 4; latch++) {
            poke(0x0f, (uint16_t)((latch & 1 ? 0x0400 : 0) | (latch & 2 ? 0x0800 : 0)));
            int latched = (latch & 1 ? critical : 0) | (latch & 2 ? warning : 0);
            input.shunt_nv[channel] = 40000 * 101;
            pass(840);
            CHECK_EQ(peek(0x0f) & 0x3f8, critical | warning);
            CHECK_EQ(peek(0x0f) & 0x3f8, (critical | warning) & ~latched);
            pass(840);
            CHECK_EQ(chip.reg[0x0f] & 0x3f8, critical | warning);
            input.shunt_nv[channel] = 0;
            pass(8400);
            CHECK_EQ(peek(0x0f) & 0x3f8, latched);
            CHECK_EQ(peek(0x0f) & 0x3f8, 0);
        }
    }

    set_up(); // negative limits
    poke(7, (uint16_t)(-100 * 8));
    input.shunt_nv[0] = -40000 * 100;
    pass(6600);
    CHECK_EQ(peek(0x0f) & 0x200, 0);
    input.shunt_nv[0] = -40000 * 99;
    pass(6600);
    CHECK_EQ(peek(0x0f) & 0x200, 0x200);

    set_up(); // a short pulse is critical at once, and no warning: the average has not moved that far
    poke(0, 0x7000 | 6 << 9 | 7);
    poke(7, 500 * 8);
    poke(8, 500 * 8);
    input.shunt_nv[0] = 40000 * 1000;
    pass(840);
    CHECK_EQ(peek(0x0f) & 0x3f8, 0x200);
}

static void power_valid(void) {
    set_up();
    for (int channel = 0; channel < 3; channel++) {
        input.bus_uv[channel] = 10008000;
    }
    pass(6599);
    CHECK(!fake_ina3221_power_valid(&chip)); // the third channel is not yet converted
    pass(1);
    CHECK(fake_ina3221_power_valid(&chip));
    CHECK_EQ(peek(0x0f) & 4, 4);
    CHECK_EQ(peek(0x0f) & 4, 4); // it is a state: reading leaves it
    for (int channel = 0; channel < 3; channel++) {
        static const struct {
            int32_t mv;
            bool valid;
        } steps[] = {{10008, true}, {10000, true}, {9000, true}, {8992, false}, {9000, false}, {10000, false}, {10008, true}};
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
            input.bus_uv[channel] = steps[i].mv * 1000;
            pass(6600);
            CHECK_EQ(fake_ina3221_power_valid(&chip), steps[i].valid);
        }
    }
    poke(0, 0x7125); // without bus conversions nobody looks
    input.bus_uv[0] = 0;
    pass(66000);
    CHECK(fake_ina3221_power_valid(&chip));
}

// The sum is of single conversions of the channels chosen, once a cycle.
static void shunt_sum(void) {
    set_up();
    input.shunt_nv[0] = 40000 * 4095, input.shunt_nv[1] = 40000 * 4095, input.shunt_nv[2] = 40000 * 4095;
    poke(0, 0x7e07); // 1024: the registers hardly move, the sum does
    poke(0x0f, 0x7000);
    pass(839);
    CHECK_EQ(peek(0x0d), 0);
    pass(1);
    CHECK_EQ(peek(0x0d), 12285 * 2);
    CHECK(peek(1) < 8 * 5);
    for (unsigned choice = 0; choice < 8; choice++) {
        poke(0x0f, (uint16_t)(choice << 12));
        input.shunt_nv[0] = 40000 * 1000, input.shunt_nv[1] = -40000 * 2500, input.shunt_nv[2] = 40000 * 7;
        pass(840);
        CHECK_EQ((int16_t)peek(0x0d), 2 * ((choice & 4 ? 1000 : 0) - (choice & 2 ? 2500 : 0) + (choice & 1 ? 7 : 0)));
    }
    poke(0x0f, 0x5000);
    poke(0x0e, 1007 * 2);
    pass(840);
    CHECK_EQ(peek(0x0f) & 0x40, 0);
    poke(0x0e, 1006 * 2);
    pass(840);
    CHECK_EQ(peek(0x0f) & 0x40, 0x40);
    CHECK(fake_ina3221_critical(&chip)); // it is on the same pin
}

static void supply(void) {
    set_up();
    uint8_t b[2];
    put(0, 0x4097);
    put(0x0f, 0x7c00);
    fake_ina3221_power(&chip, false);
    CHECK_EQ(bus.read(bus.context, 0x40, 0, b, 2), -1);
    int before = input.conversions;
    fake_i2c_advance(&wire, 1000000000);
    CHECK_EQ(input.conversions, before);
    fake_ina3221_power(&chip, true);
    for (uint8_t reg = 0; reg < 0x12; reg++) {
        CHECK_EQ(get(reg), at_power_on[reg]);
    }
    fake_i2c_advance(&wire, 6600000);
    CHECK(input.conversions >= before + 6);
}

// How transfers go wrong, and that they do not when nobody asks.
static void faults(void) {
    uint8_t b[2] = {0xa5, 0xa5};
    const uint8_t limit[3] = {0x07, 0x10, 0x00};
    set_up();
    CHECK_EQ(bus.read(bus.context, 0x41, 0, b, 2), -1); // nobody there
    CHECK_EQ(bus.write(bus.context, 0x41, limit, 3), -1);
    chip.nack = 2;
    CHECK_EQ(bus.read(bus.context, 0x40, 0, b, 2), -1);
    CHECK_EQ(bus.write(bus.context, 0x40, limit, 3), -1);
    CHECK_EQ(get(7), 0x7ff8);
    chip.nack = FAKE_FOREVER;
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(bus.read(bus.context, 0x40, 0, b, 2), -1);
    }
    CHECK_EQ(chip.nack, FAKE_FOREVER);
    chip.nack = 0;
    CHECK_EQ(get(0), 0x7127);
    chip.absent = true;
    CHECK_EQ(bus.read(bus.context, 0x40, 0, b, 2), -1);
    chip.absent = false;
    // Broken off: a write without effect, a read that has cleared what reading clears.
    chip.broken = 1;
    CHECK_EQ(bus.write(bus.context, 0x40, limit, 3), -1);
    CHECK_EQ(get(7), 0x7ff8);
    fake_i2c_advance(&wire, 6600000);
    chip.broken = 1;
    CHECK_EQ(bus.read(bus.context, 0x40, 0x0f, b, 2), -1);
    CHECK_EQ(get(0x0f) & 1, 0);
    // Stuck: it takes as long as the time-out.
    wire.stuck = 2;
    wire.timeout_us = 5000;
    uint64_t t = wire.now_ns;
    CHECK_EQ(bus.read(bus.context, 0x40, 0, b, 2), -2);
    CHECK_EQ(bus.write(bus.context, 0x40, limit, 3), -2);
    CHECK_EQ(wire.now_ns - t, 10000000);
    CHECK_EQ(get(7), 0x7ff8);
    CHECK_EQ(wire.failed, 2 + 2 + 1000 + 1 + 2 + 2);
    CHECK(b[0] == 0xa5 && b[1] == 0xa5);
    // Writes that are no writes: the pointer alone, and half a register.
    CHECK_EQ(bus.write(bus.context, 0x40, limit, 1), 0);
    CHECK_EQ(chip.pointer, 7);
    CHECK_EQ(bus.write(bus.context, 0x40, limit, 2), 0);
    CHECK_EQ(get(7), 0x7ff8);
    CHECK(!fake_i2c_join(&wire, &chip, 0x40));
}

// 48 periods of the clock read a register, 38 write one: 120 and 95 us at 400 kHz. Hence the sweeps that a bus can carry.
static void wire_time(void) {
    static const struct {
        uint32_t hz, overhead_us;
        int registers;
        uint64_t sweeps;
    } rows[] = {{400000, 0, 6, 1388}, {400000, 40, 6, 1041}, {400000, 0, 12, 694}, {400000, 40, 12, 520}, {400000, 0, 7, 1190}, {400000, 40, 7, 892}, {1000000, 0, 12, 1736}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        set_up();
        wire.scl_hz = rows[i].hz;
        wire.overhead_us = rows[i].overhead_us;
        uint64_t transfers = 0;
        while (wire.now_ns <= 1000000000) {
            get(1);
            transfers++;
        }
        CHECK_EQ((transfers - 1) / (uint64_t)rows[i].registers, rows[i].sweeps);
    }
    set_up();
    get(1);
    CHECK_EQ(wire.now_ns, 120000);
    CHECK_EQ(fake_i2c_now_us(&wire), 120);
    put(7, 0);
    CHECK_EQ(wire.now_ns, 215000);
    chip.nack = 1;
    uint8_t b[2];
    bus.read(bus.context, 0x40, 0, b, 2);
    CHECK_EQ(wire.now_ns, 215000 + 27500);
    CHECK_EQ(chip.now_ns, wire.now_ns);
    fake_i2c_advance_to(&wire, 1000000);
    fake_i2c_advance_to(&wire, 5);
    CHECK_EQ(wire.now_ns, 1000000);

    // A conversion that ends while a register is on the wire: what is read is of the moment the chip is addressed for reading, 72.5 us in.
    for (int late = 0; late < 2; late++) {
        set_up();
        input.shunt_nv[0] = 40000;
        fake_i2c_advance(&wire, 1100000 - 72500 - (uint64_t)late);
        CHECK_EQ(get(1), late ? 0 : 8);
        CHECK_EQ(get(1), 8);
    }
}

static void noise(void) {
    for (int kind = 0; kind < 2; kind++) {
        int64_t sum[2] = {0, 0}, first[100];
        int least = 1000000, most = -1000000;
        for (int run = 0; run < 2; run++) {
            set_up();
            chip.seed = 7;
            chip.noise_nv = kind ? 0 : 400000; // 10 counts
            chip.noise_uv = kind ? 80000 : 0;
            input.shunt_nv[0] = 40000 * 100;
            input.bus_uv[0] = 8000 * 100;
            poke(0, 0x4007);
            for (int i = 0; i < 10000; i++) {
                pass(280);
                int counts = (int16_t)peek(kind ? 2 : 1) / 8;
                sum[run] += counts;
                least = counts < least ? counts : least;
                most = counts > most ? counts : most;
                if (i < 100) {
                    CHECK(run == 0 || first[i] == counts); // the same seed, the same noise
                    first[i] = counts;
                }
                CHECK_EQ(peek(kind ? 1 : 2), 800); // the other is without
            }
        }
        CHECK_EQ(sum[0], sum[1]);
        CHECK_NEAR(sum[0], 1000000, 2500); // standard error: 10 / sqrt(3) * sqrt(10000) = 577
        CHECK(least == 90 && most == 110);
    }
}

// Several chips on one bus have their own registers, and one time.
static void several_chips(void) {
    set_up();
    static struct fake_ina3221 other[4];
    for (int i = 0; i < 4; i++) {
        fake_ina3221_init(&other[i], (struct fake_ina3221_input){.mean = mean});
        CHECK_EQ(fake_i2c_join(&wire, &other[i], (uint8_t)(0x41 + i)), i < 3);
    }
    put(7, 0x0800);
    for (int i = 0; i < 3; i++) {
        uint8_t b[2];
        CHECK_EQ(bus.read(bus.context, (uint8_t)(0x41 + i), 7, b, 2), 0);
        CHECK_EQ(b[0] << 8 | b[1], 0x7ff8);
        CHECK_EQ(other[i].now_ns, wire.now_ns);
    }
}

int main(void) {
    RUN(registers_at_power_on);
    RUN(only_writable_bits_are_written);
    RUN(reset);
    RUN(conversions_in_their_order_and_time);
    RUN(oscillator);
    RUN(each_reading_is_its_own_mean);
    RUN(resolution_and_range);
    RUN(conversion_ready);
    RUN(once_and_no_more);
    RUN(averaging);
    RUN(alerts);
    RUN(power_valid);
    RUN(shunt_sum);
    RUN(supply);
    RUN(faults);
    RUN(wire_time);
    RUN(noise);
    RUN(several_chips);
    return check_end();
}
