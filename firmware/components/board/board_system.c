#include "board.h"

#include <stdio.h>
#include <string.h>

#include "esp_app_desc.h"
#include "esp_log.h"
#include "esp_mac.h"
#include "esp_ota_ops.h"
#include "esp_random.h"
#include "esp_system.h"
#include "esp_task_wdt.h"

void board_serial(char serial[18]) {
    uint8_t mac[6] = {0};
    esp_efuse_mac_get_default(mac);
    snprintf(serial, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

const char *board_firmware_version(void) {
    return esp_app_get_description()->version;
}

const char *board_start_reason(void) {
    switch (esp_reset_reason()) {
    case ESP_RST_POWERON: return "power-on";
    case ESP_RST_EXT: return "reset pin";
    case ESP_RST_SW: return "restart";
    case ESP_RST_PANIC: return "crash";
    case ESP_RST_INT_WDT:
    case ESP_RST_TASK_WDT:
    case ESP_RST_WDT: return "watchdog";
    case ESP_RST_BROWNOUT: return "brown-out";
    default: return "other reset";
    }
}

void board_random(void *bytes, size_t n) {
    esp_fill_random(bytes, n);
}

uint32_t board_boot_id(void) {
    // esp_random is random while the radio runs, and otherwise at least differs from start to start by what the bootloader left in it. The
    // rest is mixed in with FNV-1a (32 bit), which loses nothing of the former.
    uint8_t mac[6] = {0};
    esp_efuse_mac_get_default(mac);
    uint32_t id = esp_random();
    uint64_t now = board_now_us(NULL);
    for (size_t i = 0; i < sizeof mac + sizeof now; i++) {
        uint8_t byte = (uint8_t)(i < sizeof mac ? mac[i] : now >> 8 * (i - sizeof mac));
        id = (id ^ byte) * 16777619;
    }
    return id != 0 ? id : 1;
}

void board_watch(void) {
    esp_err_t err = esp_task_wdt_add(NULL);
    if (err != ESP_OK) {
        ESP_LOGE("board", "watchdog: %s", esp_err_to_name(err));
    }
}

void board_alive(void) {
    esp_task_wdt_reset();
}

bool board_image_on_trial(void) {
    esp_ota_img_states_t state;
    return esp_ota_get_state_partition(esp_ota_get_running_partition(), &state) == ESP_OK && state == ESP_OTA_IMG_PENDING_VERIFY;
}

void board_image_confirm(void) {
    esp_err_t err = esp_ota_mark_app_valid_cancel_rollback();
    if (err == ESP_OK) {
        ESP_LOGI("board", "this image is kept");
    } else {
        ESP_LOGE("board", "keep this image: %s", esp_err_to_name(err));
    }
}

_Noreturn void board_restart(void) {
    esp_restart();
}
