#include "ina3221.h"

// Registers (SBOS576, 8.6.1). Those of channel n follow at distances of two.
enum {
    CONFIGURATION = 0x00, SHUNT_1 = 0x01, BUS_1 = 0x02, CRITICAL_1 = 0x07, WARNING_1 = 0x08, SUM = 0x0d, SUM_LIMIT = 0x0e, MASK = 0x0f,
    VALID_UPPER = 0x10, VALID_LOWER = 0x11, MANUFACTURER = 0xfe, DIE = 0xff,
};
enum { MANUFACTURER_TI = 0x5449, DIE_INA3221 = 0x3220 };
// Bits of 0Fh (8.6.2.16). Only the first three lines can be written.
enum {
    SCC1 = 1 << 14, SCC = 7 << 12,
    WEN = 1 << 11,
    CEN = 1 << 10,
    CF1 = 1 << 9, SF = 1 << 6, WF1 = 1 << 5, PVF = 1 << 2, TCF = 1 << 1, CVRF = 1 << 0,
};
#define RST 0x8000
#define CONFIGURATION_AT_RESET 0x7127

static const uint16_t time_us[] = {140, 204, 332, 588, 1100, 2116, 4156, 8244};

static int read_register(struct ina3221 *chip, uint8_t reg, uint16_t *value) {
    uint8_t b[2];
    if (chip->bus.read(chip->bus.context, chip->address, reg, b, sizeof b) != 0) {
        return INA3221_BUS;
    }
    *value = (uint16_t)(b[0] << 8 | b[1]);
    return INA3221_OK;
}

static int write_register(struct ina3221 *chip, uint8_t reg, uint16_t value) {
    const uint8_t b[3] = {reg, (uint8_t)(value >> 8), (uint8_t)value};
    return chip->bus.write(chip->bus.context, chip->address, b, sizeof b) != 0 ? INA3221_BUS : INA3221_OK;
}

// Reads a signed value above some unused bits.
static int read_counts(struct ina3221 *chip, uint8_t reg, int unused, int16_t *counts) {
    uint16_t value;
    int result = read_register(chip, reg, &value);
    if (result == INA3221_OK) {
        *counts = (int16_t)((int16_t)value >> unused);
    }
    return result;
}

static int write_counts(struct ina3221 *chip, uint8_t reg, int unused, int16_t counts) {
    return write_register(chip, reg, (uint16_t)((uint16_t)counts << unused));
}

// Says whether counts fit the 13 bits of a limit.
static bool is_limit(int16_t counts) {
    return counts >= -INA3221_FULL_SCALE - 1 && counts <= INA3221_FULL_SCALE;
}

static bool is_channel(int channel) {
    return channel >= 0 && channel < INA3221_CHANNELS;
}

static struct ina3221_config decode(uint16_t value) {
    struct ina3221_config config = {
        .average = (enum ina3221_average)(value >> 9 & 7),
        .bus_time = (enum ina3221_time)(value >> 6 & 7),
        .shunt_time = (enum ina3221_time)(value >> 3 & 7),
        // There are two codes for power-down, 0 and 4.
        .mode = (enum ina3221_mode)((value & 3) == 0 ? 0 : value & 7),
    };
    for (int channel = 0; channel < INA3221_CHANNELS; channel++) {
        config.enabled[channel] = value >> (14 - channel) & 1;
    }
    return config;
}

int ina3221_init(struct ina3221 *chip, struct ina3221_bus bus, uint8_t address) {
    if (!bus.read || !bus.write || address < 0x40 || address > 0x43) {
        return INA3221_ARGUMENT;
    }
    *chip = (struct ina3221){.bus = bus, .address = address, .config = decode(CONFIGURATION_AT_RESET)};
    uint16_t manufacturer, die;
    int result = read_register(chip, MANUFACTURER, &manufacturer);
    if (result == INA3221_OK) {
        result = read_register(chip, DIE, &die);
    }
    if (result != INA3221_OK) {
        return result;
    }
    if (manufacturer != MANUFACTURER_TI || die != DIE_INA3221) {
        return INA3221_IDENTITY;
    }
    // The chip may have kept its supply while the processor restarted: what it is set to is what a setter must keep.
    uint16_t config, mask;
    result = read_register(chip, CONFIGURATION, &config);
    if (result == INA3221_OK) {
        result = read_register(chip, MASK, &mask);
    }
    if (result == INA3221_OK) {
        chip->config = decode(config);
        chip->writable_mask = mask & (SCC | WEN | CEN);
    }
    return result;
}

int ina3221_reset(struct ina3221 *chip) {
    int result = write_register(chip, CONFIGURATION, RST);
    if (result == INA3221_OK) {
        chip->config = decode(CONFIGURATION_AT_RESET);
        chip->writable_mask = 0;
    }
    return result;
}

