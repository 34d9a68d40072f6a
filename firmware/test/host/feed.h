// The analog inputs of the meter as a process: what is wired to the sensors, from a stream of records or constant.
//
// A record is {u32 kind, u32 length of payload, payload}, little-endian:
//
//   kind 1   u64 until_ns, then for each channel i32 shunt_nv, i32 bus_uv: inputs from the record before to this one
//   kind 2   u8 chip, u8 what, u16 0, u32 count: a fault, at the until_ns of the record before; chip 0 has channels 1 to 3, chip 1 4 to 6
//            what 0: the next count transfers are not acknowledged; 1: the supply goes and comes; 2: the chip is away for count ms
//
// Time is ns since the start of the meter. Records are kept until they are used; a writer that is too far ahead waits.
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FEED_CHANNELS 6
#define FEED_RECORDS 65536 // kept at least before the writer waits
#define FEED_FAULTS 4096

struct feed_record {
    uint64_t until_ns;
    int32_t shunt_nv[FEED_CHANNELS], bus_uv[FEED_CHANNELS];
};

enum feed_what { FEED_NACK, FEED_SUPPLY, FEED_ABSENT };

struct feed_fault {
    uint64_t at_ns;
    uint8_t chip, what;
    uint32_t count;
};

struct feed {
    int fd; // -1: inputs are constant
    pthread_mutex_t lock;
    pthread_cond_t changed;
    // Guarded by lock. Indices grow for ever and are taken modulo the size.
    uint64_t first, next, first_fault, next_fault;
    uint64_t until_ns;       // of the last record
    bool ended;
    atomic_bool stopped;
    char error[128];         // why it ended, empty if in order
    struct feed_record last; // holds when there is no record
    struct feed_record record[FEED_RECORDS];
    struct feed_fault fault[FEED_FAULTS];
};

// Constant inputs, to be set in last; or those that come from fd, read by a thread of its own. Returns false if there is no thread.
void feed_init(struct feed *f);
bool feed_read(struct feed *f, int fd);
// Says why the stream could not be read to its end, if so.
bool feed_failed(struct feed *f, char *why, size_t size);
// Makes every wait return, for ever.
void feed_stop(struct feed *f);
// Waits until inputs are known up to t. Returns false if they never will be.
bool feed_wait(struct feed *f, uint64_t t_ns);
// Means over [from_ns, to_ns); waits until they are known. Behind the end, inputs stay as they were.
void feed_mean(struct feed *f, int channel, uint64_t from_ns, uint64_t to_ns, int32_t *shunt_nv, int32_t *bus_uv);
// Takes the next fault that is due, once inputs are known beyond now.
bool feed_fault(struct feed *f, uint64_t now_ns, struct feed_fault *fault);
