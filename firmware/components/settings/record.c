// Records for the flash. All numbers are little endian, so that a record is the same on every machine:
//
//   magic 4   version 2   length 2, of all with the checksum   contents   CRC-32 4, of all before it
//
// Settings, version 1: name, identity, SSID, passphrase, NTP server and key, each with a byte for its length before it; rate 2, interval 2;
// the number of channels 1, and for each its name, shunt 4, gain 4, offset 4. Totals, version 1: sequence 4, and for each channel energy 8
// and charge 8.
//
// A version that this firmware does not know is refused: the settings of a newer one are not guessed at.

#include "valid.h"

#include <string.h>

#define VERSION 1
#define HEAD 8
#define CHECKSUM 4

static const uint8_t settings_magic[4] = {'W', 'T', 'L', 'S'}, totals_magic[4] = {'W', 'T', 'L', 'T'};

// CRC-32 as Ethernet and zip have it: it finds every burst of up to 32 wrong bits. Records are few, a table would cost more than it saves.
static uint32_t crc32(const uint8_t *bytes, size_t n) {
    uint32_t crc = ~UINT32_C(0);
    for (size_t i = 0; i < n; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xedb88320) : 0);
        }
    }
    return ~crc;
}

// ---- writing

struct writer {
    uint8_t *out;
    size_t size, length; // length goes on beyond size, what is written does not
};

static void put(struct writer *w, const void *bytes, size_t n) {
    if (n <= w->size && w->length <= w->size - n) {
        memcpy(w->out + w->length, bytes, n);
    }
    w->length += n;
}

static void put_number(struct writer *w, uint64_t number, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)(number >> 8 * i);
        put(w, &byte, 1);
    }
}

static void put_bytes(struct writer *w, const void *bytes, size_t n) {
    put_number(w, n, 1);
    put(w, bytes, n);
}

static void put_text(struct writer *w, const char *text, size_t size) {
    put_bytes(w, text, settings_length(text, size));
}

static void put_head(struct writer *w, const uint8_t magic[4]) {
    put(w, magic, 4);
    put_number(w, VERSION, 2);
    put_number(w, 0, 2); // the length, when it is known
}

static size_t put_end(struct writer *w) {
    size_t length = w->length + CHECKSUM;
    if (length > w->size) {
        return 0;
    }
    w->out[6] = (uint8_t)length;
    w->out[7] = (uint8_t)(length >> 8);
    put_number(w, crc32(w->out, w->length), CHECKSUM);
    return length;
}

// ---- reading

struct reader {
    const uint8_t *in;
    size_t left;
    bool bad;
};

static const uint8_t *take(struct reader *r, size_t n) {
    if (r->bad || r->left < n) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *at = r->in;
    r->in += n;
    r->left -= n;
    return at;
}

static uint64_t take_number(struct reader *r, size_t n) {
    const uint8_t *at = take(r, n);
    uint64_t number = 0;
    for (size_t i = 0; at && i < n; i++) {
        number |= (uint64_t)at[i] << 8 * i;
    }
    return number;
}

// Takes bytes with their length before them; at most as many as there is room for. Returns how many.
static size_t take_bytes(struct reader *r, void *out, size_t size) {
    size_t n = (size_t)take_number(r, 1);
    const uint8_t *at = take(r, n);
    if (!at || n > size) {
        r->bad = true;
        return 0;
    }
    memcpy(out, at, n);
    return n;
}

// Takes a text into an array of zeros.
static void take_text(struct reader *r, char *out, size_t size) {
    size_t n = take_bytes(r, out, size - 1);
    r->bad = r->bad || settings_length(out, size) != n; // a zero within
}

// Finds a whole record of this version and returns its contents.
static bool take_head(struct reader *r, const uint8_t magic[4], const uint8_t *in, size_t size) {
    if (size < HEAD + CHECKSUM || memcmp(in, magic, 4) != 0) {
        return false;
    }
    size_t version = in[4] | (size_t)in[5] << 8, length = in[6] | (size_t)in[7] << 8;
    if (version != VERSION || length < HEAD + CHECKSUM || length > size) {
        return false;
    }
    struct reader end = {in + length - CHECKSUM, CHECKSUM, false};
    if (take_number(&end, CHECKSUM) != crc32(in, length - CHECKSUM)) {
        return false;
    }
    *r = (struct reader){in + HEAD, length - HEAD - CHECKSUM, false};
    return true;
}