int ina3221_configure(struct ina3221 *chip, const struct ina3221_config *config) {
    unsigned average = config->average, bus = config->bus_time, shunt = config->shunt_time, mode = config->mode;
    if (average > 7 || bus > 7 || shunt > 7 || mode > 7 || mode == 4) {
        return INA3221_ARGUMENT;
    }
    unsigned value = average << 9 | bus << 6 | shunt << 3 | mode;
    for (int channel = 0; channel < INA3221_CHANNELS; channel++) {
        value |= config->enabled[channel] ? 1u << (14 - channel) : 0;
    }
    int result = write_register(chip, CONFIGURATION, (uint16_t)value);
    if (result == INA3221_OK) {
        chip->config = *config;
    }
    return result;
}

int ina3221_read_config(struct ina3221 *chip, struct ina3221_config *config) {
    uint16_t value;
    int result = read_register(chip, CONFIGURATION, &value);
    if (result == INA3221_OK) {
        *config = decode(value);
    }
    return result;
}

int ina3221_shunt(struct ina3221 *chip, int channel, int16_t *counts) {
    return is_channel(channel) ? read_counts(chip, (uint8_t)(SHUNT_1 + 2 * channel), 3, counts) : INA3221_ARGUMENT;
}

int ina3221_bus_voltage(struct ina3221 *chip, int channel, int16_t *counts) {
    return is_channel(channel) ? read_counts(chip, (uint8_t)(BUS_1 + 2 * channel), 3, counts) : INA3221_ARGUMENT;
}

int ina3221_shunt_sum(struct ina3221 *chip, int16_t *counts) {
    return read_counts(chip, SUM, 1, counts);
}

int ina3221_flags(struct ina3221 *chip, struct ina3221_flags *flags) {
    uint16_t value;
    int result = read_register(chip, MASK, &value);
    if (result != INA3221_OK) {
        return result;
    }
    for (int channel = 0; channel < INA3221_CHANNELS; channel++) {
        flags->critical[channel] = value & CF1 >> channel;
        flags->warning[channel] = value & WF1 >> channel;
    }
    flags->sum = value & SF;
    flags->power_valid = value & PVF;
    flags->timing = value & TCF;
    flags->ready = value & CVRF;
    flags->lost = (value & (SCC | WEN | CEN)) != chip->writable_mask;
    return INA3221_OK;
}

int ina3221_set_critical(struct ina3221 *chip, int channel, int16_t counts) {
    if (!is_channel(channel) || !is_limit(counts)) {
        return INA3221_ARGUMENT;
    }
    return write_counts(chip, (uint8_t)(CRITICAL_1 + 2 * channel), 3, counts);
}

int ina3221_set_warning(struct ina3221 *chip, int channel, int16_t counts) {
    if (!is_channel(channel) || !is_limit(counts)) {
        return INA3221_ARGUMENT;
    }
    return write_counts(chip, (uint8_t)(WARNING_1 + 2 * channel), 3, counts);
}

// Writes 0Fh from what was written last, never from what is read: its flags are not ours to write.
static int write_mask(struct ina3221 *chip, int mask) {
    int result = write_register(chip, MASK, (uint16_t)mask);
    if (result == INA3221_OK) {
        chip->writable_mask = (uint16_t)mask;
    }
    return result;
}

int ina3221_set_latch(struct ina3221 *chip, bool critical, bool warning) {
    return write_mask(chip, (chip->writable_mask & SCC) | (critical ? CEN : 0) | (warning ? WEN : 0));
}

int ina3221_set_sum(struct ina3221 *chip, const bool channels[INA3221_CHANNELS], int16_t counts) {
    if (counts < -(1 << 14) || counts >= 1 << 14) { // 15 bits
        return INA3221_ARGUMENT;
    }
    int mask = chip->writable_mask & (WEN | CEN);
    for (int channel = 0; channel < INA3221_CHANNELS; channel++) {
        mask |= channels[channel] ? SCC1 >> channel : 0;
    }
    // The limit first, or the new sum would be compared with the old one.
    int result = write_counts(chip, SUM_LIMIT, 1, counts);
    return result == INA3221_OK ? write_mask(chip, mask) : result;
}

int ina3221_set_power_valid(struct ina3221 *chip, int16_t upper, int16_t lower) {
    if (!is_limit(upper) || !is_limit(lower) || lower > upper) {
        return INA3221_ARGUMENT;
    }
    int result = write_counts(chip, VALID_UPPER, 3, upper);
    return result == INA3221_OK ? write_counts(chip, VALID_LOWER, 3, lower) : result;
}

uint32_t ina3221_cycle_us(const struct ina3221_config *config) {
    unsigned mode = config->mode;
    uint32_t channel_us = 0, sum = 0;
    channel_us += mode & INA3221_SHUNT_ONCE ? time_us[config->shunt_time & 7] : 0u;
    channel_us += mode & INA3221_BUS_ONCE ? time_us[config->bus_time & 7] : 0u;
    for (int channel = 0; channel < INA3221_CHANNELS; channel++) {
        sum += config->enabled[channel] ? channel_us : 0u;
    }
    return sum;
}
