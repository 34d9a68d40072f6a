// What leaves the meter: reports, batches of samples and the ring of past ones, encoded as proto/meter/v1 (protobuf) or JSON for people.
//
// Plain C11, no heap, transport-neutral: every encoder writes into a buffer and returns the length, or 0 if it does not fit. Protobuf is
// written by hand, since the messages are only written here; nanopb and Google's Go library read it in the tests.
//
// Two tasks use it. The sampler fills an interval (telemetry_interval_add) and publishes it; the network takes it, and owns all else.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "metering.h"

#define TELEMETRY_REVISION 1      // of proto/meter/v1
#define TELEMETRY_MAX_BODY 1024   // bytes of any message but the identity
#define TELEMETRY_MAX_SWEEPS 1000 // in one interval
#define TELEMETRY_NAME 32         // longest name of meter or channel in bytes, and the zero
#define TELEMETRY_SERIAL 18       // a MAC address as text, and the zero
#define TELEMETRY_MAX_MESSAGE 120 // bytes of an error's message; a longer one is cut

// What a channel reports beside its number.
struct telemetry_channel {
    struct metering_totals totals;
    struct metering_interval interval;
};

// The batch of an interval while it is filled: for each channel its delta-encoded counts, and the sweeps it missed.
struct telemetry_batch {
    uint32_t sweeps;
    size_t size; // of all deltas and missed sweeps
    struct {
        uint16_t length, missing_length;
        uint16_t counts, missing; // how many
        int16_t last;
        uint8_t deltas[TELEMETRY_MAX_BODY]; // zigzag varints
        uint8_t missed[256];                // varints
    } channel[METERING_MAX_CHANNELS];
};

// A closed interval: a report as it is, not yet encoded, with its Batch message encoded.
struct telemetry_interval {
    uint32_t seq;
    uint64_t t_us;        // of the last sweep it contains
    uint32_t interval_us; // since the interval before
    uint64_t sweeps;      // since the boot
    int channels;
    struct telemetry_channel channel[METERING_MAX_CHANNELS];
    uint16_t batch_length;
    uint8_t batch[TELEMETRY_MAX_BODY];
};

// What the meter is, constant within a boot.
struct telemetry_identity {
    uint32_t boot_id; // random, not zero
    char name[TELEMETRY_NAME], serial[TELEMETRY_SERIAL], hardware[TELEMETRY_NAME], firmware_version[TELEMETRY_NAME];
    uint32_t max_observers;
    uint32_t sweep_period_us, shunt_conversion_us, bus_conversion_us, averaging, report_interval_us, ring_us;
    int channels;
    struct {
        uint8_t number; // on the wire: 1 to 255
        char name[TELEMETRY_NAME];
        struct metering_calibration calibration;
        // Totals of all boots before this one, as far as they were kept.
        int64_t earlier_energy_uj, earlier_charge_uc;
    } channel[METERING_MAX_CHANNELS];
};

// ---- the sampler's side

void telemetry_batch_reset(struct telemetry_batch *b);
// Says whether one more sweep fits: whether the report with it, and the list of past batches with this one alone, stay within
// TELEMETRY_MAX_BODY. counts and ok are by channel of id; ok false is a missed conversion.
//
// next is the report as it would be if it were closed right after this sweep: all of it but its batch. metering_preview tells its channels. The
// answer is then exact. Without it, next NULL, the answer is for all reports there can be: false means that it has to be looked at closely.
// So whoever asks needs the preview, which costs divisions, in the last sweeps of a full report only.
// One sweep always fits an empty batch; if the report is then too large after all, it goes without its batch.
bool telemetry_batch_fits(const struct telemetry_batch *b, const struct telemetry_identity *id, const struct telemetry_interval *next, const int16_t *counts,
                          const bool *ok);
// Adds a sweep that fits.
void telemetry_batch_add(struct telemetry_batch *b, int channels, const int16_t *counts, const bool *ok);
// Writes the Batch message of b into interval->batch; without sweeps there is none.
void telemetry_batch_close(const struct telemetry_batch *b, const struct telemetry_identity *id, struct telemetry_interval *interval);

