// The meter: what it is made of, who gives what to whom, and what runs where.
//
//                              core 1                    │                       core 0
//                                                        │
//   esp_timer, in its interrupt                          │                                                Wi-Fi, lwIP, mDNS
//        │ wakes, each 2 ms                              │                                                 23     18     1
//        ▼                                               │                                                   ▲
//   sample, priority 22                                  │   serve, priority 8                               │ UDP 5684
//   INA3221 ══ I2C 0 ═► sampler ─► metering ─► batch ════╪══► coapserver ── DTLS, Observe ───────────────────┘
//        │                                    queue of 4 │      │        └── ring: the samples of the last 10 s
//        │                                  without lock │      │ each report
//        │                                               │      ├─► totals ─► RTC memory
//        │ supply fails                                  │      ▼
//        └───────────────────────────────────────────────┼─► keep, priority 4: totals ─► flash each 10 s; restarts; keeps a good image
//                                                        │   console, priority 3: serial lines ─► settings ─► flash
//                                                        │   display, priority 1: last report ─► frame ══ I2C 1 ═► SSD1306
//
// Sampling waits for its tick and its bus, and for nothing that any other task holds. The one thing that stops it is the flash being
// written: the ESP32 then stops both cores, for some 50 ms when a sector is erased. The gap is counted as unmeasured; partitions.csv says how
// often that is.
//
// A peripheral is opened in the task that uses it, since its interrupt is then taken by that task's core.
#include <stdio.h>
#include <string.h>

#include "esp_heap_caps.h"
#include "esp_log.h"
#include "meter.h"
#include "sdkconfig.h"

static const char *const tag = "meter";

static struct meter meter;

// ---- make

static void load(struct meter *m) {
    board_store_open();
    settings_default(&m->settings);
    m->settings.rate = CONFIG_METER_RATE;
    m->settings.interval = CONFIG_METER_INTERVAL_MS;
    snprintf(m->settings.sntp, sizeof m->settings.sntp, "%s", CONFIG_NETWORK_SNTP_SERVER);
    board_settings_load(&m->settings);
    board_totals_load(&m->earlier);
    m->totals = m->earlier;
}

// How far /samples reaches back for quiet loads, which take a byte for each sample and some 70 for each report; 10 s are what it is there for.
static uint32_t ring_us(const struct meter *m) {
    uint64_t per_second = (uint64_t)m->settings.rate * (unsigned)m->sampling.chips * INA3221_CHANNELS + 70 * 1000 / m->settings.interval;
    uint64_t us = CONFIG_METER_RING_BYTES * 1000000ull / per_second;
    return us < 10000000 ? (uint32_t)us : 10000000;
}

static void describe(struct meter *m) {
    struct sampler_config *c = &m->sampling;
    sampler_defaults(c);
    c->bus = board_bus_table(&m->bus);
    c->now = board_now_us;
    c->address[0] = CONFIG_BOARD_SENSOR_1_ADDRESS;
#if CONFIG_BOARD_SENSOR_2
    c->address[1] = CONFIG_BOARD_SENSOR_2_ADDRESS;
    c->chips = 2;
#else
    c->chips = 1;
#endif
    sampler_rate(c, m->settings.rate);
    c->report_interval_us = m->settings.interval * 1000u;
    c->power_valid_upper = CONFIG_METER_POWER_VALID_UPPER_MV / INA3221_BUS_MV;
    c->power_valid_lower = CONFIG_METER_POWER_VALID_LOWER_MV / INA3221_BUS_MV;

    struct telemetry_identity *id = &m->identity;
    *id = (struct telemetry_identity){
        .max_observers = CONFIG_METER_MAX_OBSERVERS,
        .ring_us = ring_us(m),
    };
    sampler_describe(c, id);
    snprintf(id->name, sizeof id->name, "%s", m->settings.name);
    snprintf(id->hardware, sizeof id->hardware, "esp32-%dxina3221", c->chips);
    snprintf(id->firmware_version, sizeof id->firmware_version, "%s", board_firmware_version());
    board_serial(id->serial);
    for (int i = 0; i < id->channels; i++) {
        c->calibration[i] = m->settings.channel[i].calibration;
        id->channel[i].number = (uint8_t)(i + 1);
        snprintf(id->channel[i].name, sizeof id->channel[i].name, "%s", m->settings.channel[i].name);
        id->channel[i].calibration = m->settings.channel[i].calibration;
        id->channel[i].earlier_energy_uj = m->earlier.channel[i].energy_uj;
        id->channel[i].earlier_charge_uc = m->earlier.channel[i].charge_uc;
    }
}

bool meter_new_key(const struct meter *m, struct settings *s) {
    uint8_t random[128];
    while (m->radio) {
        board_random(random, sizeof random);
        if (settings_make_key(s, random, sizeof random)) {
            break;
        }
    }
    memset(random, 0, sizeof random);
    return m->radio;
}

// The first start: a key nobody else has. It is told once, by the console and the display.
static void first_key(struct meter *m) {
    if (m->settings.key_length != 0 || !meter_new_key(m, &m->settings)) {
        return;
    }
    if (board_settings_save(&m->settings)) {
        memcpy(m->new_key, m->settings.key, m->settings.key_length);
    } else {
        ESP_LOGE(tag, "the new key could not be saved; a key that is gone at the next start is of no use");
        m->settings.key_length = 0;
    }
}

// ---- connect

