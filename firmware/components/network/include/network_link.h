// When to connect to the access point again: a state machine, plain C. It is given events and says what to do; network.c does it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum network_link_state {
    NETWORK_LINK_OFF,        // the radio does not run, or there is no network to join
    NETWORK_LINK_WAITING,    // for the timer, before the next attempt
    NETWORK_LINK_CONNECTING,
    NETWORK_LINK_JOINED,     // to the access point, without an address yet
    NETWORK_LINK_UP,         // with an address
};
enum network_link_event {
    NETWORK_LINK_START,   // the radio runs
    NETWORK_LINK_JOIN,    // the access point took us
    NETWORK_LINK_ADDRESS, // an address came, IPv4 or IPv6
    NETWORK_LINK_ADDRESS_LOST, // the last one went
    NETWORK_LINK_LOST,    // the access point is gone, or an attempt failed
    NETWORK_LINK_TIMER,   // the time asked for is over
};

struct network_link {
    uint32_t backoff_min_ms, backoff_max_ms, attempt_ms;
    enum network_link_state state;
    uint32_t failures; // since there was an address
};
// What an event asks for. timer_ms sets the one timer anew; 0 stops it, NETWORK_LINK_KEEP leaves it.
#define NETWORK_LINK_KEEP UINT32_MAX
struct network_link_action {
    bool connect, disconnect;
    uint32_t timer_ms;
};
// random is any random number; waits are shortened by it.
struct network_link_action network_link_on(struct network_link *l, enum network_link_event event, uint32_t random);
