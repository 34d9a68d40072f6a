// The meter on the network: CoAP (RFC 7252) with Observe (RFC 7641) over DTLS 1.2-PSK, on libcoap. One task owns it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "telemetry.h"

struct coapserver_config {
    const char *address; // NULL for all, IPv4 and IPv6
    uint16_t port;       // 0 for the default, 5684
    bool any_port;       // port 0 takes any free one, which coapserver_port tells
    const char *identity;
    const uint8_t *key;
    uint8_t key_length;
    const struct telemetry_identity *meter;
    struct telemetry_queue *queue; // where reports come from
    uint8_t *ring;                 // room for past batches
    uint32_t ring_size;
    uint32_t max_observers;        // 32
    uint32_t max_peers;            // sessions and handshakes
    uint32_t requests_per_second;  // of one peer, beyond which it is told to come later; 0 for 50
    uint32_t confirm_every_ms;     // 5000: a CON notification finds observers that are gone
    bool plain;                    // CoAP without DTLS; refused for any address but loopback. For tests
    uint64_t (*now_us)(void *context); // the meter's clock
    void *clock_context;
    void (*on_report)(void *context, const struct telemetry_interval *report); // for the display and the totals kept; may be NULL
    void *on_report_context;
    void (*log)(void *context, const char *line); // changes of state, without newline; NULL for stderr
    void *log_context;
};

struct coapserver;

// Binds the port. NULL if that fails; why is in the log.
struct coapserver *coapserver_new(const struct coapserver_config *config);
uint16_t coapserver_port(const struct coapserver *s);
// Serves for up to ms, taking reports from the queue and notifying observers. Returns false if it cannot go on.
bool coapserver_poll(struct coapserver *s, uint32_t ms);
uint32_t coapserver_observers(const struct coapserver *s);
// Ends all observations and closes sessions in order.
void coapserver_free(struct coapserver *s);
