// Writing into a buffer that may be too small, or not there at all: then it is only counted.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "telemetry.h"

struct writer {
    uint8_t *out;
    size_t size, length; // length may pass size
};

void writer_byte(struct writer *w, uint8_t byte);
void writer_bytes(struct writer *w, const uint8_t *bytes, size_t n);
// The length of what was written, 0 if it did not fit.
size_t writer_end(const struct writer *w);

// ---- protobuf (its encoding guide: tags, base 128 varints, zigzag). As in proto3, a field that is zero is left out.

size_t writer_varint_size(uint64_t v);
uint64_t writer_zigzag(int64_t v);
void writer_varint(struct writer *w, uint64_t v);
void writer_field(struct writer *w, unsigned field, uint64_t v);
void writer_field_signed(struct writer *w, unsigned field, int64_t v);
void writer_field_fixed32(struct writer *w, unsigned field, uint32_t v);
// Tag and length of a message or of packed values, which follow. They are written even if the length is zero.
void writer_field_length(struct writer *w, unsigned field, size_t length);
void writer_field_text(struct writer *w, unsigned field, const char *text, size_t max);

// ---- text

// The next character of at most max bytes of UTF-8. Returns its length, 0 at the end. What is no UTF-8 becomes '?' byte by byte, since
// readers refuse a whole message for it (proto3 strings), and a name cut in the middle of a character must not cost the meter.
size_t writer_character(const char *text, size_t max, uint8_t character[4]);

// ---- a report's parts, for encoder and batch

// The bytes of a report without its batch.
size_t encode_report_size(const struct telemetry_identity *id, const struct telemetry_interval *i);
// The batch of an interval as a field of SampleList, but for the Batch message itself, of which only the length counts.
void encode_past_head(struct writer *w, uint32_t seq, uint64_t t_us, uint64_t sweeps, size_t batch_length);

// Bytes of a SampleList beside its batches: boot_id, and next at most.
#define LIST_BOOT 5
#define LIST_NEXT 6

// ---- the ring, for both encoders

// A past batch in the ring, a field of SampleList: where it begins, from the oldest on, and its length.
struct ring_entry {
    size_t at, length;
    uint32_t seq;
};
// The entry at a distance from the oldest byte. Returns false at the end.
bool ring_entry(const struct telemetry_ring *r, size_t at, struct ring_entry *e);
// Finds the batches that answer /samples?from: the first, and the distance at which the answer ends. Returns the seq to ask for next.
uint32_t ring_select(const struct telemetry_ring *r, uint32_t from, size_t size, size_t *begin, size_t *end);
uint8_t ring_byte(const struct telemetry_ring *r, size_t at);
// A varint there; at is moved behind it.
uint64_t ring_varint(const struct telemetry_ring *r, size_t *at);
