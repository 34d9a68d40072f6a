// The display: screens against pictures, numbers at their limits, texts that do not fit. UPDATE=1 in the environment writes the pictures anew.

#include "check.h"

#include <stdlib.h>

#include "../../components/display/figure.h"
#include "scenes.h"

static bool lit(const struct display_frame *f, int x, int y) {
    return f->page[y / 8][x] >> y % 8 & 1;
}

static bool column_lit(const struct display_frame *f, int x, int from, int to) {
    for (int y = from; y < to; y++) {
        if (lit(f, x, y)) {
            return true;
        }
    }
    return false;
}

static void print(FILE *to, const struct display_frame *f, const char *before, const char *after) {
    for (int y = 0; y < DISPLAY_HEIGHT; y++) {
        fputs(before, to);
        for (int x = 0; x < DISPLAY_WIDTH; x++) {
            fputc(lit(f, x, y) ? '#' : '.', to);
        }
        fprintf(to, "%s\n", after);
    }
}

static void test_pictures(void) {
    for (size_t i = 0; i < SCENES; i++) {
        const struct scene *s = &scenes[i];
        struct display_frame frame;
        memset(&frame, 0xff, sizeof frame);
        display_render(&frame, &s->view, s->screen);
        bool same = strlen(s->golden) == DISPLAY_WIDTH * DISPLAY_HEIGHT;
        for (int y = 0; same && y < DISPLAY_HEIGHT; y++) {
            for (int x = 0; x < DISPLAY_WIDTH; x++) {
                same = same && (s->golden[y * DISPLAY_WIDTH + x] == '#') == lit(&frame, x, y);
            }
        }
        check_case = s->name;
#ifdef GOLDEN_DIRECTORY
        const char *update = getenv("UPDATE");
        if (!same && update && *update == '1') {
            char path[400];
            snprintf(path, sizeof path, "%s/%s.txt", GOLDEN_DIRECTORY, s->name);
            FILE *out = fopen(path, "w");
            if (CHECK(out != NULL)) {
                print(out, &frame, "\"", "\"");
                CHECK(fclose(out) == 0);
                printf("wrote %s\n", path);
            }
            continue;
        }
#endif
        if (!CHECK(same && "is as its picture; UPDATE=1 writes it anew")) {
            print(stdout, &frame, "", "");
        }
    }
}

static void check_figure(struct display_figure f, const char *digits, const char *unit, int line) {
    check_strings(f.digits, digits, __FILE__, line, "digits");
    check_strings(f.unit, unit, __FILE__, line, "unit");
}
#define FIGURE(function, value, digits, unit) check_figure(display_##function(value), digits, unit, __LINE__)

static void test_figures(void) {
    FIGURE(power, 0, "0.000", "W");
    FIGURE(power, 499, "0.000", "W");
    FIGURE(power, 500, "0.001", "W");
    FIGURE(power, -499, "0.000", "W"); // no negative zero
    FIGURE(power, -500, "-0.001", "W");
    FIGURE(power, 5123456, "5.123", "W");
    FIGURE(power, 9999499, "9.999", "W");
    FIGURE(power, 9999500, "10.00", "W");
    FIGURE(power, 99994999, "99.99", "W");
    FIGURE(power, 99995000, "100.0", "W");
    FIGURE(power, 999949999, "999.9", "W");
    FIGURE(power, 999950000, "1000", "W");
    FIGURE(power, 9999499999, "9999", "W");
    FIGURE(power, 9999500000, "10.00", "kW");
    FIGURE(power, -9999500000, "-10.00", "kW");
    FIGURE(power, INT64_MAX, "9223", "GW");
    FIGURE(power, INT64_MIN, "-9223", "GW");
    FIGURE(voltage, 5080000, "5.080", "V");
    FIGURE(voltage, 26000000, "26.00", "V");
    FIGURE(voltage, -8000, "-0.008", "V");
    FIGURE(current, 0, "0.0", "mA");
    FIGURE(current, 49, "0.0", "mA");
    FIGURE(current, 50, "0.1", "mA");
    FIGURE(current, -400, "-0.4", "mA");
    FIGURE(current, -49, "0.0", "mA");
    FIGURE(current, 633400, "633.4", "mA");
    FIGURE(current, 999949, "999.9", "mA");
    FIGURE(current, 999950, "1000", "mA");
    FIGURE(current, 9999499, "9999", "mA");
    FIGURE(current, 9999500, "10.00", "A");
    FIGURE(current, INT64_MIN, "-9223", "GA");
    FIGURE(energy, 0, "0.0", "mWh");
    FIGURE(energy, 999949, "999.9", "mWh");
    FIGURE(energy, 999950, "1.0000", "Wh");
    FIGURE(energy, 12345678, "12.346", "Wh");
    FIGURE(energy, 999994999, "999.99", "Wh");
    FIGURE(energy, 999995000, "1.0000", "kWh");
    FIGURE(energy, -123456789012, "-123.46", "kWh");
    FIGURE(energy, INT64_MAX, "9.2234", "TWh");
    FIGURE(energy, INT64_MIN, "-9.2234", "TWh");
}

