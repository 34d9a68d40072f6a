// ESP-IDF's functions as far as the firmware calls them, for tests on a PC: memory instead of flash, virtual time, a log that is kept, an event
// loop that runs when told. fake_idf.c has those that do not wait; fake_tasks.c has those that do, so that a test that links without the
// latter shows that the code under test never waits.
#pragma once

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "driver/i2c_master.h"
#include "esp_event.h"
#include "esp_ota_ops.h"
#include "esp_timer.h"
#include "esp_wifi.h"
#include "fake_ina3221.h"
#include "freertos/task.h"
#include "mdns.h"

struct esp_timer {
    esp_timer_create_args_t arguments;
    bool active;
    uint64_t at_us, period_us;
};

struct fake_task {
    const char *name;
    TaskFunction_t body;
    void *argument;
    uint32_t stack;
    unsigned priority;
    int core;
};

struct fake_idf {
    int64_t now_us;
    int64_t end_us; // a wait beyond this ends the run
    jmp_buf end;
    char log[1 << 16];
    size_t log_length;

    // I2C: transfers of controller 0 go to the fakes' bus, if there is one.
    struct fake_i2c *wire;
    int i2c_fail;           // so many transfers fail
    esp_err_t i2c_error;    // with this
    bool i2c_quiet;         // the driver was told to log nothing
    int i2c_transfers, i2c_resets, i2c_timeout_ms;
    uint32_t i2c_hz;
    esp_err_t i2c_new_error;

    bool oled_missing;
    int oled_inits, oled_draws;
    uint8_t oled[1024];

    struct fake_blob {
        char partition[16], key[16];
        uint8_t bytes[2048];
        size_t length;
    } blob[8];
    int blobs, nvs_writes, nvs_commits, nvs_erased;
    char nvs_erased_partition[16];
    esp_err_t nvs_init_error, totals_init_error, nvs_set_error;

    struct esp_timer timer[4];
    int timers;

    struct fake_event {
        esp_event_base_t base;
        int32_t id;
        _Alignas(16) uint8_t data[64];
    } event[32];
    int events;
    bool event_queue_full;
    struct {
        esp_event_base_t base;
        int32_t id;
        esp_event_handler_t handler;
        void *argument;
    } handler[8];
    int handlers;

    bool wifi_started, wifi_power_save_off, wifi_in_ram;
    esp_err_t wifi_start_error, wifi_connect_error;
    int wifi_connects, wifi_disconnects, linklocals;
    wifi_config_t wifi_config;
    char mdns_host[64], mdns_instance[64], mdns_service[16], mdns_protocol[8];
    uint16_t mdns_port;
    char mdns_txt[8][2][64];
    size_t mdns_items;
    char sntp[64];

    uint32_t random; // of esp_random, next
    int randoms;
    esp_ota_img_states_t image;
    bool confirmed;
    int watched, alive;
    bool restarted;

    struct fake_task task[8];
    int tasks;
    uint32_t notified; // bits sent to any task
    int notifies;
    uint32_t gives;    // notifications not taken
    // What xTaskNotifyWait is to get, in order of time.
    struct {
        int64_t at_us;
        uint32_t bits;
    } request[8];
    int requests, request_next;
    const char *typed; // what uart_read_bytes is to get
    char printed[1 << 14];
    size_t printed_length;
};

extern struct fake_idf idf;

// All as at power-on, but for the random number and what is in RTC memory.
void fake_idf_reset(void);
// RTC memory, all of it; a power-on leaves it random.
uint8_t *fake_idf_rtc(size_t *size);
void fake_idf_rtc_scramble(void);
// Delivers events in their order until there are none.
void fake_idf_events(void);
void fake_idf_post(esp_event_base_t base, int32_t id, const void *data, size_t size);
// Lets time pass; timers run out and their events are delivered.
void fake_idf_advance(uint64_t us);
// Fires the timers that are due.
void fake_idf_timers(void);
// The next alarm of any timer, or INT64_MAX.
int64_t fake_idf_alarm(void);
// Runs a task's body until it waits beyond the virtual time until_us, or restarts the chip.
void fake_idf_run(TaskFunction_t body, void *argument, int64_t until_us);
// What the log has, as one text.
bool fake_idf_logged(const char *text);
