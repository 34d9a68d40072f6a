#include "writer.h"

#include <string.h>

void writer_byte(struct writer *w, uint8_t byte)
{
    if (w->length < w->size) {
        w->out[w->length] = byte;
    }
    w->length++;
}

void writer_bytes(struct writer *w, const uint8_t *bytes, size_t n)
{
    if (w->length < w->size && n <= w->size - w->length) {
        memcpy(w->out + w->length, bytes, n);
    }
    w->length += n;
}

size_t writer_end(const struct writer *w) { return w->length <= w->size ? w->length : 0; }

size_t writer_varint_size(uint64_t v)
{
    size_t n = 1;
    while (v >= 0x80) {
        v >>= 7;
        n++;
    }
    return n;
}

uint64_t writer_zigzag(int64_t v) { return v < 0 ? ~((uint64_t)v << 1) : (uint64_t)v << 1; }

void writer_varint(struct writer *w, uint64_t v)
{
    while (v >= 0x80) {
        writer_byte(w, (uint8_t)(v | 0x80));
        v >>= 7;
    }
    writer_byte(w, (uint8_t)v);
}

// Wire types.
enum { VARINT = 0, LENGTH = 2, FIXED32 = 5 };

static void tag(struct writer *w, unsigned field, unsigned type) { writer_varint(w, field << 3 | type); }

void writer_field(struct writer *w, unsigned field, uint64_t v)
{
    if (v != 0) {
        tag(w, field, VARINT);
        writer_varint(w, v);
    }
}

void writer_field_signed(struct writer *w, unsigned field, int64_t v) { writer_field(w, field, writer_zigzag(v)); }

void writer_field_fixed32(struct writer *w, unsigned field, uint32_t v)
{
    if (v != 0) {
        tag(w, field, FIXED32);
        for (int i = 0; i < 4; i++) {
            writer_byte(w, (uint8_t)(v >> 8 * i));
        }
    }
}

void writer_field_length(struct writer *w, unsigned field, size_t length)
{
    tag(w, field, LENGTH);
    writer_varint(w, length);
}

void writer_field_text(struct writer *w, unsigned field, const char *text, size_t max)
{
    uint8_t character[4];
    size_t length = 0;
    for (size_t n; (n = writer_character(text + length, max - length, character)) > 0;) {
        length += n;
    }
    if (length == 0) {
        return;
    }
    writer_field_length(w, field, length);
    for (size_t at = 0, n; at < length; at += n) {
        n = writer_character(text + at, max - at, character);
        writer_bytes(w, character, n);
    }
}

size_t writer_character(const char *text, size_t max, uint8_t character[4])
{
    if (max == 0 || text[0] == 0) {
        return 0;
    }
    // RFC 3629, section 4: the second byte's range keeps out overlong forms, surrogates and what is beyond 10FFFF.
    uint8_t lead = (uint8_t)text[0], low = 0x80, high = 0xbf;
    size_t n = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    switch (lead) {
    case 0xe0: low = 0xa0; break;
    case 0xed: high = 0x9f; break;
    case 0xf0: low = 0x90; break;
    case 0xf4: high = 0x8f; break;
    default: break;
    }
    character[0] = lead;
    bool good = n > 0 && n <= max;
    for (size_t i = 1; good && i < n; i++) {
        character[i] = (uint8_t)text[i];
        good = character[i] >= low && character[i] <= high;
        low = 0x80;
        high = 0xbf;
    }
    if (!good) {
        character[0] = '?';
        return 1;
    }
    return n;
}
