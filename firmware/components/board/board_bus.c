#include "board.h"

#include "driver/i2c_master.h"
#include "esp_log.h"
#include "sdkconfig.h"

// Three bytes and two addresses are 120 us at 400 kHz; two ticks of 1 ms are what the driver can count. It adds one itself.
#define TIMEOUT_MS 2
#define FIRST_ADDRESS 0x40

// An error is counted and given to the sampler, which tries once more and declares the gap. Many in a row may be a chip that holds SDA after
// a transfer broke off: the controller then clocks it free and starts anew. A chip that is only missing costs a reset now and then.
static int done(struct board_bus *b, esp_err_t err) {
    if (err == ESP_OK) {
        b->row = 0;
        return INA3221_OK;
    }
    b->errors++;
    if (b->row < BOARD_BUS_RESET_AFTER) {
        b->row++;
    }
    uint64_t now = board_now_us(NULL);
    if (b->row >= BOARD_BUS_RESET_AFTER && (b->resets == 0 || now - b->reset_us >= BOARD_BUS_RESET_EVERY_US)) {
        b->row = 0;
        b->resets++;
        b->reset_us = now;
        i2c_master_bus_reset(b->bus); // if this fails, so do the next transfers, and it is tried again
    }
    return INA3221_BUS;
}

static i2c_master_dev_handle_t find(const struct board_bus *b, uint8_t address) {
    unsigned i = (unsigned)address - FIRST_ADDRESS;
    return i < BOARD_BUS_DEVICES ? b->device[i] : NULL;
}

static int bus_write(void *context, uint8_t address, const uint8_t *bytes, size_t n) {
    struct board_bus *b = context;
    i2c_master_dev_handle_t device = find(b, address);
    if (device == NULL) {
        return INA3221_BUS;
    }
    return done(b, i2c_master_transmit(device, bytes, n, TIMEOUT_MS));
}

static int bus_read(void *context, uint8_t address, uint8_t reg, uint8_t *bytes, size_t n) {
    struct board_bus *b = context;
    i2c_master_dev_handle_t device = find(b, address);
    if (device == NULL) {
        return INA3221_BUS;
    }
    return done(b, i2c_master_transmit_receive(device, &reg, 1, bytes, n, TIMEOUT_MS));
}

bool board_bus_open(struct board_bus *b, const uint8_t *address, int n) {
    *b = (struct board_bus){0};
    // The driver logs each error, which takes milliseconds at 115,200 baud, in the task that samples. They are counted instead.
    esp_log_level_set("i2c.master", ESP_LOG_NONE);
    const i2c_master_bus_config_t config = {
        .i2c_port = 0,
        .sda_io_num = CONFIG_BOARD_SENSORS_SDA,
        .scl_io_num = CONFIG_BOARD_SENSORS_SCL,
        .clk_source = I2C_CLK_SRC_DEFAULT,
        .glitch_ignore_cnt = 7,
        .flags.enable_internal_pullup = true, // beside those on the board, so that an open line reads as high
    };
    i2c_master_bus_handle_t bus;
    esp_err_t err = i2c_new_master_bus(&config, &bus);
    for (int i = 0; i < n && err == ESP_OK; i++) {
        b->bus = bus;
        const i2c_device_config_t device = {
            .dev_addr_length = I2C_ADDR_BIT_LEN_7,
            .device_address = address[i],
            .scl_speed_hz = CONFIG_BOARD_SENSORS_HZ,
        };
        unsigned index = (unsigned)address[i] - FIRST_ADDRESS;
        if (index >= BOARD_BUS_DEVICES) {
            err = ESP_ERR_INVALID_ARG;
            break;
        }
        i2c_master_dev_handle_t handle;
        err = i2c_master_bus_add_device(bus, &device, &handle);
        if (err == ESP_OK) {
            b->device[index] = handle;
        }
    }
    if (err != ESP_OK) {
        ESP_LOGE("board", "bus of the sensors, SDA %d, SCL %d: %s", CONFIG_BOARD_SENSORS_SDA, CONFIG_BOARD_SENSORS_SCL, esp_err_to_name(err));
    }
    return err == ESP_OK;
}

struct ina3221_bus board_bus_table(struct board_bus *b) {
    return (struct ina3221_bus){.write = bus_write, .read = bus_read, .context = b};
}
