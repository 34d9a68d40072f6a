#define _GNU_SOURCE
#include "feed.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { HEADER = 8, INPUTS = 8 + FEED_CHANNELS * 8, FAULT = 8, LONGEST = INPUTS };
// A conversion looks back no longer than it takes, at most 8.244 ms and a tenth.
#define KEPT_NS 20000000u

static uint32_t u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t u64(const uint8_t *p) {
    return u32(p) | (uint64_t)u32(p + 4) << 32;
}

void feed_init(struct feed *f) {
    f->fd = -1;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
}

// Fills p. Returns how many bytes came before the end of the stream, -1 on an error.
static ssize_t read_whole(int fd, uint8_t *p, size_t n) {
    size_t got = 0;
    while (got < n) {
        ssize_t r = read(fd, p + got, n - got);
        if (r < 0 && errno != EINTR) {
            return -1;
        }
        if (r == 0) {
            break;
        }
        got += r > 0 ? (size_t)r : 0;
    }
    return (ssize_t)got;
}

// Puts one record into the queue. Returns false if it makes no sense, and says why in f->error.
static bool take(struct feed *f, uint32_t kind, uint32_t length, const uint8_t *p, uint64_t number) {
    const char *why = NULL;
    pthread_mutex_lock(&f->lock);
    if (kind == 1) {
        uint64_t until = u64(p);
        if (length != INPUTS) {
            why = "inputs have 56 bytes";
        } else if (until < f->until_ns) {
            why = "time goes back";
        }
        while (!why && f->next - f->first == FEED_RECORDS && !f->stopped) {
            pthread_cond_wait(&f->changed, &f->lock);
        }
        if (!why && !f->stopped) {
            struct feed_record *r = &f->record[f->next++ % FEED_RECORDS];
            r->until_ns = f->until_ns = until;
            for (int i = 0; i < FEED_CHANNELS; i++) {
                r->shunt_nv[i] = (int32_t)u32(p + 8 + i * 8);
                r->bus_uv[i] = (int32_t)u32(p + 12 + i * 8);
            }
            f->last = *r;
        }
    } else if (kind == 2) {
        if (length != FAULT) {
            why = "a fault has 8 bytes";
        } else if (p[0] > 1 || p[1] > FEED_ABSENT || p[2] || p[3]) {
            why = "no such chip or fault";
        }
        while (!why && f->next_fault - f->first_fault == FEED_FAULTS && !f->stopped) {
            pthread_cond_wait(&f->changed, &f->lock);
        }
        if (!why && !f->stopped) {
            f->fault[f->next_fault++ % FEED_FAULTS] = (struct feed_fault){.at_ns = f->until_ns, .chip = p[0], .what = p[1], .count = u32(p + 4)};
        }
    } else {
        why = "no such kind";
    }
    if (why) {
        snprintf(f->error, sizeof f->error, "record %llu of kind %u with %u bytes: %s", (unsigned long long)number, (unsigned)kind, (unsigned)length, why);
    }
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return !why;
}

static void *reader(void *context) {
    struct feed *f = context;
    uint8_t header[HEADER], payload[LONGEST];
    const char *why = NULL;
    uint64_t number = 0;
    for (;;) {
        ssize_t n = read_whole(f->fd, header, sizeof header);
        if (n <= 0) {
            why = n < 0 ? strerror(errno) : NULL;
            break;
        }
        number++;
        uint32_t length = u32(header + 4);
        if (n < HEADER) {
            why = "ends within a record";
            break;
        }
        if (length > sizeof payload) {
            // A length that nothing has: what follows cannot be found any more.
            take(f, u32(header), length, payload, number);
            break;
        }
        if (read_whole(f->fd, payload, length) != (ssize_t)length) {
            why = "ends within a record";
            break;
        }
        if (!take(f, u32(header), length, payload, number)) {
            break;
        }
    }
    pthread_mutex_lock(&f->lock);
    if (why) {
        snprintf(f->error, sizeof f->error, "%s", why);
    }
    f->ended = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

bool feed_read(struct feed *f, int fd) {
    f->fd = fd;
    pthread_t thread;
    // Nobody can join it: it may wait for its stream for ever.
    return pthread_create(&thread, NULL, reader, f) == 0 && pthread_detach(thread) == 0;
}

bool feed_failed(struct feed *f, char *why, size_t size) {
    pthread_mutex_lock(&f->lock);
    snprintf(why, size, "%s", f->error);
    pthread_mutex_unlock(&f->lock);
    return why[0];
}

void feed_stop(struct feed *f) {
    pthread_mutex_lock(&f->lock);
    f->stopped = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static bool wait_until(struct feed *f, uint64_t t_ns) {
    while (f->until_ns < t_ns && !f->ended && !f->stopped) {
        pthread_cond_wait(&f->changed, &f->lock);
    }
    return f->until_ns >= t_ns && !f->error[0] && !f->stopped;
}

bool feed_wait(struct feed *f, uint64_t t_ns) {
    if (f->fd < 0) {
        return true;
    }
    pthread_mutex_lock(&f->lock);
    bool known = wait_until(f, t_ns);
    pthread_mutex_unlock(&f->lock);
    return known;
}

// The record that holds at t, or next if none does.
static uint64_t find(const struct feed *f, uint64_t t_ns) {
    uint64_t low = f->first, high = f->next;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (f->record[middle % FEED_RECORDS].until_ns > t_ns) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

void feed_mean(struct feed *f, int channel, uint64_t from_ns, uint64_t to_ns, int32_t *shunt_nv, int32_t *bus_uv) {
    if (f->fd < 0) {
        *shunt_nv = f->last.shunt_nv[channel];
        *bus_uv = f->last.bus_uv[channel];
        return;
    }
    pthread_mutex_lock(&f->lock);
    wait_until(f, to_ns);
    int64_t shunt = 0, bus = 0;
    uint64_t at = from_ns;
    for (uint64_t i = find(f, from_ns); at < to_ns; i++) {
        const struct feed_record *r = i < f->next ? &f->record[i % FEED_RECORDS] : &f->last;
        uint64_t until = i < f->next && r->until_ns < to_ns ? r->until_ns : to_ns;
        shunt += (int64_t)(until - at) * r->shunt_nv[channel];
        bus += (int64_t)(until - at) * r->bus_uv[channel];
        at = until;
    }
    while (f->first < f->next && f->record[f->first % FEED_RECORDS].until_ns + KEPT_NS < from_ns) {
        f->first++;
    }
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    *shunt_nv = (int32_t)(shunt / (int64_t)(to_ns - from_ns));
    *bus_uv = (int32_t)(bus / (int64_t)(to_ns - from_ns));
}

bool feed_fault(struct feed *f, uint64_t now_ns, struct feed_fault *fault) {
    if (f->fd < 0) {
        return false;
    }
    pthread_mutex_lock(&f->lock);
    wait_until(f, now_ns + 1);
    bool due = f->first_fault < f->next_fault && f->fault[f->first_fault % FEED_FAULTS].at_ns <= now_ns;
    if (due) {
        *fault = f->fault[f->first_fault++ % FEED_FAULTS];
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->lock);
    return due;
}
