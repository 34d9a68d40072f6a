// The serial console: lines in, settings changed. They are used from the next start on, once they are saved.
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "esp_system.h"
#include "meter.h"

static void say(const char *text) {
    board_console_write(text, strlen(text));
}

__attribute__((format(printf, 1, 2))) static void sayf(const char *format, ...) {
    char text[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    say(text);
}

static void say_key(const struct settings *s) {
    sayf("psk set %s %.*s\r\n", s->identity, (int)s->key_length, (const char *)s->key);
}

static void status(struct meter *m) {
    char address[46];
    network_address(&m->network, address);
    const struct sampler_counts *c = &m->sampler.counts; // of another core: a figure may be half old, which does for people
    sayf("# meter %s, firmware %s, start by %s, boot %08" PRIx32 "\r\n", m->identity.serial, m->identity.firmware_version, board_start_reason(),
         m->identity.boot_id);
    sayf("# address %s, %u observers\r\n", address[0] != 0 ? address : "none", (unsigned)m->observers);
    sayf("# sweeps %" PRIu64 ", late %" PRIu64 ", transfers failed %" PRIu64 ", retried %" PRIu64 ", bus resets %" PRIu64 "\r\n", c->sweeps, c->late,
         c->failed, c->retried, m->bus.resets);
    sayf("# memory free %" PRIu32 ", at the least %" PRIu32 "\r\n", esp_get_free_heap_size(), esp_get_minimum_free_heap_size());
    sayf("# stacks never used: sample %u, serve %u, keep %u, console %u, display %u\r\n", (unsigned)uxTaskGetStackHighWaterMark(m->sample),
         (unsigned)uxTaskGetStackHighWaterMark(m->serve), (unsigned)uxTaskGetStackHighWaterMark(m->keep),
         (unsigned)uxTaskGetStackHighWaterMark(m->console), (unsigned)uxTaskGetStackHighWaterMark(m->display));
}

static void carry_out(struct meter *m, struct settings *s, const struct board_line *line) {
    static char text[SETTINGS_SHOWN];
    char error[160] = "";
    enum settings_request request = settings_line(s, line->text, line->length, error, sizeof error);
    switch (request) {
    case SETTINGS_NOTHING:
        break;
    case SETTINGS_CHANGED:
        say("ok; save keeps it, reboot uses it\r\n");
        break;
    case SETTINGS_ERROR:
        sayf("error: %s\r\n", error);
        break;
    case SETTINGS_SHOW:
    case SETTINGS_SHOW_SECRETS:
        board_console_write(text, settings_show(s, request == SETTINGS_SHOW_SECRETS, text, sizeof text));
        memset(text, 0, sizeof text);
        status(m);
        break;
    case SETTINGS_SAVE:
        say(board_settings_save(s) ? "saved; reboot uses it\r\n" : "error: the flash did not take it\r\n");
        break;
    case SETTINGS_NEW_KEY:
        if (meter_new_key(m, s)) {
            say("shown once, write it down; save keeps it, reboot uses it\r\n");
            say_key(s);
        } else {
            say("error: no radio, so no randomness; make one with wattctl meter provision and type it in\r\n");
        }
        break;
    case SETTINGS_RESET_TOTALS:
        say("totals begin anew\r\n");
        xTaskNotify(m->keep, METER_RESET_TOTALS, eSetBits);
        break;
    case SETTINGS_REBOOT:
        xTaskNotify(m->keep, METER_RESTART, eSetBits);
        break;
    case SETTINGS_HELP:
        say(settings_help());
        break;
    }
}

void console_task(void *argument) {
    struct meter *m = argument;
    static struct settings changed;
    static struct board_line line;
    changed = m->settings;
    if (!board_console_open()) {
        vTaskDelete(NULL);
    }
    if (m->new_key[0] != 0) {
        sayf("A new key was made and saved. It is shown once:\r\n");
        say_key(&m->settings);
    }
    say("> ");
    for (;;) {
        uint8_t bytes[32];
        size_t n = board_console_read(bytes, sizeof bytes, 1000);
        for (size_t i = 0; i < n; i++) {
            char echo[9];
            enum board_line_result result = board_line_type(&line, bytes[i], echo);
            say(echo);
            if (result == BOARD_LINE_MORE) {
                continue;
            }
            if (result == BOARD_LINE_TOO_LONG) {
                sayf("error: a line has at most %d bytes\r\n", SETTINGS_LINE);
            } else {
                carry_out(m, &changed, &line);
            }
            board_line_clear(&line);
            say("> ");
        }
    }
}
