#include "board.h"

#include <stdio.h>

#include "driver/uart.h"
#include "esp_log.h"
#include "freertos/FreeRTOS.h"
#include "sdkconfig.h"

// The console is the UART that the log goes to. The driver is there for receiving: without it, bytes that come while nobody reads are lost
// beyond the 128 that the hardware keeps.
bool board_console_open(void) {
    esp_err_t err = uart_driver_install(CONFIG_ESP_CONSOLE_UART_NUM, 512, 0, 0, NULL, 0);
    if (err != ESP_OK) {
        ESP_LOGE("board", "console: %s", esp_err_to_name(err));
    }
    return err == ESP_OK;
}

size_t board_console_read(uint8_t *bytes, size_t n, uint32_t ms) {
    int got = uart_read_bytes(CONFIG_ESP_CONSOLE_UART_NUM, bytes, (uint32_t)n, pdMS_TO_TICKS(ms));
    return got > 0 ? (size_t)got : 0;
}

void board_console_write(const char *text, size_t n) {
    fwrite(text, 1, n, stdout);
    fflush(stdout);
}
