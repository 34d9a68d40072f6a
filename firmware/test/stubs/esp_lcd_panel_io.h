#pragma once
#include <stddef.h>
#include "driver/i2c_master.h"
#include "esp_err.h"
typedef struct esp_lcd_panel_io_t *esp_lcd_panel_io_handle_t;
typedef struct esp_lcd_panel_t *esp_lcd_panel_handle_t;
typedef struct {
    uint32_t dev_addr;
    uint32_t scl_speed_hz;
    size_t control_phase_bytes;
    unsigned int dc_bit_offset;
    int lcd_cmd_bits, lcd_param_bits;
} esp_lcd_panel_io_i2c_config_t;
esp_err_t esp_lcd_new_panel_io_i2c(i2c_master_bus_handle_t bus, const esp_lcd_panel_io_i2c_config_t *io_config, esp_lcd_panel_io_handle_t *ret_io);
