#include "board.h"

#include <string.h>

#include "esp_attr.h"
#include "esp_log.h"
#include "nvs.h"
#include "nvs_flash.h"

// Names in the flash have at most 15 characters.
#define TOTALS_PARTITION "totals"
#define SPACE "meter"
static const char *const totals_key[2] = {"totals-0", "totals-1"};

// Not touched by the start-up code: random after power-on, kept over every other reset. The records' checksum tells.
static RTC_NOINIT_ATTR struct {
    uint32_t length;
    uint8_t packed[SETTINGS_TOTALS_PACKED];
} remembered[2];

// Which of the two records in the flash is written next: not the newest.
static unsigned turn;

static bool settings_readable, totals_readable;

static bool opened(esp_err_t err, const char *what) {
    if (err != ESP_OK) {
        ESP_LOGE("board", "%s in the flash: %s", what, esp_err_to_name(err));
    }
    return err == ESP_OK;
}

bool board_store_open(void) {
    // Settings that cannot be read are not erased here: they may be of a newer firmware, and the key is among them. Saving does it.
    settings_readable = opened(nvs_flash_init(), "settings");
    esp_err_t err = nvs_flash_init_partition(TOTALS_PARTITION);
    if (err == ESP_ERR_NVS_NO_FREE_PAGES || err == ESP_ERR_NVS_NEW_VERSION_FOUND) {
        err = nvs_flash_erase_partition(TOTALS_PARTITION);
        if (err == ESP_OK) {
            err = nvs_flash_init_partition(TOTALS_PARTITION);
        }
    }
    totals_readable = opened(err, "totals");
    return settings_readable && totals_readable;
}

static size_t load(const char *partition, const char *key, uint8_t *bytes, size_t size) {
    nvs_handle_t handle;
    if (nvs_open_from_partition(partition, SPACE, NVS_READONLY, &handle) != ESP_OK) {
        return 0;
    }
    if (nvs_get_blob(handle, key, bytes, &size) != ESP_OK) {
        size = 0;
    }
    nvs_close(handle);
    return size;
}

static bool save(const char *partition, const char *key, const uint8_t *bytes, size_t size) {
    nvs_handle_t handle;
    esp_err_t err = nvs_open_from_partition(partition, SPACE, NVS_READWRITE, &handle);
    if (err == ESP_OK) {
        err = nvs_set_blob(handle, key, bytes, size);
        if (err == ESP_OK) {
            err = nvs_commit(handle);
        }
        nvs_close(handle);
    }
    return opened(err, key);
}

bool board_settings_load(struct settings *s) {
    static uint8_t packed[SETTINGS_PACKED];
    if (!settings_readable) {
        return false;
    }
    size_t n = load(NVS_DEFAULT_PART_NAME, "settings", packed, sizeof packed);
    bool good = n != 0 && settings_unpack(s, packed, n);
    if (n != 0 && !good) {
        ESP_LOGE("board", "settings in the flash are not whole; defaults are used");
    }
    memset(packed, 0, sizeof packed);
    return good;
}

bool board_settings_save(const struct settings *s) {
    static uint8_t packed[SETTINGS_PACKED];
    if (!settings_readable) {
        settings_readable = opened(nvs_flash_erase(), "settings") && opened(nvs_flash_init(), "settings");
    }
    size_t n = settings_pack(s, packed, sizeof packed);
    bool good = settings_readable && n != 0 && save(NVS_DEFAULT_PART_NAME, "settings", packed, n);
    memset(packed, 0, sizeof packed);
    return good;
}

bool board_totals_load(struct settings_totals *t) {
    bool any = false, in_flash = false;
    struct settings_totals flash = {0};
    *t = (struct settings_totals){0};
    for (int i = 0; i < 4; i++) {
        uint8_t packed[SETTINGS_TOTALS_PACKED];
        size_t n = sizeof packed;
        if (i < 2) {
            n = remembered[i].length <= n ? remembered[i].length : 0;
            memcpy(packed, remembered[i].packed, n);
        } else {
            n = totals_readable ? load(TOTALS_PARTITION, totals_key[i - 2], packed, n) : 0;
        }
        struct settings_totals found;
        if (n == 0 || !settings_totals_unpack(&found, packed, n)) {
            continue;
        }
        if (i >= 2 && (!in_flash || settings_totals_newer(&found, &flash))) {
            flash = found;
            in_flash = true;
            turn = i == 2;
        }
        if (!any || settings_totals_newer(&found, t)) {
            *t = found;
            any = true;
        }
    }
    return any;
}

void board_totals_remember(struct settings_totals *t) {
    uint8_t packed[SETTINGS_TOTALS_PACKED];
    t->sequence++;
    size_t n = settings_totals_pack(t, packed, sizeof packed);
    memcpy(remembered[t->sequence % 2].packed, packed, n);
    remembered[t->sequence % 2].length = (uint32_t)n;
}

bool board_totals_save(const struct settings_totals *t) {
    // By turns on a count of its own: sequence numbers grow by a hundred from one save to the next, and may stay even.
    uint8_t packed[SETTINGS_TOTALS_PACKED];
    size_t n = settings_totals_pack(t, packed, sizeof packed);
    bool good = totals_readable && n != 0 && save(TOTALS_PARTITION, totals_key[turn], packed, n);
    turn ^= good;
    return good;
}
