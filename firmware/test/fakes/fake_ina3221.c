#include "fake_ina3221.h"

#include <string.h>

// Registers (SBOS576, 8.6.1), and bits of 00h and 0Fh.
enum {
    CONFIGURATION = 0x00, SHUNT_1 = 0x01, CRITICAL_1 = 0x07, WARNING_1 = 0x08, SUM = 0x0d, SUM_LIMIT = 0x0e, MASK = 0x0f,
    VALID_UPPER = 0x10, VALID_LOWER = 0x11, MANUFACTURER = 0xfe, DIE = 0xff,
};
enum { RST = 1 << 15, CONTINUOUS = 1 << 2, MODE_BUS = 1 << 1, MODE_SHUNT = 1 << 0 };
enum { WEN = 1 << 11, CEN = 1 << 10, CF1 = 1 << 9, SF = 1 << 6, WF1 = 1 << 5, PVF = 1 << 2, TCF = 1 << 1, CVRF = 1 << 0 };

static const uint16_t at_power_on[0x12] = {
    [CONFIGURATION] = 0x7127,
    [0x07] = 0x7ff8, [0x08] = 0x7ff8, [0x09] = 0x7ff8, [0x0a] = 0x7ff8, [0x0b] = 0x7ff8, [0x0c] = 0x7ff8,
    [SUM_LIMIT] = 0x7ffe, [MASK] = TCF, [VALID_UPPER] = 0x2710, [VALID_LOWER] = 0x2328,
};
// What a write can change; the rest reads as it was.
static const uint16_t writable[0x12] = {
    [CONFIGURATION] = 0x7fff,
    [0x07] = 0xfff8, [0x08] = 0xfff8, [0x09] = 0xfff8, [0x0a] = 0xfff8, [0x0b] = 0xfff8, [0x0c] = 0xfff8,
    [SUM_LIMIT] = 0xfffe, [MASK] = 0x7c00, [VALID_UPPER] = 0xfff8, [VALID_LOWER] = 0xfff8,
};
static const uint32_t typical_us[8] = {140, 204, 332, 588, 1100, 2116, 4156, 8244};
static const int32_t averages[8] = {1, 4, 16, 64, 128, 256, 512, 1024};

