// What an operator tells the meter, over the serial console or in a file: text in, checked settings out, and bytes for the flash.
//
// Plain C11. A line is a command as
//
//   name bench-1                      wifi SSID PASSPHRASE          identity wattlet
//   channel 5 name raspberrypi        channel 5 shunt 50000         channel 5 gain -1200       channel 5 offset 8000
//   key new | key HEX                 sntp pool.ntp.org             rate 500                   interval 100
//   psk set IDENTITY KEY              show [secrets]                save      reset totals      reboot      help
//
// Units are those of the wire: shunt uOhm, gain ppm, offset nV, rate sweeps per second, interval ms. What has spaces goes into quotes:
// wifi "my wifi" "eight or more"; within them \" is a quote and \\ a backslash. A line that starts with # is a remark.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "metering.h"

#define SETTINGS_KEY_MAX 64
#define SETTINGS_KEY_MIN 16
#define SETTINGS_KEY_NEW 32 // letters and digits of a key made here: 190 bits
#define SETTINGS_LINE 200 // longest line
#define SETTINGS_CHANNELS 6
#define SETTINGS_SHOWN 2048 // room for all settings as lines, whatever they are

// Names are UTF-8. Every text ends with a zero, and all bytes behind it are zero.
struct settings {
    char name[32], identity[64];
    char ssid[33], passphrase[64]; // no SSID: no Wi-Fi; no passphrase: an open network
    char sntp[64];                 // empty: no clock
    uint8_t key[SETTINGS_KEY_MAX];
    uint8_t key_length; // 0: none yet
    uint16_t rate;      // sweeps per second
    uint16_t interval;  // ms
    struct {
        char name[32];
        struct metering_calibration calibration;
    } channel[SETTINGS_CHANNELS];
};

// What a line asks of whoever called.
enum settings_request {
    SETTINGS_NOTHING, SETTINGS_CHANGED, SETTINGS_ERROR, SETTINGS_SHOW, SETTINGS_SAVE, SETTINGS_NEW_KEY, SETTINGS_RESET_TOTALS, SETTINGS_REBOOT, SETTINGS_HELP,
    SETTINGS_SHOW_SECRETS,
};

void settings_default(struct settings *s);
// Carries out one line. On SETTINGS_ERROR, error says in one line what was wrong and what to write instead, and s is as before.
enum settings_request settings_line(struct settings *s, const char *line, size_t length, char *error, size_t error_size);
// Makes a key of SETTINGS_KEY_NEW letters and digits from n random bytes, 64 or better 128. It can be typed, and is what an agent's key file
// has. Returns false, and changes nothing, if too few of the bytes could be used; then call again with others.
bool settings_make_key(struct settings *s, const uint8_t *random, size_t n);
// All settings as lines, passphrase and key left out unless secrets is set. Returns the length, 0 if it does not fit.
// Given back to settings_line, lines with secrets make the same settings.
size_t settings_show(const struct settings *s, bool secrets, char *out, size_t size);
const char *settings_help(void);

// Bytes with version and checksum, for the flash. Unpacking bytes that are not whole or not right returns false and leaves s as it was.
// Both return or take the record alone; bytes behind it are not looked at.
#define SETTINGS_PACKED 1024
size_t settings_pack(const struct settings *s, uint8_t *out, size_t size);
bool settings_unpack(struct settings *s, const uint8_t *in, size_t size);

// Totals over all boots, kept so that a reboot or a brown-out loses at most 10 s. A record has a sequence number: of two the newer good one counts.
struct settings_totals {
    uint32_t sequence;
    struct { int64_t energy_uj, charge_uc; } channel[SETTINGS_CHANNELS];
};
#define SETTINGS_TOTALS_PACKED 128
size_t settings_totals_pack(const struct settings_totals *t, uint8_t *out, size_t size);
bool settings_totals_unpack(struct settings_totals *t, const uint8_t *in, size_t size);
// Whether a was written after b. Sequence numbers go round: 0 comes after 2^32 - 1.
bool settings_totals_newer(const struct settings_totals *a, const struct settings_totals *b);