// xorshift64*; a test has the same numbers each time.
static uint64_t state = 0x9e3779b97f4a7c15;
static uint64_t next(void) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1d;
}

// A number of any size and sign.
static int64_t any(void) {
    uint64_t r = next();
    return (int64_t)r >> (next() % 64);
}

// Reads a figure back: within half a unit of its last digit.
static bool stands_for(const struct display_figure *f, const char *unit, int64_t millionths) {
    static const char prefixes[] = "m kMGT";
    size_t n = strlen(f->unit), m = strlen(unit);
    if (n < m || n > m + 1 || strcmp(f->unit + n - m, unit) != 0) {
        return false;
    }
    const char *prefix = strchr(prefixes, n == m ? ' ' : f->unit[0]);
    if (!prefix) {
        return false;
    }
    uint64_t scale = 1000, value = 0, magnitude = millionths < 0 ? 0 - (uint64_t)millionths : (uint64_t)millionths;
    for (const char *p = prefixes; p < prefix; p++) {
        scale *= 1000;
    }
    const char *p = f->digits;
    bool negative = *p == '-', point = false;
    p += negative;
    if (!*p || *p == '.') {
        return false;
    }
    for (; *p; p++) {
        if (*p == '.') {
            if (point || !p[1]) {
                return false;
            }
            point = true;
        } else if (*p >= '0' && *p <= '9') {
            value = value * 10 + (uint64_t)(*p - '0');
            scale /= point ? 10 : 1;
        } else {
            return false;
        }
    }
    if (negative && (millionths >= 0 || !value)) {
        return false;
    }
    uint64_t shown = value * scale, far = shown > magnitude ? shown - magnitude : magnitude - shown;
    return far <= scale / 2 && (!value || negative == (millionths < 0));
}

static void test_any_figure(void) {
    for (int i = 0; i < 20000; i++) {
        int64_t v = any();
        struct display_figure power = display_power(v), voltage = display_voltage(v), current = display_current(v), energy = display_energy(v);
        CHECK(stands_for(&power, "W", v));
        CHECK(stands_for(&voltage, "V", v));
        CHECK(stands_for(&current, "A", v));
        CHECK(stands_for(&energy, "Wh", v));
    }
}

// Numbers of any size leave room: for the sign of a bound at the left of power, and between those that share a line.
static void test_any_screen(void) {
    for (int i = 0; i < 2000; i++) {
        struct display_view view = {.channels = 1, .network = DISPLAY_ONLINE, .address = "10.0.0.5", .clock_known = true, .hour = 23, .minute = 58};
        struct display_channel *c = &view.channel[0];
        *c = (struct display_channel){.number = 6, .measured = true, .power_uw = any(), .voltage_uv = any(), .current_ua = any(), .energy_uj = any()};
        if (i < 8) {
            c->power_uw = i & 1 ? INT64_MIN : -99990000000;
            c->voltage_uv = i & 2 ? INT64_MIN : -99990000000;
            c->current_ua = i & 4 ? INT64_MIN : -99990000000;
            c->energy_uj = -99999LL * 1000000 * 3600;
        }
        for (int screen = 0; screen < 2; screen++) {
            struct display_frame frame;
            view.channel[0].saturated = false;
            display_render(&frame, &view, screen);
            for (int x = 0; x < 8; x++) {
                CHECK(!column_lit(&frame, x, 14, 38));
            }
            int dark = 0, most = 0;
            for (int x = 0; x < DISPLAY_WIDTH; x++) {
                dark = column_lit(&frame, x, 41, 51) ? 0 : dark + 1;
                most = dark > most ? dark : most;
            }
            CHECK(most >= 8);
            // The warning stands on the dark.
            c->saturated = true;
            struct display_frame warned;
            display_render(&warned, &view, screen);
            int lost = 0;
            for (int y = 0; y < DISPLAY_HEIGHT; y++) {
                for (int x = 0; x < DISPLAY_WIDTH; x++) {
                    lost += lit(&frame, x, y) && !lit(&warned, x, y);
                }
            }
            CHECK_EQ(lost, 0);
            CHECK(memcmp(&frame, &warned, sizeof frame) != 0);
        }
    }
}

