#include <stdatomic.h>

#include "telemetry.h"

// head counts what was published, tail what was taken; both go round at 2^32, a multiple of the slots. Release and acquire make what one side
// wrote into a slot, or has read from it, seen by the other before the count.
_Static_assert((TELEMETRY_QUEUE & (TELEMETRY_QUEUE - 1)) == 0, "counts go round in step with the slots");

void telemetry_queue_init(struct telemetry_queue *q)
{
    atomic_init(&q->head, 0);
    atomic_init(&q->tail, 0);
    atomic_init(&q->dropped, 0);
}

struct telemetry_interval *telemetry_queue_slot(struct telemetry_queue *q)
{
    uint32_t head = atomic_load_explicit(&q->head, memory_order_relaxed);
    if (head - atomic_load_explicit(&q->tail, memory_order_acquire) == TELEMETRY_QUEUE) {
        return NULL;
    }
    return &q->slot[head % TELEMETRY_QUEUE];
}

void telemetry_queue_publish(struct telemetry_queue *q)
{
    uint32_t head = atomic_load_explicit(&q->head, memory_order_relaxed);
    atomic_store_explicit(&q->head, head + 1, memory_order_release);
}

void telemetry_queue_drop(struct telemetry_queue *q) { atomic_fetch_add_explicit(&q->dropped, 1, memory_order_relaxed); }

const struct telemetry_interval *telemetry_queue_peek(struct telemetry_queue *q)
{
    uint32_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);
    if (atomic_load_explicit(&q->head, memory_order_acquire) == tail) {
        return NULL;
    }
    return &q->slot[tail % TELEMETRY_QUEUE];
}

void telemetry_queue_done(struct telemetry_queue *q)
{
    uint32_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);
    atomic_store_explicit(&q->tail, tail + 1, memory_order_release);
}
