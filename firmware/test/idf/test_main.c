// The whole firmware as app_main puts it together, on faked sensors, flash, radio and display: each task's body is run for a while of virtual
// time. libcoap is not part of it; a server of a few lines takes the reports.
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "fake_idf.h"
#include "meter.h"

void app_main(void);

// ---- the server's stand-in

struct coapserver {
    struct coapserver_config config;
};
static struct coapserver server;
static int servers, freed;
static bool refuse;
static uint32_t observers;

struct coapserver *coapserver_new(const struct coapserver_config *config) {
    if (refuse) {
        return NULL;
    }
    servers++;
    server.config = *config;
    return &server;
}

bool coapserver_poll(struct coapserver *s, uint32_t ms) {
    const struct telemetry_interval *i;
    while ((i = telemetry_queue_peek(s->config.queue)) != NULL) {
        s->config.on_report(s->config.on_report_context, i);
        telemetry_queue_done(s->config.queue);
    }
    vTaskDelay(ms);
    return true;
}

uint32_t coapserver_observers(const struct coapserver *s) {
    (void)s;
    return observers;
}

void coapserver_free(struct coapserver *s) {
    (void)s;
    freed++;
}

// ---- the board

static struct fake_ina3221 chip[2];
static struct fake_i2c wire;
static uint64_t fails_ns[6]; // when the supply of all channels falls and comes back

static void load(void *context, int channel, uint64_t from_ns, uint64_t to_ns, int32_t *shunt_nv, int32_t *bus_uv) {
    (void)to_ns;
    *shunt_nv = (*(int *)context + channel) * 10000000; // 100 mA for each channel's number, through 0.1 ohm
    *bus_uv = 5000000;
    for (int i = 0; i < 6; i += 2) {
        if (from_ns >= fails_ns[i] && from_ns < fails_ns[i + 1]) {
            *bus_uv = 4000000;
        }
    }
}

static struct meter *m;

// A start: of a new board, or of one whose flash and RTC memory are kept.
static void boot(bool keep) {
    static struct fake_idf before;
    static int first[2] = {4, 1}; // the chip at 0x40 has channels 4 to 6
    before = idf;
    fake_idf_reset();
    if (keep) {
        memcpy(idf.blob, before.blob, sizeof idf.blob);
        idf.blobs = before.blobs;
    } else {
        fake_idf_rtc_scramble();
    }
    fake_i2c_init(&wire);
    for (int i = 0; i < 2; i++) {
        fake_ina3221_init(&chip[i], (struct fake_ina3221_input){.mean = load, .context = &first[i]});
        fake_i2c_join(&wire, &chip[i], (uint8_t)(0x40 + i));
    }
    idf.wire = &wire;
    servers = freed = 0;
    refuse = false;
    observers = 0;
    if (m != NULL) {
        memset(m, 0, sizeof *m); // .bss
    }
    app_main();
    m = idf.task[0].argument;
}

static const struct fake_task *task(const char *name) {
    for (int i = 0; i < idf.tasks; i++) {
        if (strcmp(idf.task[i].name, name) == 0) {
            return &idf.task[i];
        }
    }
    CHECK(!"there is such a task");
    abort();
}

static void run(const char *name, int64_t us) {
    const struct fake_task *t = task(name);
    fake_idf_run(t->body, t->argument, idf.now_us + us);
}

static void totals_in_flash(struct settings_totals *newest) {
    bool any = false;
    *newest = (struct settings_totals){0};
    for (int i = 0; i < idf.blobs; i++) {
        struct settings_totals t;
        if (strcmp(idf.blob[i].partition, "totals") == 0 && settings_totals_unpack(&t, idf.blob[i].bytes, idf.blob[i].length) &&
            (!any || settings_totals_newer(&t, newest))) {
            *newest = t;
            any = true;
        }
    }
}

// What the console prints while it is given a text.
static char *type(const char *text) {
    static char *printed;
    static size_t size;
    free(printed);
    FILE *real = stdout;
    stdout = open_memstream(&printed, &size);
    idf.typed = text;
    run("console", 2000000);
    fclose(stdout);
    stdout = real;
    return printed;
}

// ---- tests

