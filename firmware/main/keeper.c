// What outlives a restart: totals into RTC memory with each report, into the flash now and then; restarts in order; images on trial.
#include "esp_log.h"
#include "meter.h"
#include "sdkconfig.h"

static const char *const tag = "keeper";

#define SECOND_US 1000000ull
// A supply that hovers at its limit must not wear out the flash: one extra save a minute at the most is 1,440 a day beside 8,640.
#define EXTRA_EVERY_US (60 * SECOND_US)

void keeper_report(void *argument, const struct telemetry_interval *r) {
    struct meter *m = argument;
    int channels = r->channels < SETTINGS_CHANNELS ? r->channels : SETTINGS_CHANNELS;
    xSemaphoreTake(m->lock, portMAX_DELAY);
    for (int i = 0; i < channels; i++) {
        struct meter_channel *c = &m->channel[i];
        const struct metering_totals *now = &r->channel[i].totals;
        c->measured = (now->unmeasured_us - c->last.totals.unmeasured_us) * 2 < r->interval_us;
        if (now->saturated != c->last.totals.saturated) {
            c->saturated_us = r->t_us;
        }
        c->last = r->channel[i];
        m->totals.channel[i].energy_uj = m->earlier.channel[i].energy_uj + now->energy_uj;
        m->totals.channel[i].charge_uc = m->earlier.channel[i].charge_uc + now->charge_uc;
    }
    m->report_us = r->t_us;
    if (!m->frozen) {
        board_totals_remember(&m->totals);
    }
    xSemaphoreGive(m->lock);
}

static void save(struct meter *m) {
    xSemaphoreTake(m->lock, portMAX_DELAY);
    struct settings_totals totals = m->totals;
    bool any = m->report_us != 0;
    xSemaphoreGive(m->lock);
    if (any) {
        board_totals_save(&totals);
    }
}

static _Noreturn void restart(struct meter *m, bool reset_totals) {
    m->leaving = true;
    for (int i = 0; i < 200 && !m->left; i++) { // 2 s: a server that hangs does not keep the meter from restarting
        board_alive();
        vTaskDelay(pdMS_TO_TICKS(10));
    }
    xSemaphoreTake(m->lock, portMAX_DELAY);
    m->frozen = true;
    if (reset_totals) {
        // Both records of both stores, so that none with the old totals is left.
        m->totals = (struct settings_totals){.sequence = m->totals.sequence};
        board_totals_remember(&m->totals);
        board_totals_remember(&m->totals);
        board_totals_save(&m->totals);
    }
    struct settings_totals totals = m->totals;
    xSemaphoreGive(m->lock);
    board_totals_save(&totals);
    board_restart();
}

// A new image is good if it does what the meter is for: sensors are read, reports come, and it is on the network if it was told one.
static bool good(struct meter *m, uint64_t now) {
    bool measured = false;
    xSemaphoreTake(m->lock, portMAX_DELAY);
    for (int i = 0; i < SETTINGS_CHANNELS; i++) {
        measured = measured || m->channel[i].measured;
    }
    measured = measured && m->report_us != 0 && now < m->report_us + 10 * SECOND_US;
    xSemaphoreGive(m->lock);
    return measured && m->server != NULL && (m->settings.ssid[0] == 0 || network_state(&m->network) == NETWORK_ONLINE);
}

void keeper_task(void *argument) {
    struct meter *m = argument;
    uint64_t saved_us = 0, extra_us = 0, bad_us = board_now_us(NULL);
    bool trial = board_image_on_trial();
    if (trial) {
        ESP_LOGW(tag, "this image is on trial for %d minutes", CONFIG_METER_TRIAL_MINUTES);
    }
    board_watch();
    for (;;) {
        uint32_t requests = 0;
        xTaskNotifyWait(0, UINT32_MAX, &requests, pdMS_TO_TICKS(1000));
        board_alive();
        uint64_t now = board_now_us(NULL);
        if (requests & (METER_RESTART | METER_RESET_TOTALS)) {
            restart(m, requests & METER_RESET_TOTALS);
        }
        bool extra = (requests & METER_SUPPLY_FAILS) && (extra_us == 0 || now - extra_us >= EXTRA_EVERY_US);
        if (extra) {
            extra_us = now;
        }
        if (extra || now - saved_us >= CONFIG_METER_TOTALS_EVERY_S * SECOND_US) {
            saved_us = now;
            save(m);
        }
        if (trial && !good(m, now)) {
            bad_us = now;
        }
        if (trial && now - bad_us >= CONFIG_METER_TRIAL_MINUTES * 60 * SECOND_US) {
            trial = false;
            board_image_confirm();
        }
    }
}
