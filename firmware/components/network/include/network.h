// The meter on the air: a Wi-Fi station that joins its network for ever, IPv4 and IPv6 (link-local and SLAAC), a clock for the display, and
// mDNS by which it is found. One of the two components that know ESP-IDF.
//
// All of it happens in ESP-IDF's event task, which waits for nothing here: what is to come later comes by a timer, as an event.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "freertos/FreeRTOS.h"
#include "freertos/semphr.h"
#include "network_link.h"

// Texts stay the caller's and must stay there.
struct network_config {
    const char *ssid, *passphrase; // an empty ssid: the radio runs, for its randomness, and joins nothing. Never logged
    const char *name;              // of the meter, for people: mDNS instance; the host's name is made of it
    const char *serial, *firmware; // TXT keys id and fw
    int channels;                  // TXT key ch
    uint16_t port;                 // of the service
    const char *sntp;              // time server, or empty
};

enum network_state { NETWORK_OFF, NETWORK_CONNECTING, NETWORK_ONLINE };

// Its fields are network's.
struct network {
    struct network_config config;
    struct network_link link;
    void *netif, *timer;
    char host[64];
    uint8_t reason; // of the last failure to connect, so that only a change is logged
    bool has_ip4, has_ip6, global_ip6;
    // What other tasks may ask for.
    SemaphoreHandle_t lock;
    StaticSemaphore_t lock_memory;
    char address[46];
    _Atomic int state;
};

// Starts the radio and everything else. False if the radio does not run; the meter measures nevertheless.
bool network_start(struct network *n, const struct network_config *config);
enum network_state network_state(const struct network *n);
// The address to reach the meter by: IPv4 before a global IPv6 before a link-local one; empty if there is none.
void network_address(struct network *n, char address[46]);
// The wall clock in UTC, once a time server has told it.
bool network_clock(uint8_t *hour, uint8_t *minute);
// The host's name for mDNS and DHCP, made of any name: letters, digits and inner hyphens (RFC 1123, 2.1), "meter" if none is left.
void network_host(const char *name, char host[64]);