static void tasks_have_their_places(void) {
    boot(false);
    CHECK_EQ(idf.tasks, 5);
    const struct fake_task *sample = task("sample"), *serve = task("serve"), *display = task("display");
    CHECK_EQ(sample->core, 1);
    CHECK_EQ(serve->stack, 10240);
    for (int i = 0; i < idf.tasks; i++) {
        const struct fake_task *t = &idf.task[i];
        CHECK(t == sample || (t->core == 0 && t->priority < sample->priority));
        CHECK(t == display || t->priority > display->priority);
        CHECK(t->argument == sample->argument);
    }
    // Below Wi-Fi (23) and the timer's task (22) no task of ours may be on core 0 above lwIP (18).
    CHECK(serve->priority < 18);
}

static void the_first_start_makes_a_key(void) {
    boot(false);
    struct settings s;
    CHECK(board_settings_load(&s));
    CHECK_EQ(s.key_length, SETTINGS_KEY_NEW);
    CHECK_EQ(m->serving.key_length, SETTINGS_KEY_NEW);
    CHECK_MEM(m->serving.key, s.key, SETTINGS_KEY_NEW);
    CHECK(m->identity.boot_id != 0);
    CHECK_STR(m->identity.serial, "24:0a:c4:01:02:03");
    CHECK_STR(m->identity.hardware, "esp32-2xina3221");
    CHECK_STR(idf.mdns_txt[1][1], "24:0a:c4:01:02:03");
    char key[SETTINGS_KEY_MAX + 1] = "";
    memcpy(key, s.key, s.key_length);
    // The console tells it, the log never.
    CHECK(strstr(type(""), key) != NULL);
    CHECK(!fake_idf_logged(key));
    run("display", 1000000);
    CHECK(idf.oled_draws > 0);
    // At the next start it is the same, and nobody is told.
    uint32_t before = m->identity.boot_id;
    boot(true);
    CHECK_MEM(m->settings.key, key, SETTINGS_KEY_NEW);
    CHECK(m->identity.boot_id != before);
    CHECK(strstr(type("show\r"), key) == NULL);
    CHECK(strstr(type("show secrets\r"), key) != NULL);
}

static void without_a_radio_there_is_no_key(void) {
    fake_idf_reset();
    // app_main starts anew, with a radio that does not.
    boot(false);
    memset(m, 0, sizeof *m);
    fake_idf_reset();
    idf.wire = &wire;
    idf.wifi_start_error = ESP_FAIL;
    app_main();
    CHECK_EQ(m->serving.key_length, 0);
    CHECK_EQ(idf.nvs_writes, 0);
    CHECK(m->identity.boot_id != 0);
    servers = 0;
    run("serve", 15000000);
    CHECK_EQ(servers, 0); // nobody without a key
    CHECK(strstr(type("key new\r"), "no radio") != NULL);
}

// Sampling and serving by turns, as on two cores.
static void measure(int64_t us) {
    static bool sampling;
    if (!sampling || m->sampler.tick_us == 0) {
        run("sample", 200000); // finds the chips
        sampling = true;
    }
    int64_t end = idf.now_us + us;
    while (idf.now_us < end) {
        int64_t stop = idf.now_us + 100000;
        idf.end_us = stop;
        // The body begins with opening the bus; what follows is the same loop, so that it is gone on with here.
        if (setjmp(idf.end) == 0) {
            for (;;) {
                uint64_t due = sampler_next(&m->sampler, board_now_us(NULL));
                board_tick_wait(due);
                sampler_sweep(&m->sampler, due);
            }
        }
        idf.end_us = INT64_MAX;
        const struct telemetry_interval *i;
        while ((i = telemetry_queue_peek(&m->queue)) != NULL) {
            keeper_report(m, i);
            telemetry_queue_done(&m->queue);
        }
    }
}

static void energy_comes_through(void) {
    boot(false);
    boot(true); // the second start, with no key to show
    measure(10000000);
    CHECK_EQ(m->sampler.counts.failed, 0);
    CHECK(m->sampler.counts.sweeps > 4900);
    for (int i = 0; i < 6; i++) {
        // 5 V at 100 mA for each channel's number: 0.5 W times it.
        const struct telemetry_channel *c = &m->channel[i].last;
        int64_t measured_us = (int64_t)(m->report_us - c->totals.unmeasured_us);
        CHECK_NEAR(c->totals.energy_uj, measured_us * (i + 1) / 2, measured_us / 500);
        CHECK_NEAR(m->totals.channel[i].energy_uj, c->totals.energy_uj, 0);
        CHECK(m->channel[i].measured);
    }
    // On the display too: something, and another screen later.
    observers = 1;
    run("display", 500000);
    static uint8_t first[1024];
    memcpy(first, idf.oled, sizeof first);
    CHECK(idf.oled_draws > 0);
    run("display", 1000000);
    CHECK(memcmp(first, idf.oled, sizeof first) != 0);
}