// A queue of closed intervals between one writer and one reader, without locks.
#define TELEMETRY_QUEUE 4
struct telemetry_queue {
    struct telemetry_interval slot[TELEMETRY_QUEUE];
    _Atomic uint32_t head, tail;
    _Atomic uint32_t dropped; // intervals whose batch was dropped since the reader did not keep up; their totals are in the next
};
void telemetry_queue_init(struct telemetry_queue *q);
// The slot to fill next, or NULL if the reader does not keep up; publish makes it the reader's. Asking has no effect: until publish it is the
// same slot, good for a preview as well. Who gives up a batch for want of a slot calls telemetry_queue_drop.
struct telemetry_interval *telemetry_queue_slot(struct telemetry_queue *q);
void telemetry_queue_publish(struct telemetry_queue *q);
void telemetry_queue_drop(struct telemetry_queue *q);
// The oldest interval that was not taken, or NULL; done gives its slot back.
const struct telemetry_interval *telemetry_queue_peek(struct telemetry_queue *q);
void telemetry_queue_done(struct telemetry_queue *q);

// ---- the network's side

// Past batches, encoded once, in a buffer given by the caller. Reading one again gives the same bytes. A batch of quiet loads takes a byte for
// each sample, and some 70 for each report: 10 s of six channels at 500 Hz take 37 kB.
struct telemetry_ring {
    uint8_t *buffer;
    size_t size, begin, used;
    uint32_t boot_id, first, next; // seqs: first that is kept, next to come
};
void telemetry_ring_init(struct telemetry_ring *r, uint8_t *buffer, size_t size, uint32_t boot_id);
void telemetry_ring_add(struct telemetry_ring *r, const struct telemetry_interval *i);

size_t telemetry_encode_identity(const struct telemetry_identity *id, uint64_t now_us, uint8_t *out, size_t size);
// A report within TELEMETRY_MAX_BODY; should it not be, it goes without its batch.
size_t telemetry_encode_report(const struct telemetry_identity *id, const struct telemetry_interval *i, uint8_t *out, size_t size);
// SampleList from seq on: as many batches as fit TELEMETRY_MAX_BODY.
size_t telemetry_encode_samples(const struct telemetry_ring *r, uint32_t from, uint8_t *out, size_t size);
size_t telemetry_encode_time(uint32_t boot_id, uint64_t received_us, uint64_t sent_us, uint8_t *out, size_t size);
enum telemetry_error { TELEMETRY_BAD_REQUEST = 1, TELEMETRY_NOT_FOUND, TELEMETRY_NOT_ACCEPTABLE, TELEMETRY_BUSY, TELEMETRY_SENSOR, TELEMETRY_INTERNAL };
size_t telemetry_encode_error(enum telemetry_error code, const char *message, uint32_t retry_after_ms, uint8_t *out, size_t size);

// The same as JSON, byte for byte what internal/wire makes of the message: the field names of meter.proto, numbers as numbers, and in a report
// fault counts only where there are any, no batch and no extremes. A report that would pass TELEMETRY_MAX_BODY has the fault counts of all channels
// in one sum; six channels of 0.1 ohm then stay within it for ten years at full scale. Samples are as many batches as in protobuf, or as the buffer
// holds; a sample takes up to 6 bytes, so 7 kB hold any.
size_t telemetry_json_identity(const struct telemetry_identity *id, uint64_t now_us, char *out, size_t size);
size_t telemetry_json_report(const struct telemetry_identity *id, const struct telemetry_interval *i, char *out, size_t size);
size_t telemetry_json_samples(const struct telemetry_ring *r, uint32_t from, char *out, size_t size);
size_t telemetry_json_time(uint32_t boot_id, uint64_t received_us, uint64_t sent_us, char *out, size_t size);
size_t telemetry_json_error(enum telemetry_error code, const char *message, uint32_t retry_after_ms, char *out, size_t size);
