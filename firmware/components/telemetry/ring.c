#include <string.h>

#include "writer.h"

// The ring holds fields of SampleList as they are sent: tag, length, PastBatch. It reads of them no more than their length and seq.

uint8_t ring_byte(const struct telemetry_ring *r, size_t at)
{
    size_t i = r->begin + at;
    return r->buffer[i < r->size ? i : i - r->size];
}

uint64_t ring_varint(const struct telemetry_ring *r, size_t *at)
{
    uint64_t v = 0;
    uint8_t byte;
    int shift = 0;
    do {
        byte = ring_byte(r, (*at)++);
        v |= (uint64_t)(byte & 0x7f) << shift;
        shift += 7;
    } while (byte & 0x80);
    return v;
}

bool ring_entry(const struct telemetry_ring *r, size_t at, struct ring_entry *e)
{
    if (at >= r->used) {
        return false;
    }
    size_t inside = at + 1;
    size_t length = (size_t)ring_varint(r, &inside);
    *e = (struct ring_entry){.at = at, .length = inside + length - at};
    inside++; // the tag of seq, which is never zero
    e->seq = (uint32_t)ring_varint(r, &inside);
    return true;
}

static void let_go(struct telemetry_ring *r)
{
    struct ring_entry e;
    if (ring_entry(r, 0, &e)) {
        r->begin = (r->begin + e.length) % r->size;
        r->used -= e.length;
    }
    r->first = ring_entry(r, 0, &e) ? e.seq : r->next;
}

static void append(struct telemetry_ring *r, const uint8_t *bytes, size_t n)
{
    size_t to = (r->begin + r->used) % r->size, first = n < r->size - to ? n : r->size - to;
    memcpy(r->buffer + to, bytes, first);
    memcpy(r->buffer, bytes + first, n - first);
    r->used += n;
}

void telemetry_ring_init(struct telemetry_ring *r, uint8_t *buffer, size_t size, uint32_t boot_id)
{
    *r = (struct telemetry_ring){.buffer = buffer, .size = size, .boot_id = boot_id, .first = 1, .next = 1};
}

void telemetry_ring_add(struct telemetry_ring *r, const struct telemetry_interval *i)
{
    uint8_t head[40];
    struct writer w = {head, sizeof head, 0};
    encode_past_head(&w, i->seq, i->t_us, i->sweeps, i->batch_length);
    size_t n = w.length + i->batch_length;
    r->next = i->seq + 1;
    if (i->batch_length == 0 || n > r->size) {
        r->first = r->used > 0 ? r->first : r->next;
        return;
    }
    while (r->size - r->used < n) {
        let_go(r);
    }
    if (r->used == 0) {
        r->first = i->seq;
    }
    append(r, head, w.length);
    append(r, i->batch, i->batch_length);
}

uint32_t ring_select(const struct telemetry_ring *r, uint32_t from, size_t size, size_t *begin, size_t *end)
{
    struct ring_entry e;
    size_t at = 0;
    while (ring_entry(r, at, &e) && e.seq < from) {
        at += e.length;
    }
    *begin = *end = at;
    while (ring_entry(r, at, &e)) {
        if (at + e.length - *begin > size) {
            return e.seq;
        }
        at += e.length;
        *end = at;
    }
    return r->next;
}