static int64_t floor_divide(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

// A reading is the nearest count, or the end of the range (two's complement of 13 bits).
static int32_t quantise(int64_t value, int64_t count) {
    int64_t n = floor_divide(value + count / 2, count);
    return n > 4095 ? 4095 : n < -4096 ? -4096 : (int32_t)n;
}

static int32_t counts(uint16_t reg, int shift) {
    return (int32_t)floor_divide((int16_t)reg, 1 << shift);
}

// splitmix64, mapped to -amplitude .. amplitude.
static int64_t noise(struct fake_ina3221 *chip, uint32_t amplitude) {
    if (!amplitude) {
        return 0;
    }
    uint64_t z = chip->seed += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    z ^= z >> 31;
    return (int64_t)((z >> 32) * (2 * (uint64_t)amplitude + 1) >> 32) - amplitude;
}

uint64_t fake_ina3221_conversion_ns(const struct fake_ina3221 *chip, bool bus) {
    uint32_t us = typical_us[chip->reg[CONFIGURATION] >> (bus ? 6 : 3) & 7];
    return (uint64_t)us * (uint64_t)(1000000 + chip->rate_ppm) / 1000;
}

// Says whether a conversion of the cycle takes place: its channel is enabled, and the mode has its kind.
static bool taken(const struct fake_ina3221 *chip, int slot) {
    uint16_t c = chip->reg[CONFIGURATION];
    return c >> (14 - slot / 2) & 1 && c & (slot % 2 ? MODE_BUS : MODE_SHUNT);
}

uint64_t fake_ina3221_cycle_ns(const struct fake_ina3221 *chip) {
    uint64_t sum = 0;
    for (int slot = 0; slot < 2 * INA3221_CHANNELS; slot++) {
        sum += taken(chip, slot) ? fake_ina3221_conversion_ns(chip, slot % 2) : 0;
    }
    return sum;
}

// Goes to the next conversion of the cycle after slot. Returns false at its end.
static bool next_slot(struct fake_ina3221 *chip, int slot) {
    while (++slot < 2 * INA3221_CHANNELS) {
        if (taken(chip, slot)) {
            chip->slot = slot;
            chip->slot_from_ns = chip->now_ns;
            chip->slot_to_ns = chip->now_ns + fake_ina3221_conversion_ns(chip, slot % 2);
            return true;
        }
    }
    return false;
}

static void start(struct fake_ina3221 *chip) {
    chip->converting = next_slot(chip, -1);
}

static void power_on(struct fake_ina3221 *chip) {
    memcpy(chip->reg, at_power_on, sizeof chip->reg);
    memset(chip->filter, 0, sizeof chip->filter);
    memset(chip->single, 0, sizeof chip->single);
    chip->pointer = 0;
    start(chip);
}

void fake_ina3221_init(struct fake_ina3221 *chip, struct fake_ina3221_input input) {
    memset(chip, 0, sizeof *chip);
    chip->input = input;
    chip->manufacturer = 0x5449;
    chip->die = 0x3220;
    chip->powered = true;
    power_on(chip);
}

void fake_ina3221_power(struct fake_ina3221 *chip, bool on) {
    if (on && !chip->powered) {
        power_on(chip);
    }
    chip->powered = on;
    chip->converting = chip->converting && on;
}

// A latched flag stays until 0Fh is read; a transparent one follows each conversion.
static void alert(struct fake_ina3221 *chip, bool over, bool latched, int flag) {
    if (over) {
        chip->reg[MASK] = (uint16_t)(chip->reg[MASK] | flag);
    } else if (!latched) {
        chip->reg[MASK] = (uint16_t)(chip->reg[MASK] & ~flag);
    }
}

// Power is valid once all bus voltages are above the upper limit, until one is below the lower (8.3.2.3). The data sheet asks for all three
// channels to be connected; that only those that are converted count is taken to be so.
static void power_valid(struct fake_ina3221 *chip) {
    bool above = true, below = false;
    for (int channel = 0; channel < INA3221_CHANNELS; channel++) {
        if (taken(chip, channel * 2 + 1)) {
            int32_t v = counts(chip->reg[SHUNT_1 + channel * 2 + 1], 3);
            above = above && v > counts(chip->reg[VALID_UPPER], 3);
            below = below || v < counts(chip->reg[VALID_LOWER], 3);
        }
    }
    if (above) {
        chip->reg[MASK] |= PVF;
    } else if (below) {
        chip->reg[MASK] &= (uint16_t)~PVF;
    }
}

// The sum is of single conversions, once a cycle (8.3.2.1.1).
static void sum(struct fake_ina3221 *chip) {
    int32_t total = 0;
    for (int channel = 0; channel < INA3221_CHANNELS; channel++) {
        total += chip->reg[MASK] >> (14 - channel) & 1 ? chip->single[channel] : 0;
    }
    chip->reg[SUM] = (uint16_t)(total * 2);
    alert(chip, total > counts(chip->reg[SUM_LIMIT], 1), chip->reg[MASK] & CEN, SF);
}

static void finish_conversion(struct fake_ina3221 *chip) {
    int channel = chip->slot / 2, bus = chip->slot % 2;
    int32_t shunt_nv = 0, bus_uv = 0;
    chip->input.mean(chip->input.context, channel, chip->slot_from_ns, chip->slot_to_ns, &shunt_nv, &bus_uv);
    int32_t now;
    if (bus) {
        now = quantise(bus_uv + noise(chip, chip->noise_uv), 8000);
    } else {
        int64_t nv = shunt_nv + floor_divide((int64_t)shunt_nv * chip->gain_ppm[channel], 1000000) + chip->offset_nv[channel];
        now = quantise(nv + noise(chip, chip->noise_nv), 40000);
    }
    // An exponential filter that starts from what the register held (8.4.1).
    int64_t *out = &chip->filter[chip->slot];
    *out += ((int64_t)now * 65536 - *out) / averages[chip->reg[CONFIGURATION] >> 9 & 7];
    int32_t averaged = (int32_t)floor_divide(*out + 32768, 65536);
    chip->reg[SHUNT_1 + chip->slot] = (uint16_t)(averaged * 8);
    chip->conversions++;
    if (bus) {
        power_valid(chip);
    } else {
        chip->single[channel] = (int16_t)now;
        uint16_t mask = chip->reg[MASK];
        alert(chip, now > counts(chip->reg[CRITICAL_1 + 2 * channel], 3), mask & CEN, CF1 >> channel);
        alert(chip, averaged > counts(chip->reg[WARNING_1 + 2 * channel], 3), mask & WEN, WF1 >> channel);
    }
    if (!next_slot(chip, chip->slot)) {
        uint16_t mode = chip->reg[CONFIGURATION] & 7;
        if (mode & MODE_SHUNT) {
            sum(chip);
        }
        chip->reg[MASK] |= CVRF;
        chip->cycles++;
        // Once is one conversion of each, whatever the averaging.
        chip->converting = mode & CONTINUOUS && next_slot(chip, -1);
    }
}

void fake_ina3221_advance(struct fake_ina3221 *chip, uint64_t ns) {
    uint64_t until = chip->now_ns + ns;
    while (chip->converting && chip->slot_to_ns <= until) {
        chip->now_ns = chip->slot_to_ns;
        finish_conversion(chip);
    }
    chip->now_ns = until;
}

uint16_t fake_ina3221_read(struct fake_ina3221 *chip, uint8_t reg) {
    chip->reads++;
    if (reg == MANUFACTURER || reg == DIE) {
        return reg == DIE ? chip->die : chip->manufacturer;
    }
    if (reg > VALID_LOWER) {
        return 0; // not in the data sheet
    }
    uint16_t value = chip->reg[reg];
    if (reg == MASK) {
        int cleared = CVRF;
        cleared |= value & CEN ? CF1 | CF1 >> 1 | CF1 >> 2 | SF : 0;
        cleared |= value & WEN ? WF1 | WF1 >> 1 | WF1 >> 2 : 0;
        chip->reg[MASK] = (uint16_t)(value & ~cleared);
    }
    return value;
}

void fake_ina3221_write(struct fake_ina3221 *chip, uint8_t reg, uint16_t value) {
    chip->writes++;
    if (reg > VALID_LOWER) {
        return;
    }
    if (reg == CONFIGURATION && value & RST) {
        uint8_t pointer = chip->pointer;
        power_on(chip);
        chip->pointer = pointer;
        chip->resets++;
        return;
    }
    chip->reg[reg] = (uint16_t)((chip->reg[reg] & ~writable[reg]) | (value & writable[reg]));
    if (reg == CONFIGURATION) {
        // The conversion in progress is given up. Choosing power-down leaves the flag as it is (8.6.2.16).
        start(chip);
        if (chip->converting) {
            chip->reg[MASK] &= (uint16_t)~CVRF;
        }
    }
}

bool fake_ina3221_critical(const struct fake_ina3221 *chip) {
    return chip->reg[MASK] & (CF1 | CF1 >> 1 | CF1 >> 2 | SF);
}

bool fake_ina3221_warning(const struct fake_ina3221 *chip) {
    return chip->reg[MASK] & (WF1 | WF1 >> 1 | WF1 >> 2);
}

bool fake_ina3221_power_valid(const struct fake_ina3221 *chip) {
    return chip->reg[MASK] & PVF;
}

// ---- the bus

void fake_i2c_init(struct fake_i2c *wire) {
    memset(wire, 0, sizeof *wire);
    wire->scl_hz = 400000;
    wire->timeout_us = 1000;
}

bool fake_i2c_join(struct fake_i2c *wire, struct fake_ina3221 *chip, uint8_t address) {
    for (int i = 0; i < wire->devices; i++) {
        if (wire->device[i].address == address) {
            return false;
        }
    }
    if (wire->devices == FAKE_I2C_CHIPS) {
        return false;
    }
    wire->device[wire->devices].chip = chip;
    wire->device[wire->devices++].address = address;
    return true;
}

void fake_i2c_advance(struct fake_i2c *wire, uint64_t ns) {
    wire->now_ns += ns;
    for (int i = 0; i < wire->devices; i++) {
        fake_ina3221_advance(wire->device[i].chip, ns);
    }
}

void fake_i2c_advance_to(struct fake_i2c *wire, uint64_t now_ns) {
    if (now_ns > wire->now_ns) {
        fake_i2c_advance(wire, now_ns - wire->now_ns);
    }
}

uint64_t fake_i2c_now_us(void *wire) {
    return ((struct fake_i2c *)wire)->now_ns / 1000;
}

static void periods(struct fake_i2c *wire, uint64_t scl) {
    fake_i2c_advance(wire, scl * 1000000000 / wire->scl_hz);
}

static bool counts_down(uint32_t *faults) {
    if (!*faults) {
        return false;
    }
    *faults -= *faults != FAKE_FOREVER;
    return true;
}

static int fail(struct fake_i2c *wire, int code) {
    wire->failed++;
    return code;
}

// Begins a transfer. Returns 0 and the chip that acknowledged its address, or what the driver is told.
static int begin(struct fake_i2c *wire, uint8_t address, struct fake_ina3221 **chip) {
    wire->transfers++;
    fake_i2c_advance(wire, (uint64_t)wire->overhead_us * 1000);
    if (counts_down(&wire->stuck)) {
        fake_i2c_advance(wire, (uint64_t)wire->timeout_us * 1000);
        return fail(wire, -2);
    }
    *chip = NULL;
    for (int i = 0; i < wire->devices; i++) {
        if (wire->device[i].address == address) {
            *chip = wire->device[i].chip;
        }
    }
    periods(wire, 10); // start, address, acknowledge
    if (!*chip || (*chip)->absent || !(*chip)->powered || counts_down(&(*chip)->nack)) {
        periods(wire, 1); // stop
        return fail(wire, -1);
    }
    return 0;
}

static int bus_write(void *context, uint8_t to, const uint8_t *bytes, size_t n) {
    struct fake_i2c *wire = context;
    struct fake_ina3221 *chip;
    int result = begin(wire, to, &chip);
    if (result) {
        return result;
    }
    periods(wire, 9 * n);
    if (n && counts_down(&chip->broken)) {
        periods(wire, 1);
        return fail(wire, -1);
    }
    if (n) {
        chip->pointer = bytes[0];
    }
    if (n >= 3) { // a register is written when its second byte is in
        fake_ina3221_write(chip, bytes[0], (uint16_t)(bytes[1] << 8 | bytes[2]));
    }
    periods(wire, 1);
    return 0;
}

static int bus_read(void *context, uint8_t from, uint8_t reg, uint8_t *bytes, size_t n) {
    struct fake_i2c *wire = context;
    struct fake_ina3221 *chip;
    int result = begin(wire, from, &chip);
    if (result) {
        return result;
    }
    periods(wire, 19); // register, start again, address
    chip->pointer = reg;
    // Both bytes are of one moment, that of the first.
    uint16_t value = fake_ina3221_read(chip, reg);
    periods(wire, 9 * n + 1);
    if (counts_down(&chip->broken)) {
        return fail(wire, -1);
    }
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (uint8_t)(i == 0 ? value >> 8 : i == 1 ? value : 0xff);
    }
    return 0;
}

struct ina3221_bus fake_i2c_bus(struct fake_i2c *wire) {
    return (struct ina3221_bus){.write = bus_write, .read = bus_read, .context = wire};
}