// Whatever the bytes are, rendering stays within the frame and the view (the sanitizers say so), and ends.
static void test_any_view(void) {
    for (int i = 0; i < 3000; i++) {
        struct display_view view;
        memset(&view, 0, sizeof view);
        view.channels = (int)(next() % 16) - 2;
        for (int n = 0; n < METERING_MAX_CHANNELS; n++) {
            struct display_channel *c = &view.channel[n];
            c->number = (uint8_t)next();
            c->measured = next() & 1;
            c->saturated = next() & 1;
            c->power_uw = any();
            c->voltage_uv = any();
            c->current_ua = any();
            c->energy_uj = any();
            for (size_t k = 0; k < sizeof c->name; k++) {
                c->name[k] = (char)next(); // often without a zero
            }
        }
        view.network = (enum display_network)(next() % 6);
        for (size_t k = 0; k < sizeof view.address; k++) {
            view.address[k] = (char)next();
        }
        for (size_t k = 0; i % 2 && k < sizeof view.message; k++) {
            view.message[k] = i % 3 ? (char)next() : " \na\xc3\xa4"[next() % 5];
        }
        view.clock_known = next() & 1;
        view.hour = (uint8_t)next();
        view.minute = (uint8_t)next();
        struct display_frame a, b;
        memset(&a, 0, sizeof a);
        memset(&b, 0xff, sizeof b);
        int screen = (int)(next() % 16) - 2;
        display_render(&a, &view, screen);
        display_render(&b, &view, screen);
        CHECK_MEM(&a, &b, sizeof a); // what was in the frame does not matter
    }
}

static void test_screens(void) {
    CHECK_EQ(display_screen(6, 0), 0);
    CHECK_EQ(display_screen(6, 999), 0);
    CHECK_EQ(display_screen(6, 1000), 1);
    CHECK_EQ(display_screen(6, 5999), 5);
    CHECK_EQ(display_screen(6, 6000), 6);
    CHECK_EQ(display_screen(6, 6999), 6);
    CHECK_EQ(display_screen(6, 7000), 0);
    CHECK_EQ(display_screen(1, 1000), 1);
    CHECK_EQ(display_screen(0, 1000), 0);
    CHECK_EQ(display_screen(-1, 1000), 0);
    CHECK_EQ(display_screen(12, UINT64_MAX), 18446744073709551u % 13);
}

// A screen that is not there is the sum; more channels than there can be are not looked at.
static void test_limits(void) {
    struct display_view view = {.channels = 2, .channel = CLUSTER};
    struct display_frame sum, other;
    display_render(&sum, &view, 2);
    display_render(&other, &view, 3);
    CHECK_MEM(&sum, &other, sizeof sum);
    display_render(&other, &view, -1);
    CHECK_MEM(&sum, &other, sizeof sum);
    display_render(&other, &view, 1);
    CHECK(memcmp(&sum, &other, sizeof sum) != 0);

    view.channels = METERING_MAX_CHANNELS;
    display_render(&sum, &view, METERING_MAX_CHANNELS);
    view.channels = 1000;
    display_render(&other, &view, 999);
    CHECK_MEM(&sum, &other, sizeof sum);
}

// The sum of extremes is an extreme, not its opposite.
static void test_sum_saturates(void) {
    struct display_view view = {.channels = 2, .channel = {{.measured = true, .power_uw = INT64_MAX}, {.measured = true, .power_uw = INT64_MAX}}};
    struct display_frame two, one;
    display_render(&two, &view, 2);
    view.channel[0].power_uw = 0;
    display_render(&one, &view, 2);
    CHECK_MEM(&one, &two, sizeof one);
    view.channel[0].power_uw = view.channel[1].power_uw = INT64_MIN;
    display_render(&two, &view, 2);
    view.channel[0].power_uw = 0;
    display_render(&one, &view, 2);
    CHECK_MEM(&one, &two, sizeof one);
    // What is not measured counts in energy, not in power.
    view = (struct display_view){.channels = 2, .channel = {{.measured = true, .power_uw = 5000000, .energy_uj = 1800000}, {.power_uw = 7000000, .energy_uj = 1800000}}};
    display_render(&two, &view, 2);
    view.channel[1] = (struct display_channel){.power_uw = 0};
    view.channel[0].energy_uj = 3600000;
    display_render(&one, &view, 2);
    CHECK_MEM(&one, &two, sizeof one);
}

int main(void) {
    test_pictures();
    check_case = "";
    RUN(test_figures);
    RUN(test_any_figure);
    RUN(test_any_screen);
    RUN(test_any_view);
    RUN(test_screens);
    RUN(test_limits);
    RUN(test_sum_saturates);
    return check_end();
}
