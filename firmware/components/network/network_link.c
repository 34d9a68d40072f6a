#include "network_link.h"

static struct network_link_action wait(struct network_link *l, uint32_t random) {
    uint64_t ms = l->backoff_min_ms;
    for (uint32_t i = 0; i < l->failures && ms < l->backoff_max_ms; i++) {
        ms *= 2;
    }
    if (ms > l->backoff_max_ms) {
        ms = l->backoff_max_ms;
    }
    ms -= ms / 4 * (random & 0xffff) >> 16;
    l->failures += l->failures < UINT32_MAX;
    l->state = NETWORK_LINK_WAITING;
    return (struct network_link_action){.timer_ms = (uint32_t)ms};
}

static struct network_link_action attempt(struct network_link *l) {
    l->state = NETWORK_LINK_CONNECTING;
    return (struct network_link_action){.connect = true, .timer_ms = l->attempt_ms};
}

struct network_link_action network_link_on(struct network_link *l, enum network_link_event event, uint32_t random) {
    const struct network_link_action nothing = {.timer_ms = NETWORK_LINK_KEEP};
    switch (event) {
    case NETWORK_LINK_START:
        l->failures = 0;
        return attempt(l);
    case NETWORK_LINK_JOIN:
        if (l->state == NETWORK_LINK_OFF || l->state == NETWORK_LINK_UP) {
            return nothing;
        }
        l->state = NETWORK_LINK_JOINED;
        // An access point that takes us and gives no address is not left: its DHCP server may come back, and so may a router.
        return (struct network_link_action){.timer_ms = 0};
    case NETWORK_LINK_ADDRESS:
        if (l->state == NETWORK_LINK_JOINED) {
            l->state = NETWORK_LINK_UP;
            l->failures = 0;
        }
        return nothing;
    case NETWORK_LINK_ADDRESS_LOST:
        if (l->state == NETWORK_LINK_UP) {
            l->state = NETWORK_LINK_JOINED;
        }
        return nothing;
    case NETWORK_LINK_LOST:
        // One that comes while the next attempt is waited for already, as after a disconnect of ours, must not put it off.
        if (l->state == NETWORK_LINK_OFF || l->state == NETWORK_LINK_WAITING) {
            return nothing;
        }
        return wait(l, random);
    case NETWORK_LINK_TIMER:
        if (l->state == NETWORK_LINK_WAITING) {
            return attempt(l);
        }
        if (l->state == NETWORK_LINK_CONNECTING) {
            struct network_link_action action = wait(l, random);
            action.disconnect = true;
            return action;
        }
        return nothing; // it ran out while it was being stopped
    }
    return nothing;
}