static void the_sampling_task_samples(void) {
    boot(false);
    run("sample", 2000000);
    CHECK_EQ(m->sampler.counts.failed, 0);
    CHECK(m->sampler.counts.sweeps > 700); // 0.3 s of the two are for finding the chips
    CHECK_EQ(m->sampler.counts.late, 0);
    CHECK_EQ(idf.watched, 1);
    CHECK(idf.alive > 700);
    CHECK_EQ(idf.notified, 0);
    CHECK(atomic_load(&m->queue.dropped) > 0); // nobody took the reports, and sampling did not wait for that
}

static void sensors_that_are_away(void) {
    boot(false);
    chip[0].absent = chip[1].absent = true;
    run("sample", 3000000);
    CHECK(m->sampler.counts.sweeps > 1200);
    CHECK(idf.alive > 1200);
    CHECK(fake_idf_logged("0 of 2 sensors answer"));
}

static void a_failing_supply_is_told_once(void) {
    boot(false);
    run("sample", 5000000);
    CHECK_EQ(idf.notifies, 0);
    // Each fall is one, however long it lasts; one that comes within a second of the last is none.
    boot(false);
    fails_ns[0] = 2000000000, fails_ns[1] = 3000000000;
    fails_ns[2] = 3300000000, fails_ns[3] = 3600000000;
    fails_ns[4] = 6000000000, fails_ns[5] = UINT64_MAX;
    run("sample", 9000000);
    CHECK_EQ(idf.notified, METER_SUPPLY_FAILS);
    CHECK_EQ(idf.notifies, 2);
    memset(fails_ns, 0, sizeof fails_ns);
}

static void totals_are_saved(void) {
    boot(false);
    struct settings_totals t;
    measure(3000000);
    int64_t now = m->totals.channel[5].energy_uj;
    CHECK(now > 0);
    // Each 10 s, not more often.
    int writes = idf.nvs_writes;
    run("keep", 100000000);
    CHECK(idf.nvs_writes - writes >= 9 && idf.nvs_writes - writes <= 11);
    totals_in_flash(&t);
    CHECK_EQ(t.channel[5].energy_uj, now);
    // Power goes: the next start goes on from there.
    fake_idf_rtc_scramble();
    boot(true);
    CHECK_EQ(m->earlier.channel[5].energy_uj, now);
    CHECK_EQ(m->identity.channel[5].earlier_energy_uj, now);
    measure(3000000);
    CHECK_NEAR(m->totals.channel[5].energy_uj, now + m->channel[5].last.totals.energy_uj, 0);
    // A crash instead: RTC memory has the last report's.
    int64_t last = m->totals.channel[5].energy_uj;
    boot(true);
    CHECK_EQ(m->earlier.channel[5].energy_uj, last);
}

static void a_failing_supply_saves_at_once(void) {
    boot(false);
    measure(1000000);
    run("keep", 11000000);
    int writes = idf.nvs_writes;
    int64_t from = idf.now_us;
    // It hovers at its limit: a hundred falls in a minute and a half.
    for (int i = 0; i < 8; i++) {
        idf.request[i].at_us = from + 1500000 + i * 500000;
        idf.request[i].bits = METER_SUPPLY_FAILS;
    }
    idf.requests = 8;
    run("keep", 6000000);
    CHECK(idf.nvs_writes - writes >= 1 && idf.nvs_writes - writes <= 2);
    CHECK(!idf.restarted);
}

static void restarts_are_in_order(void) {
    boot(false);
    measure(1000000);
    run("serve", 1000000);
    CHECK_EQ(servers, 0); // first after 10 s of the clock; nothing waits for it
    run("serve", 12000000);
    CHECK_EQ(servers, 1);
    CHECK(strstr(type("reboot\r"), "error") == NULL);
    CHECK_EQ(idf.notified, METER_RESTART);
    idf.request[0].at_us = idf.now_us;
    idf.request[0].bits = METER_RESTART;
    idf.requests = 1;
    run("keep", 5000000);
    CHECK(m->leaving);
    CHECK(idf.restarted); // although the serving task did not answer
    struct settings_totals t;
    totals_in_flash(&t);
    CHECK_EQ(t.channel[5].energy_uj, m->totals.channel[5].energy_uj);
    // And the serving task, when it does run, ends its sessions.
    run("serve", 1000000);
    CHECK_EQ(freed, 1);
    CHECK(m->left);
}

