#include "valid.h"

#include <string.h>

bool settings_text(const char *text, size_t n) {
    const uint8_t *b = (const uint8_t *)text;
    for (size_t i = 0; i < n;) {
        uint32_t c = b[i];
        size_t more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 4;
        if (more == 4 || more >= n - i) {
            return false;
        }
        c &= more ? 0x3fu >> more : 0x7fu;
        for (size_t k = 1; k <= more; k++) {
            if ((b[i + k] & 0xc0) != 0x80) {
                return false;
            }
            c = c << 6 | (b[i + k] & 0x3fu);
        }
        // Longer than need be, half of a UTF-16 pair, beyond Unicode, control characters.
        if ((more == 2 && c < 0x800) || (more == 3 && c < 0x10000) || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff || c < ' ' || (c >= 0x7f && c < 0xa0)) {
            return false;
        }
        i += more + 1;
    }
    return true;
}

bool settings_ascii(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (text[i] < ' ' || text[i] > '~') {
            return false;
        }
    }
    return true;
}

bool settings_identity(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (text[i] <= ' ' || text[i] > '~' || text[i] == '"' || text[i] == '\\') {
            return false;
        }
    }
    return n > 0;
}

bool settings_host(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == ':')) {
            return false;
        }
    }
    return true;
}

size_t settings_length(const char *text, size_t size) {
    const char *end = memchr(text, 0, size);
    return end ? (size_t)(end - text) : size;
}

bool settings_valid(const struct settings *s) {
    size_t name = settings_length(s->name, sizeof s->name), identity = settings_length(s->identity, sizeof s->identity);
    size_t ssid = settings_length(s->ssid, sizeof s->ssid), passphrase = settings_length(s->passphrase, sizeof s->passphrase);
    size_t sntp = settings_length(s->sntp, sizeof s->sntp);
    if (name == 0 || name >= sizeof s->name || !settings_text(s->name, name)) {
        return false;
    }
    if (identity >= sizeof s->identity || !settings_identity(s->identity, identity)) {
        return false;
    }
    if (ssid >= sizeof s->ssid || !settings_text(s->ssid, ssid)) {
        return false;
    }
    if (passphrase && (!ssid || passphrase < SETTINGS_PASSPHRASE_MIN || passphrase > SETTINGS_PASSPHRASE_MAX || !settings_ascii(s->passphrase, passphrase))) {
        return false;
    }
    if (sntp >= sizeof s->sntp || !settings_host(s->sntp, sntp)) {
        return false;
    }
    if (s->key_length && (s->key_length < SETTINGS_KEY_MIN || s->key_length > SETTINGS_KEY_MAX)) {
        return false;
    }
    if (s->rate < SETTINGS_RATE_MIN || s->rate > SETTINGS_RATE_MAX || s->interval < SETTINGS_INTERVAL_MIN || s->interval > SETTINGS_INTERVAL_MAX) {
        return false;
    }
    for (int i = 0; i < SETTINGS_CHANNELS; i++) {
        const char *text = s->channel[i].name;
        const struct metering_calibration *c = &s->channel[i].calibration;
        size_t n = settings_length(text, sizeof s->channel[i].name);
        if (n >= sizeof s->channel[i].name || !settings_text(text, n)) {
            return false;
        }
        if (c->shunt_uohm < SETTINGS_SHUNT_MIN || c->shunt_uohm > SETTINGS_SHUNT_MAX || c->gain_ppm < -SETTINGS_GAIN_MAX ||
            c->gain_ppm > SETTINGS_GAIN_MAX || c->offset_nv < -SETTINGS_OFFSET_MAX || c->offset_nv > SETTINGS_OFFSET_MAX) {
            return false;
        }
    }
    return true;
}
