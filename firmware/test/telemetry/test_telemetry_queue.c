// The queue between a sampler that never waits and a reader that is now and then too slow. Built with ThreadSanitizer as well.
#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "telemetry.h"

#define SWEEPS 400000

static struct telemetry_queue queue;
static _Atomic bool finished;

// Each sweep adds one to the total of each channel; each report has the totals so far, and as many in its interval as since the one before.
static void *sample(void *nothing)
{
    int64_t total = 0, reported = 0;
    uint32_t seq = 0;
    for (int i = 0; i < SWEEPS; i++) {
        total++;
        struct telemetry_interval *slot = telemetry_queue_slot(&queue);
        if (!slot) {
            telemetry_queue_drop(&queue);
            if (i % 64 == 0) {
                sched_yield();
            }
            continue;
        }
        slot->seq = ++seq;
        slot->channels = METERING_MAX_CHANNELS;
        slot->interval_us = (uint32_t)(total - reported);
        for (int c = 0; c < METERING_MAX_CHANNELS; c++) {
            slot->channel[c].totals.energy_uj = total;
        }
        slot->batch_length = (uint16_t)(seq % sizeof slot->batch);
        memset(slot->batch, (int)(seq & 0xff), slot->batch_length);
        reported = total;
        telemetry_queue_publish(&queue);
    }
    atomic_store(&finished, true);
    return nothing;
}

int main(void)
{
    pthread_t sampler;
    telemetry_queue_init(&queue);
    if (!CHECK(pthread_create(&sampler, NULL, sample, NULL) == 0)) {
        return check_end();
    }
    uint32_t seq = 0;
    int64_t total = 0;
    for (bool last = false;;) {
        const struct telemetry_interval *taken = telemetry_queue_peek(&queue);
        if (!taken) {
            if (last) {
                break;
            }
            last = atomic_load(&finished);
            sched_yield();
            continue;
        }
        // None is lost, none comes twice, and what was merged is in the next.
        CHECK_EQ(taken->seq, seq + 1);
        CHECK_EQ(taken->channel[0].totals.energy_uj, total + taken->interval_us);
        bool whole = taken->channel[0].totals.energy_uj == taken->channel[METERING_MAX_CHANNELS - 1].totals.energy_uj;
        for (size_t i = 0; i < taken->batch_length; i++) {
            whole &= taken->batch[i] == (taken->seq & 0xff);
        }
        CHECK(whole);
        seq = taken->seq;
        total = taken->channel[0].totals.energy_uj;
        telemetry_queue_done(&queue);
        // Now and then the network takes its time.
        for (uint32_t i = 0; seq % 50 == 0 && i < 20 && !atomic_load(&finished); i++) {
            sched_yield();
        }
    }
    CHECK(pthread_join(sampler, NULL) == 0);
    uint32_t dropped = atomic_load(&queue.dropped);
    printf("%lu reports, %lu merged into others\n", (unsigned long)seq, (unsigned long)dropped);
    CHECK_EQ(seq + dropped, SWEEPS);
    CHECK(seq > 1000);
    CHECK(dropped > 0);
    return check_end();
}
