#pragma once
#include "esp_lcd_panel_io.h"
typedef struct {
    int reset_gpio_num;
    uint32_t bits_per_pixel;
    void *vendor_config;
} esp_lcd_panel_dev_config_t;
esp_err_t esp_lcd_new_panel_ssd1306(const esp_lcd_panel_io_handle_t io, const esp_lcd_panel_dev_config_t *panel_dev_config,
                                    esp_lcd_panel_handle_t *ret_panel);
