// What the display shows: the last report, a second per channel; the new key, once.
#include <stdio.h>
#include <string.h>

#include "meter.h"

#define SECOND_US 1000000ull
#define KEY_SHOWN_US (300 * SECOND_US)

static void look(struct meter *m, struct display_view *v, uint64_t now) {
    v->channels = m->identity.channels;
    xSemaphoreTake(m->lock, portMAX_DELAY);
    // A report that is old is not shown as if it were of now. It may be a little newer than now, which was taken before the lock.
    bool fresh = m->report_us != 0 && now < m->report_us + 2 * SECOND_US + 2 * m->sampling.report_interval_us;
    for (int i = 0; i < v->channels; i++) {
        const struct meter_channel *c = &m->channel[i];
        struct display_channel *d = &v->channel[i];
        d->number = m->identity.channel[i].number;
        memcpy(d->name, m->identity.channel[i].name, sizeof d->name);
        d->measured = fresh && c->measured;
        d->saturated = c->saturated_us != 0 && now < c->saturated_us + 10 * SECOND_US;
        d->power_uw = c->last.interval.power_uw;
        d->voltage_uv = c->last.interval.voltage_uv;
        d->current_ua = c->last.interval.current_ua;
        d->energy_uj = m->totals.channel[i].energy_uj;
    }
    xSemaphoreGive(m->lock);

    switch (network_state(&m->network)) {
    case NETWORK_OFF: v->network = DISPLAY_OFFLINE; break;
    case NETWORK_CONNECTING: v->network = DISPLAY_CONNECTING; break;
    case NETWORK_ONLINE: v->network = m->observers != 0 ? DISPLAY_OBSERVED : DISPLAY_ONLINE; break;
    }
    network_address(&m->network, v->address);
    v->clock_known = network_clock(&v->hour, &v->minute);

    v->message[0] = 0;
    if (m->new_key[0] != 0 && now < KEY_SHOWN_US) {
        snprintf(v->message, sizeof v->message, "new key\n%.55s", m->new_key);
    } else {
        memset(m->new_key, 0, sizeof m->new_key);
    }
}

void display_task(void *argument) {
    struct meter *m = argument;
    static struct display_view view;
    static struct display_frame frame, shown;
    bool on = false;
    board_oled_open();
    for (;;) {
        uint64_t now = board_now_us(NULL);
        look(m, &view, now);
        display_render(&frame, &view, display_screen(view.channels, now / 1000));
        if (!on || memcmp(&frame, &shown, sizeof frame) != 0) {
            shown = frame;
            on = board_oled_show(&shown);
        }
        vTaskDelay(pdMS_TO_TICKS(200));
    }
}
