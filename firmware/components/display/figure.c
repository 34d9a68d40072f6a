// Numbers as they are shown: four or five figures, whatever the value, and a unit that fits it.

#include "figure.h"

#include <stdbool.h>

// A quantity and how it is shown.
struct quantity {
    const char *unit;
    const char *prefixes; // from the smallest on; a blank is none
    uint64_t scale;       // millionths in one of the smallest
    int digits;           // at most
    uint64_t whole;       // from this on the next prefix is used
    int decimals;         // at most, with the smallest prefix
};

static const struct quantity watts = {"W", " kMGT", 1000000, 4, 10000, 3};
static const struct quantity volts = {"V", " kMGT", 1000000, 4, 10000, 3};
static const struct quantity amperes = {"A", "m kMGT", 1000, 4, 10000, 1};
static const struct quantity watt_hours = {"Wh", "m kMGT", 1000, 5, 1000, 1};

// Rounds to the figures a quantity is shown with, half away from zero. The largest number there is has a prefix that fits.
static struct display_figure figure(const struct quantity *q, int64_t millionths) {
    struct display_figure result = {"", ""};
    char *digits = result.digits, *unit = result.unit;
    uint64_t magnitude = millionths < 0 ? 0 - (uint64_t)millionths : (uint64_t)millionths;
    uint64_t scale = q->scale, limit = 1, rounded = 0;
    const char *prefix = q->prefixes;
    int decimals = q->decimals;
    for (int i = 0; i < q->digits; i++) {
        limit *= 10;
    }
    for (;;) {
        uint64_t step = scale, whole = q->whole;
        for (int i = 0; i < decimals; i++) {
            step /= 10;
            whole *= 10;
        }
        rounded = magnitude / step + (magnitude % step >= step - step / 2);
        if (rounded < limit && rounded < whole) {
            break;
        }
        if (decimals > 0 && rounded < whole) {
            decimals--;
        } else {
            prefix++;
            scale *= 1000;
            decimals = q->digits - 1;
        }
    }
    bool negative = millionths < 0 && rounded;
    char reversed[12];
    int n = 0;
    for (int i = 0; i <= decimals || rounded; i++) {
        if (i == decimals && decimals) {
            reversed[n++] = '.';
        }
        reversed[n++] = (char)('0' + rounded % 10);
        rounded /= 10;
    }
    if (negative) {
        *digits++ = '-';
    }
    while (n) {
        *digits++ = reversed[--n];
    }
    *digits = 0;
    if (*prefix != ' ') {
        *unit++ = *prefix;
    }
    for (const char *p = q->unit; *p; p++) {
        *unit++ = *p;
    }
    *unit = 0;
    return result;
}

struct display_figure display_power(int64_t power_uw) {
    return figure(&watts, power_uw);
}

struct display_figure display_voltage(int64_t voltage_uv) {
    return figure(&volts, voltage_uv);
}

struct display_figure display_current(int64_t current_ua) {
    return figure(&amperes, current_ua);
}

struct display_figure display_energy(int64_t energy_uwh) {
    return figure(&watt_hours, energy_uwh);
}
