#include "board.h"

#include "sdkconfig.h"

#if CONFIG_BOARD_OLED

#include "driver/i2c_master.h"
#include "esp_lcd_panel_io.h"
#include "esp_lcd_panel_ops.h"
#include "esp_lcd_panel_ssd1306.h"
#include "esp_log.h"

#define LOOK_AGAIN_US 10000000

// The one display there is, of the one task that opened it.
static esp_lcd_panel_handle_t panel;
static bool lit;
static uint64_t looked_us;

bool board_oled_open(void) {
    const i2c_master_bus_config_t config = {
        .i2c_port = 1,
        .sda_io_num = CONFIG_BOARD_OLED_SDA,
        .scl_io_num = CONFIG_BOARD_OLED_SCL,
        .clk_source = I2C_CLK_SRC_DEFAULT,
        .glitch_ignore_cnt = 7,
        .flags.enable_internal_pullup = true,
    };
    // Every transfer is one control byte, of which bit 6 tells data from a command, and what follows (SSD1306 data sheet, 8.1.5.2).
    const esp_lcd_panel_io_i2c_config_t transfers = {
        .dev_addr = CONFIG_BOARD_OLED_ADDRESS,
        .scl_speed_hz = 400000,
        .control_phase_bytes = 1,
        .dc_bit_offset = 6,
        .lcd_cmd_bits = 8,
        .lcd_param_bits = 8,
    };
    // Without vendor_config it is 64 rows, at the driver's contrast.
    const esp_lcd_panel_dev_config_t device = {.bits_per_pixel = 1, .reset_gpio_num = -1};
    i2c_master_bus_handle_t bus;
    esp_lcd_panel_io_handle_t io;
    esp_err_t err = i2c_new_master_bus(&config, &bus);
    if (err == ESP_OK) {
        err = esp_lcd_new_panel_io_i2c(bus, &transfers, &io);
    }
    if (err == ESP_OK) {
        err = esp_lcd_new_panel_ssd1306(io, &device, &panel);
    }
    if (err != ESP_OK) {
        panel = NULL;
        ESP_LOGE("board", "display, SDA %d, SCL %d: %s", CONFIG_BOARD_OLED_SDA, CONFIG_BOARD_OLED_SCL, esp_err_to_name(err));
    }
    return err == ESP_OK;
}

static bool light(void) {
    // As the usual modules are mounted, column 127 and the last row come first in the display's memory.
    bool turned = false;
#if CONFIG_BOARD_OLED_TURNED
    turned = true;
#endif
    return esp_lcd_panel_reset(panel) == ESP_OK && esp_lcd_panel_init(panel) == ESP_OK &&
           esp_lcd_panel_mirror(panel, !turned, !turned) == ESP_OK && esp_lcd_panel_disp_on_off(panel, true) == ESP_OK;
}

bool board_oled_show(const struct display_frame *frame) {
    if (panel == NULL) {
        return false;
    }
    uint64_t now = board_now_us(NULL);
    if (!lit) {
        if (looked_us != 0 && now - looked_us < LOOK_AGAIN_US) {
            return false;
        }
        looked_us = now;
        lit = light();
    }
    // Horizontal addressing, as ESP-IDF's driver sets it: page by page, as the frame is.
    lit = lit && esp_lcd_panel_draw_bitmap(panel, 0, 0, DISPLAY_WIDTH, DISPLAY_HEIGHT, frame->page) == ESP_OK;
    return lit;
}

#else

bool board_oled_open(void) {
    return false;
}

bool board_oled_show(const struct display_frame *frame) {
    (void)frame;
    return false;
}

#endif
