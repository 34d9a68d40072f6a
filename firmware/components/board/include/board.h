// The meter's circuit board: an ESP32 with two INA3221 and an SSD1306. One of the two components that know ESP-IDF; pins and addresses are
// in its Kconfig.
//
// Nothing here aborts. What fails says so by its result, once in the log if nobody can act on it, and is tried again by whoever needs it.
// A peripheral belongs to the task that opens it: its interrupt is taken by the core that task runs on.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "display.h"
#include "ina3221.h"
#include "settings.h"

// ---- Time

// Microseconds since the start, 64 bits, monotonic; the argument serves as a context and is not used.
uint64_t board_now_us(void *context);

// A periodic tick that wakes one task, at multiples of the period on the meter's clock. Its fields are the board's.
struct board_tick {
    void *timer, *task;
};
// Starts a tick for the calling task.
bool board_tick_start(struct board_tick *t, uint32_t period_us);
// In the same task: waits until the clock shows until_us, a multiple of the period. Returns at once if that is past.
void board_tick_wait(uint64_t until_us);

// ---- The sensors' bus

#define BOARD_BUS_DEVICES 4   // addresses of an INA3221: 0x40 to 0x43
#define BOARD_BUS_RESET_AFTER 8        // errors in a row
#define BOARD_BUS_RESET_EVERY_US 100000 // at most

struct board_bus {
    void *bus, *device[BOARD_BUS_DEVICES];
    uint32_t row;      // errors since the last transfer that went well, or the last reset
    uint64_t reset_us; // when the bus was reset last
    uint64_t errors, resets;
};
// Opens controller 0 for chips at these addresses.
bool board_bus_open(struct board_bus *b, const uint8_t *address, int n);
// What the driver of the chips needs. A transfer takes at most 3 ms.
struct ina3221_bus board_bus_table(struct board_bus *b);

// ---- The display

// Opens controller 1. It is good for the display to be missing: board_oled_show looks for it every 10 s.
bool board_oled_open(void);
// Shows a frame; takes 23 ms. Returns whether it is on the display.
bool board_oled_show(const struct display_frame *frame);

// ---- What is kept

// Opens both stores in the flash. False if one cannot be read; what is kept in it counts as missing then.
bool board_store_open(void);
// False if nothing was kept, or nothing that is whole; s is as before then.
bool board_settings_load(struct settings *s);
bool board_settings_save(const struct settings *s);

// Totals are kept twice: in RTC memory, which outlives every reset but loss of power, with each report, and in the flash, at most every 10 s.
// Both have two records by turns, so that a reset in the midst of writing one leaves the other.
//
// The newest whole record of the four. False if there is none; t is zero then.
bool board_totals_load(struct settings_totals *t);
// Into RTC memory; costs no wear and a few us. Takes the next sequence number.
void board_totals_remember(struct settings_totals *t);
// Into the flash. Both cores stand still while the flash is written, for tens of ms when a sector is erased.
bool board_totals_save(const struct settings_totals *t);

// ---- The console

bool board_console_open(void);
// Waits up to ms for bytes; returns how many came.
size_t board_console_read(uint8_t *bytes, size_t n, uint32_t ms);
void board_console_write(const char *text, size_t n);

// A line being typed: printable bytes, backspace, Ctrl-U clears, Ctrl-C drops it. What follows
// "key", "wifi NAME" and "psk set NAME" is echoed as stars.
struct board_line {
    char text[SETTINGS_LINE + 1];
    size_t length;
    bool too_long; // more was typed than fits
    bool cr;       // the last byte was a carriage return, so that a line feed after it ends no second line
    bool escape;   // within what an arrow key sends
};
enum board_line_result { BOARD_LINE_MORE, BOARD_LINE_DONE, BOARD_LINE_TOO_LONG };
// Takes one byte, and writes up to 8 bytes of echo and a zero. On DONE and TOO_LONG the line is complete; board_line_clear starts the next.
enum board_line_result board_line_type(struct board_line *l, uint8_t byte, char echo[9]);
// Forgets the line and overwrites it: it may have been a key.
void board_line_clear(struct board_line *l);

// ---- The chip

// The MAC address from the factory, as text: unique, the same for ever.
void board_serial(char serial[18]);
const char *board_firmware_version(void);
// Why the chip started: "power-on", "brown-out", "watchdog", ...
const char *board_start_reason(void);
// Random bytes for a key. They are random only while the radio runs.
void board_random(void *bytes, size_t n);
// A random number other than zero, mixed with what differs between devices and starts in case the radio does not run.
uint32_t board_boot_id(void);
// Has the calling task watched: if it does not call board_alive for the watchdog's time (5 s), the chip restarts.
void board_watch(void);
void board_alive(void);
// Whether this image was started for the first time from a slot that another was before, and would be rolled back at the next start.
bool board_image_on_trial(void);
void board_image_confirm(void);
_Noreturn void board_restart(void);