static void totals_are_reset(void) {
    boot(false);
    measure(1000000);
    run("keep", 25000000);
    CHECK(strstr(type("reset totals\r"), "begin anew") != NULL);
    CHECK_EQ(idf.notified, METER_RESET_TOTALS);
    idf.request[0].at_us = idf.now_us;
    idf.request[0].bits = METER_RESET_TOTALS;
    idf.requests = 1;
    run("keep", 5000000);
    CHECK(idf.restarted);
    // What a late report says is not kept any more.
    struct telemetry_interval late = {.channels = 6, .t_us = 1, .interval_us = 1};
    late.channel[5].totals.energy_uj = 12345;
    keeper_report(m, &late);
    boot(true);
    for (int i = 0; i < 6; i++) {
        CHECK_EQ(m->earlier.channel[i].energy_uj, 0);
    }
}

static void images_on_trial(void) {
    boot(false);
    idf.image = ESP_OTA_IMG_PENDING_VERIFY;
    run("keep", 20ll * 60 * 1000000);
    CHECK(!idf.confirmed); // nothing is measured, nobody is served
    m->server = &server;
    // Measured as the time goes on: the report is always of now.
    for (int i = 0; i < 6; i++) {
        m->channel[i].measured = true;
    }
    idf.image = ESP_OTA_IMG_PENDING_VERIFY;
    m->report_us = 1ull << 62;
    run("keep", 4ll * 60 * 1000000);
    CHECK(!idf.confirmed);
    run("keep", 6ll * 60 * 1000000);
    CHECK(idf.confirmed);
    // With a network to join, it has to be joined.
    idf.confirmed = false;
    strcpy(m->settings.ssid, "net");
    run("keep", 20ll * 60 * 1000000);
    CHECK(!idf.confirmed);
}

static void settings_by_the_console(void) {
    boot(false);
    char *printed = type("name bench-7\rchannel 5 name raspberrypi\rchannel 5 shunt 50000\rwifi net \"pass word 1\"\rsave\rnonsense\r");
    CHECK(strstr(printed, "saved") != NULL);
    CHECK(strstr(printed, "error: there is no command") != NULL);
    CHECK(strstr(printed, "pass word") == NULL);
    // Used from the next start on.
    CHECK_EQ(m->sampling.calibration[4].shunt_uohm, 100000);
    boot(true);
    CHECK_STR(m->identity.name, "bench-7");
    CHECK_STR(m->identity.channel[4].name, "raspberrypi");
    CHECK_EQ(m->sampling.calibration[4].shunt_uohm, 50000);
    CHECK_MEM(idf.wifi_config.sta.password, "pass word 1", 12);
    printed = type("show\rhelp\r");
    CHECK(strstr(printed, "bench-7") != NULL);
    CHECK(strstr(printed, "stacks never used") != NULL);
    CHECK(strstr(printed, "pass word") == NULL);
    CHECK(!fake_idf_logged("pass word"));
}

static void a_server_that_cannot_be_had(void) {
    boot(false);
    refuse = true;
    measure(500000);
    run("serve", 30000000);
    CHECK_EQ(servers, 0);
    CHECK(m->report_us != 0); // shown and kept all the same
    refuse = false;
    run("serve", 11000000);
    CHECK_EQ(servers, 1);
}

int main(void) {
    RUN(tasks_have_their_places);
    RUN(the_first_start_makes_a_key);
    RUN(without_a_radio_there_is_no_key);
    RUN(the_sampling_task_samples);
    RUN(energy_comes_through);
    RUN(sensors_that_are_away);
    RUN(a_failing_supply_is_told_once);
    RUN(totals_are_saved);
    RUN(a_failing_supply_saves_at_once);
    RUN(restarts_are_in_order);
    RUN(totals_are_reset);
    RUN(images_on_trial);
    RUN(settings_by_the_console);
    RUN(a_server_that_cannot_be_had);
    return check_end();
}
