// What the tasks of the meter share. All of it is made in app_main.c; nothing else is global.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "board.h"
#include "coapserver.h"
#include "freertos/FreeRTOS.h"
#include "freertos/semphr.h"
#include "freertos/task.h"
#include "network.h"
#include "sampler.h"
#include "settings.h"
#include "telemetry.h"

// What one channel was like in the last report, for the display and the totals kept.
struct meter_channel {
    struct telemetry_channel last;
    bool measured;         // for at least half of the interval
    uint64_t saturated_us; // when it last was, 0 for never
};

struct meter {
    struct settings settings; // as of the start; the console works on a copy
    struct telemetry_identity identity;
    struct settings_totals earlier; // of all starts before this one
    bool radio;
    char new_key[SETTINGS_KEY_MAX + 1]; // made at this start, to be shown once; empty if there was one

    // The sampling task's, from its start on.
    struct board_bus bus;
    struct board_tick tick;
    struct sampler_config sampling;
    struct sampler sampler;
    // From the sampling task to the serving one.
    struct telemetry_queue queue;
    // The serving task's.
    struct coapserver_config serving;
    struct coapserver *server;
    atomic_uint observers;

    struct network network;

    // What several tasks read and the serving task writes, under a lock that is held for a copy only. The sampling task never takes it.
    SemaphoreHandle_t lock;
    StaticSemaphore_t lock_memory;
    struct meter_channel channel[METERING_MAX_CHANNELS];
    struct settings_totals totals; // of all starts
    uint64_t report_us;            // of the last report, 0 for none
    bool frozen;                   // totals are not written any more: the meter is about to restart

    atomic_bool leaving, left; // the serving task is to end its sessions; has done so
    TaskHandle_t sample, serve, keep, console, display;
};

// Requests to the keeping task, as bits of its notification.
enum { METER_SUPPLY_FAILS = 1, METER_RESTART = 2, METER_RESET_TOTALS = 4 };

// The bodies of tasks; the argument is the meter.
void keeper_task(void *meter);
void console_task(void *meter);
void display_task(void *meter);
// One report came: what the display and the totals need of it. In the serving task.
void keeper_report(void *meter, const struct telemetry_interval *report);

// Makes a new key. False if there is no radio to take randomness from.
bool meter_new_key(const struct meter *m, struct settings *s);
