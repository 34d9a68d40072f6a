// The INA3221 at register level (TI SBOS576), and an I2C bus to join several of them, for tests and for the meter as a process.
//
// Plain C11, no heap, no clock of its own: time is virtual and passes when told, in ns, so a run is the same each time. What a driver can see
// is modelled: pointer and registers with their reset values and writable bits, a reset bit that clears itself, conversions one after another
// with their own times, flags and how they clear. Nothing is known of the driver under test.
//
//   struct fake_ina3221 chip[2];
//   struct fake_i2c wire;
//   fake_i2c_init(&wire);
//   for (int i = 0; i < 2; i++) {
//       fake_ina3221_init(&chip[i], (struct fake_ina3221_input){.mean = load, .context = &loads[i]});
//       fake_i2c_join(&wire, &chip[i], (uint8_t)(0x40 + i));
//   }
//   struct ina3221_bus bus = fake_i2c_bus(&wire);    // each transfer takes wire time, in which the chips convert
//   fake_i2c_advance_to(&wire, 2000000);             // 2 ms
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ina3221.h"

// What is wired to a chip: the means over [from_ns, to_ns) of a channel's shunt voltage in nV (IN+ to IN-) and bus voltage in uV (at IN-). Both
// are asked for in any conversion. Time is the chip's: ns since fake_ina3221_init.
struct fake_ina3221_input {
    void (*mean)(void *context, int channel, uint64_t from_ns, uint64_t to_ns, int32_t *shunt_nv, int32_t *bus_uv);
    void *context;
};

#define FAKE_FOREVER UINT32_MAX

// A chip. The first part is for tests to set, at any time; the second is the chip's state, for tests to read.
struct fake_ina3221 {
    struct fake_ina3221_input input;
    int32_t rate_ppm;        // conversions take longer by this, within +-100,000: the oscillator's tolerance is 10 %
    uint32_t noise_nv;       // uniform noise of each conversion, within +- this, before quantisation
    uint32_t noise_uv;       // the same of bus voltages
    int32_t offset_nv[INA3221_CHANNELS], gain_ppm[INA3221_CHANNELS]; // errors of the shunt measurement; gain of the shunt only
    uint64_t seed;           // of the noise; the same seed and calls, the same noise
    uint16_t manufacturer, die; // ids it answers with
    bool absent;             // nobody acknowledges the address
    uint32_t nack;           // so many transfers to it are not acknowledged, each counts down; FAKE_FOREVER does not count
    uint32_t broken;         // the same, but they break at their last byte: a write has no effect, a read has cleared what reading clears

    uint16_t reg[0x12];      // 00h to 11h
    uint8_t pointer;
    uint64_t now_ns;
    bool powered;
    bool converting;
    int slot;                // of the cycle: channel * 2, + 1 for bus
    uint64_t slot_from_ns, slot_to_ns;
    int64_t filter[INA3221_CHANNELS * 2]; // outputs of the averaging filter in 1/65536 counts
    int16_t single[INA3221_CHANNELS];     // last shunt conversions, not averaged
    uint64_t cycles, conversions, resets; // done since init
    uint64_t reads, writes;               // of registers, over the bus or not
};

// A chip with its supply just come: defaults in all fields, cycle starting at 0.
void fake_ina3221_init(struct fake_ina3221 *chip, struct fake_ina3221_input input);
// Lets time pass; conversions that end within it are in the registers afterwards.
void fake_ina3221_advance(struct fake_ina3221 *chip, uint64_t ns);
// Takes the supply away, so that it does not answer and forgets all, or gives it: registers are as at power-on. Off and on is a brown-out.
void fake_ina3221_power(struct fake_ina3221 *chip, bool on);
// A register as the bus reads it, with what reading it clears; and a write. Without time or faults.
uint16_t fake_ina3221_read(struct fake_ina3221 *chip, uint8_t reg);
void fake_ina3221_write(struct fake_ina3221 *chip, uint8_t reg, uint16_t value);
// The alert pins, true while asserted (low, all three are open-drain; the power-valid pin is high while power is valid).
bool fake_ina3221_critical(const struct fake_ina3221 *chip);
bool fake_ina3221_warning(const struct fake_ina3221 *chip);
bool fake_ina3221_power_valid(const struct fake_ina3221 *chip);
// How long one conversion takes with its present settings, and one cycle; 0 in power-down.
uint64_t fake_ina3221_conversion_ns(const struct fake_ina3221 *chip, bool bus);
uint64_t fake_ina3221_cycle_ns(const struct fake_ina3221 *chip);

#define FAKE_I2C_CHIPS 4

// A bus with chips on it. Its functions return -1 for NACK and -2 for a time-out.
struct fake_i2c {
    uint32_t scl_hz;      // 400,000
    uint32_t overhead_us; // of the driver, before each transfer
    uint32_t stuck;       // so many transfers time out, e.g. since SDA is held low; FAKE_FOREVER until told
    uint32_t timeout_us;  // how long one of those takes: 1000

    uint64_t now_ns;
    uint64_t transfers, failed;
    struct {
        struct fake_ina3221 *chip;
        uint8_t address;
    } device[FAKE_I2C_CHIPS];
    int devices;
};

void fake_i2c_init(struct fake_i2c *wire);
// Joins a chip; its time goes on with the bus's. Returns false if the bus is full or the address taken.
bool fake_i2c_join(struct fake_i2c *wire, struct fake_ina3221 *chip, uint8_t address);
struct ina3221_bus fake_i2c_bus(struct fake_i2c *wire);
// Lets time pass on the bus and in all chips. advance_to does nothing if that is past.
void fake_i2c_advance(struct fake_i2c *wire, uint64_t ns);
void fake_i2c_advance_to(struct fake_i2c *wire, uint64_t now_ns);
// The clock in us, as struct sampler_config wants it; context is the bus.
uint64_t fake_i2c_now_us(void *wire);