static void log_line(void *context, const char *line) {
    (void)context;
    ESP_LOGI("coap", "%s", line);
}

static void serve_config(struct meter *m) {
    // From the heap, once: the linker's static region ends where a bank of the ESP32's memory does, 176 kB, and this need not be in it.
    uint32_t size = CONFIG_METER_RING_BYTES;
    uint8_t *ring = heap_caps_malloc(size, MALLOC_CAP_INTERNAL | MALLOC_CAP_8BIT);
    if (ring == NULL) {
        ESP_LOGE(tag, "no %u bytes for past samples; lost ones cannot be asked for", (unsigned)size);
        size = 0;
    }
    m->serving = (struct coapserver_config){
        .identity = m->settings.identity,
        .key = m->settings.key,
        .key_length = m->settings.key_length,
        .meter = &m->identity,
        .queue = &m->queue,
        .ring = ring,
        .ring_size = size,
        .max_observers = CONFIG_METER_MAX_OBSERVERS,
        .max_peers = CONFIG_METER_MAX_PEERS,
        .confirm_every_ms = 5000,
        .now_us = board_now_us,
        .on_report = keeper_report,
        .on_report_context = m,
        .log = log_line,
    };
}

// ---- the two tasks that the rest is there for

static void sample_task(void *argument) {
    struct meter *m = argument;
    board_bus_open(&m->bus, m->sampling.address, m->sampling.chips);
    int found = sampler_init(&m->sampler, &m->sampling, &m->identity, &m->queue);
    ESP_LOGI(tag, "%d of %d sensors answer, %u sweeps per second", found, m->sampling.chips, (unsigned)m->settings.rate);
    board_watch();
    while (!board_tick_start(&m->tick, m->sampling.sweep_period_us)) {
        vTaskDelay(pdMS_TO_TICKS(1000)); // the watchdog restarts the meter
    }
    // The supplies were good for a second, and are not now: once per fall, however long it lasts.
    uint64_t invalid = 0;
    uint32_t good = 0;
    for (;;) {
        uint64_t due = sampler_next(&m->sampler, board_now_us(NULL));
        board_tick_wait(due);
        sampler_sweep(&m->sampler, due);
        if (m->sampler.counts.power_invalid == invalid) {
            good++;
        } else {
            if (good >= m->settings.rate) {
                xTaskNotify(m->keep, METER_SUPPLY_FAILS, eSetBits);
            }
            invalid = m->sampler.counts.power_invalid;
            good = 0;
        }
        board_alive();
    }
}

static void serve_task(void *argument) {
    struct meter *m = argument;
    uint64_t tried_us = 0;
    board_watch();
    while (!m->leaving) {
        board_alive();
        if (m->server != NULL && coapserver_poll(m->server, 5)) {
            m->observers = coapserver_observers(m->server);
            continue;
        }
        // Nobody is served: what the sampler measures is still shown and kept, and each 10 s it is tried anew.
        if (m->server != NULL) {
            coapserver_free(m->server);
            m->server = NULL;
            m->observers = 0;
        }
        for (const struct telemetry_interval *i; (i = telemetry_queue_peek(&m->queue)) != NULL; telemetry_queue_done(&m->queue)) {
            keeper_report(m, i);
        }
        if (m->serving.key_length != 0 && board_now_us(NULL) - tried_us > 10000000) {
            tried_us = board_now_us(NULL);
            m->server = coapserver_new(&m->serving);
        }
        vTaskDelay(pdMS_TO_TICKS(20));
    }
    if (m->server != NULL) {
        coapserver_free(m->server); // tells the observers
        m->server = NULL;
    }
    m->left = true;
    for (;;) {
        board_alive();
        vTaskDelay(pdMS_TO_TICKS(100));
    }
}

// ---- start

static TaskHandle_t start(TaskFunction_t body, const char *name, StackType_t *stack, uint32_t size, StaticTask_t *task, UBaseType_t priority,
                          int core) {
    return xTaskCreateStaticPinnedToCore(body, name, size, &meter, priority, stack, task, core);
}
#define START(body, name, stack_size, priority, core) \
    ({ \
        static StackType_t stack[stack_size]; \
        static StaticTask_t task; \
        start(body, name, stack, stack_size, &task, priority, core); \
    })

void app_main(void) {
    struct meter *m = &meter;
    ESP_LOGI(tag, "Wattlet meter %s, start by %s", board_firmware_version(), board_start_reason());

    load(m);
    describe(m);
    const struct network_config network = {
        .ssid = m->settings.ssid,
        .passphrase = m->settings.passphrase,
        .name = m->settings.name,
        .serial = m->identity.serial,
        .firmware = m->identity.firmware_version,
        .channels = m->identity.channels,
        .port = 5684,
        .sntp = m->settings.sntp,
    };
    m->radio = network_start(&m->network, &network); // before the boot id and the key, which take their randomness from it
    m->identity.boot_id = board_boot_id();
    first_key(m);
    serve_config(m);
    telemetry_queue_init(&m->queue);
    m->lock = xSemaphoreCreateMutexStatic(&m->lock_memory);

    // Those that others speak to come first.
    m->keep = START(keeper_task, "keep", 4096, 4, 0);
    m->serve = START(serve_task, "serve", 10240, 8, 0);
    m->sample = START(sample_task, "sample", 4096, 22, 1);
    m->console = START(console_task, "console", 5120, 3, 0);
    m->display = START(display_task, "display", 4096, 1, 0);
}