// A 32-bit number with its sign.
static int32_t take_signed(struct reader *r) {
    return (int32_t)(uint32_t)take_number(r, 4);
}

// ---- records

size_t settings_pack(const struct settings *s, uint8_t *out, size_t size) {
    if (!settings_valid(s)) {
        return 0;
    }
    struct writer w = {out, size, 0};
    put_head(&w, settings_magic);
    put_text(&w, s->name, sizeof s->name);
    put_text(&w, s->identity, sizeof s->identity);
    put_text(&w, s->ssid, sizeof s->ssid);
    put_text(&w, s->passphrase, sizeof s->passphrase);
    put_text(&w, s->sntp, sizeof s->sntp);
    put_bytes(&w, s->key, s->key_length);
    put_number(&w, s->rate, 2);
    put_number(&w, s->interval, 2);
    put_number(&w, SETTINGS_CHANNELS, 1);
    for (int i = 0; i < SETTINGS_CHANNELS; i++) {
        put_text(&w, s->channel[i].name, sizeof s->channel[i].name);
        put_number(&w, s->channel[i].calibration.shunt_uohm, 4);
        put_number(&w, (uint32_t)s->channel[i].calibration.gain_ppm, 4);
        put_number(&w, (uint32_t)s->channel[i].calibration.offset_nv, 4);
    }
    return put_end(&w);
}

bool settings_unpack(struct settings *s, const uint8_t *in, size_t size) {
    struct reader r;
    if (!take_head(&r, settings_magic, in, size)) {
        return false;
    }
    struct settings new;
    memset(&new, 0, sizeof new);
    take_text(&r, new.name, sizeof new.name);
    take_text(&r, new.identity, sizeof new.identity);
    take_text(&r, new.ssid, sizeof new.ssid);
    take_text(&r, new.passphrase, sizeof new.passphrase);
    take_text(&r, new.sntp, sizeof new.sntp);
    new.key_length = (uint8_t)take_bytes(&r, new.key, sizeof new.key);
    new.rate = (uint16_t)take_number(&r, 2);
    new.interval = (uint16_t)take_number(&r, 2);
    r.bad = take_number(&r, 1) != SETTINGS_CHANNELS || r.bad;
    for (int i = 0; i < SETTINGS_CHANNELS; i++) {
        take_text(&r, new.channel[i].name, sizeof new.channel[i].name);
        new.channel[i].calibration.shunt_uohm = (uint32_t)take_number(&r, 4);
        new.channel[i].calibration.gain_ppm = take_signed(&r);
        new.channel[i].calibration.offset_nv = take_signed(&r);
    }
    if (r.bad || r.left || !settings_valid(&new)) {
        return false;
    }
    *s = new;
    return true;
}

size_t settings_totals_pack(const struct settings_totals *t, uint8_t *out, size_t size) {
    struct writer w = {out, size, 0};
    put_head(&w, totals_magic);
    put_number(&w, t->sequence, 4);
    for (int i = 0; i < SETTINGS_CHANNELS; i++) {
        put_number(&w, (uint64_t)t->channel[i].energy_uj, 8);
        put_number(&w, (uint64_t)t->channel[i].charge_uc, 8);
    }
    return put_end(&w);
}

bool settings_totals_unpack(struct settings_totals *t, const uint8_t *in, size_t size) {
    struct reader r;
    struct settings_totals new;
    if (!take_head(&r, totals_magic, in, size)) {
        return false;
    }
    memset(&new, 0, sizeof new);
    new.sequence = (uint32_t)take_number(&r, 4);
    for (int i = 0; i < SETTINGS_CHANNELS; i++) {
        new.channel[i].energy_uj = (int64_t)take_number(&r, 8);
        new.channel[i].charge_uc = (int64_t)take_number(&r, 8);
    }
    if (r.bad || r.left) {
        return false;
    }
    *t = new;
    return true;
}

bool settings_totals_newer(const struct settings_totals *a, const struct settings_totals *b) {
    uint32_t ahead = a->sequence - b->sequence;
    return ahead != 0 && ahead < UINT32_C(1) << 31;
}
