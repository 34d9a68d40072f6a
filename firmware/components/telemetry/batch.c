#include <string.h>

#include "writer.h"

// The most bytes a report takes without its batch, by field: boot_id 5, seq 6, t_us 9 (below 2^56: 2000 years), interval_us 6, sweeps 8
// (2^49); and for a channel tag and length 2, number 3, energy and charge 11 each, unmeasured 9, saturated and errors 8 each, power 7
// (below 2^41 uW; the widest calibration has 1.3e11), voltage 5 (33 V), current 6 (4 kA), extremes of power 7 each, of voltage 5 each.
#define REPORT_MOST 34
#define CHANNEL_MOST 94

void telemetry_batch_reset(struct telemetry_batch *b)
{
    b->sweeps = 0;
    b->size = 0;
    for (int c = 0; c < METERING_MAX_CHANNELS; c++) {
        b->channel[c].length = b->channel[c].missing_length = b->channel[c].counts = b->channel[c].missing = 0;
        b->channel[c].last = 0;
    }
}

static uint64_t delta(const struct telemetry_batch *b, int channel, int16_t count) { return writer_zigzag((int64_t)count - b->channel[channel].last); }

static size_t packed_size(size_t length) { return length == 0 ? 0 : 1 + writer_varint_size(length) + length; }

static size_t message_size(size_t length) { return 1 + writer_varint_size(length) + length; }

static size_t field_size(uint64_t v) { return v == 0 ? 0 : 1 + writer_varint_size(v); }

static size_t samples_size(const struct telemetry_identity *id, int channel, size_t length, size_t missing_length)
{
    return field_size(id->channel[channel].number) + packed_size(length) + packed_size(missing_length);
}

bool telemetry_batch_fits(const struct telemetry_batch *b, const struct telemetry_identity *id, const struct telemetry_interval *next, const int16_t *counts,
                          const bool *ok)
{
    if (b->sweeps == 0) {
        return true;
    }
    if (b->sweeps >= TELEMETRY_MAX_SWEEPS) {
        return false;
    }
    size_t batch = field_size(id->sweep_period_us) + field_size(b->sweeps + 1);
    for (int c = 0; c < id->channels; c++) {
        size_t length = b->channel[c].length, missing = b->channel[c].missing_length;
        if (ok[c]) {
            length += writer_varint_size(delta(b, c, counts[c]));
        } else {
            missing += writer_varint_size(b->sweeps);
        }
        if (length > sizeof b->channel[c].deltas || missing > sizeof b->channel[c].missed) {
            return false;
        }
        batch += message_size(samples_size(id, c, length, missing));
    }
    size_t report = next ? encode_report_size(id, next) : REPORT_MOST + (size_t)id->channels * CHANNEL_MOST;
    struct writer past = {0};
    encode_past_head(&past, next ? next->seq : UINT32_MAX, next ? next->t_us : UINT64_MAX >> 8, next ? next->sweeps : UINT64_MAX >> 15, batch);
    return report + message_size(batch) <= TELEMETRY_MAX_BODY && LIST_BOOT + past.length + batch + LIST_NEXT <= TELEMETRY_MAX_BODY;
}

void telemetry_batch_add(struct telemetry_batch *b, int channels, const int16_t *counts, const bool *ok)
{
    // A caller who did not ask whether the sweep fits loses it, and overflows nothing.
    for (int c = 0; c < channels; c++) {
        if (ok[c] ? b->channel[c].length + writer_varint_size(delta(b, c, counts[c])) > sizeof b->channel[c].deltas
                  : b->channel[c].missing_length + writer_varint_size(b->sweeps) > sizeof b->channel[c].missed) {
            return;
        }
    }
    for (int c = 0; c < channels; c++) {
        if (ok[c]) {
            struct writer w = {b->channel[c].deltas, sizeof b->channel[c].deltas, b->channel[c].length};
            writer_varint(&w, delta(b, c, counts[c]));
            b->size += w.length - b->channel[c].length;
            b->channel[c].length = (uint16_t)w.length;
            b->channel[c].last = counts[c];
            b->channel[c].counts++;
        } else {
            struct writer w = {b->channel[c].missed, sizeof b->channel[c].missed, b->channel[c].missing_length};
            writer_varint(&w, b->sweeps);
            b->size += w.length - b->channel[c].missing_length;
            b->channel[c].missing_length = (uint16_t)w.length;
            b->channel[c].missing++;
        }
    }
    b->sweeps++;
}

void telemetry_batch_close(const struct telemetry_batch *b, const struct telemetry_identity *id, struct telemetry_interval *interval)
{
    struct writer w = {interval->batch, sizeof interval->batch, 0};
    if (b->sweeps > 0) {
        writer_field(&w, 1, id->sweep_period_us);
        writer_field(&w, 2, b->sweeps);
        for (int c = 0; c < id->channels; c++) {
            size_t length = b->channel[c].length, missing = b->channel[c].missing_length;
            writer_field_length(&w, 3, samples_size(id, c, length, missing));
            writer_field(&w, 1, id->channel[c].number);
            if (length > 0) {
                writer_field_length(&w, 2, length);
                writer_bytes(&w, b->channel[c].deltas, length);
            }
            if (missing > 0) {
                writer_field_length(&w, 3, missing);
                writer_bytes(&w, b->channel[c].missed, missing);
            }
        }
    }
    interval->batch_length = (uint16_t)writer_end(&w);
}
