// The INA3221: three channels of shunt and bus voltage behind one multiplexed ADC (TI SBOS576).
//
// Plain C11. The bus is a table of two functions; nothing is allocated, nothing cached but what was written to the chip. A read
// never changes what a later write sends: the bits that clear themselves (RST, CVRF, latched alerts) are never written back.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INA3221_CHANNELS 3
// One count of shunt voltage in nV, of bus voltage in mV, and the largest count (SBOS576, 8.6.2).
#define INA3221_SHUNT_NV 40000
#define INA3221_BUS_MV 8
#define INA3221_FULL_SCALE 4095

// Results of all calls: 0, or one of these. A bus function may return any negative number; it is passed on as INA3221_BUS.
enum {
    INA3221_OK = 0,
    INA3221_BUS = -1,      // the transfer failed (NACK, time-out, arbitration)
    INA3221_IDENTITY = -2, // something else answers at this address
    INA3221_ARGUMENT = -3,
};

// The bus. write sends n bytes to the 7-bit address, the first of which is the register; read points the chip at a register and
// reads n bytes in one transaction. Both return 0, or a negative number.
struct ina3221_bus {
    int (*write)(void *context, uint8_t address, const uint8_t *bytes, size_t n);
    int (*read)(void *context, uint8_t address, uint8_t reg, uint8_t *bytes, size_t n);
    void *context;
};

// Conversion times by code, typically (SBOS576, 7.5); at most a tenth more.
enum ina3221_time {
    INA3221_140_US, INA3221_204_US, INA3221_332_US, INA3221_588_US, INA3221_1100_US, INA3221_2116_US, INA3221_4156_US, INA3221_8244_US,
};
// Averaging by code: 1, 4, 16, 64, 128, 256, 512, 1024. It is an exponential filter, not a block mean: means survive, extremes do not.
enum ina3221_average { INA3221_AVG_1, INA3221_AVG_4, INA3221_AVG_16, INA3221_AVG_64, INA3221_AVG_128, INA3221_AVG_256, INA3221_AVG_512, INA3221_AVG_1024 };
enum ina3221_mode {
    INA3221_POWER_DOWN = 0, INA3221_SHUNT_ONCE = 1, INA3221_BUS_ONCE = 2, INA3221_BOTH_ONCE = 3,
    INA3221_SHUNT = 5, INA3221_BUS_ONLY = 6, INA3221_BOTH = 7,
};

struct ina3221_config {
    bool enabled[INA3221_CHANNELS];
    enum ina3221_average average;
    enum ina3221_time bus_time, shunt_time;
    enum ina3221_mode mode;
};

// A chip. Its fields are the driver's.
struct ina3221 {
    struct ina3221_bus bus;
    uint8_t address; // 0x40 to 0x43: A0 at GND, VS, SDA, SCL
    struct ina3221_config config;
    uint16_t writable_mask; // SCC, WEN, CEN as last written, so that setting one keeps the others
};

// Alerts and flags of register 0Fh. Reading them clears the latched ones in the chip, and ready.
struct ina3221_flags {
    bool critical[INA3221_CHANNELS], warning[INA3221_CHANNELS];
    bool sum;         // shunt sum above its limit
    bool power_valid; // all bus voltages above the upper limit, until one falls below the lower
    bool timing;      // TCF: true from the reset on, false if the supplies came up in another order than that of the channels
    bool ready;       // CVRF: all enabled conversions were done since the last read of these flags, or the last write of the configuration
    bool lost;        // SCC, WEN and CEN are not as last written: the chip was reset meanwhile. Shows only if one of them was set
};

// Binds a chip and reads both of its ids (TI, 3220h), which other INA chips at the same addresses do not have; then what it is set to, since it
// may have kept its supply while the processor restarted. Nothing is written.
int ina3221_init(struct ina3221 *chip, struct ina3221_bus bus, uint8_t address);
// Resets the chip; all its registers are as at power-on afterwards, and so is what the driver knows of them.
int ina3221_reset(struct ina3221 *chip);
// Writes the configuration, which starts a new cycle.
int ina3221_configure(struct ina3221 *chip, const struct ina3221_config *config);
// Reads the configuration from the chip: one that differs from what was written has lost its supply meanwhile.
int ina3221_read_config(struct ina3221 *chip, struct ina3221_config *config);

// Reads one channel, 0 to 2, in counts, signed. A call that fails leaves *counts as it was, as all of them do with what they return or set.
int ina3221_shunt(struct ina3221 *chip, int channel, int16_t *counts);
int ina3221_bus_voltage(struct ina3221 *chip, int channel, int16_t *counts);
int ina3221_shunt_sum(struct ina3221 *chip, int16_t *counts);

int ina3221_flags(struct ina3221 *chip, struct ina3221_flags *flags);
// Limits in counts of 40 uV, signed; critical is compared with each conversion, warning with the averaged value.
int ina3221_set_critical(struct ina3221 *chip, int channel, int16_t counts);
int ina3221_set_warning(struct ina3221 *chip, int channel, int16_t counts);
// Latching keeps alerts until they are read.
int ina3221_set_latch(struct ina3221 *chip, bool critical, bool warning);
// Which channels are summed, and the sum's limit in counts of 40 uV, within 15 bits.
int ina3221_set_sum(struct ina3221 *chip, const bool channels[INA3221_CHANNELS], int16_t counts);
// Power-valid limits in counts of 8 mV, lower not above upper. The chip compares them only while it converts bus voltages.
int ina3221_set_power_valid(struct ina3221 *chip, int16_t upper, int16_t lower);

// Typical length of a cycle in us: all enabled channels' conversions, averaging included as the chip updates once per conversion.
uint32_t ina3221_cycle_us(const struct ina3221_config *config);
