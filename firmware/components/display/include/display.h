// The meter's display, 128 x 64 pixels (SSD1306): one channel at a time for a second each, then the sum. Rendered into a frame buffer.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "metering.h"

#define DISPLAY_WIDTH 128
#define DISPLAY_HEIGHT 64
#define DISPLAY_BYTES (DISPLAY_WIDTH * DISPLAY_HEIGHT / 8)

enum display_network { DISPLAY_OFFLINE, DISPLAY_CONNECTING, DISPLAY_ONLINE, DISPLAY_OBSERVED };

struct display_channel {
    uint8_t number;
    char name[32]; // UTF-8
    bool measured;  // false: its sensor does not answer
    bool saturated; // lately
    int64_t power_uw, voltage_uv, current_ua, energy_uj;
};

struct display_view {
    int channels;
    struct display_channel channel[METERING_MAX_CHANNELS];
    enum display_network network;
    char address[46];   // of the meter, as text
    char message[64];   // shown instead of figures while it is not empty: a key to write down, what is missing; \n begins a line
    bool clock_known;
    uint8_t hour, minute; // UTC
};

// A frame as the SSD1306 takes it: 8 pages of 128 columns, bit 0 at the top.
struct display_frame { uint8_t page[DISPLAY_HEIGHT / 8][DISPLAY_WIDTH]; };

// Which screen is due so many ms after the start: 0 to channels - 1, then channels, the sum. 0 if there are none.
int display_screen(int channels, uint64_t ms);
void display_render(struct display_frame *frame, const struct display_view *view, int screen);
