// Screens. A modern 128 x 64 module is 22 mm wide: what is read from across a room is power, in figures 24 pixels high; the rest is read
// from near. Nothing is lit on all screens at the same place but the frame of the number, since these displays burn in.

#include "display.h"

#include <stddef.h>
#include <string.h>

#include "figure.h"
#include "font.h"

// Glyphs of small_font behind ASCII.
enum glyph { GLYPH_FIRST = ' ', GLYPH_MICRO = 127, GLYPH_OHM, GLYPH_SIGMA, GLYPH_BOX, GLYPH_DOTS };
// Figures beside 0 to 9.
enum { FIGURE_MINUS = 10, FIGURE_POINT, FIGURE_COLON, FIGURE_LESS = FIGURE_COLON };

#define SMALL_HEIGHT 7
#define HEADER_HEIGHT 11

// ---- pixels

static void dot(struct display_frame *frame, int x, int y) {
    if (x >= 0 && x < DISPLAY_WIDTH && y >= 0 && y < DISPLAY_HEIGHT) {
        frame->page[y / 8][x] = (uint8_t)(frame->page[y / 8][x] | 1u << y % 8);
    }
}

static void invert(struct display_frame *frame, int x, int y, int width, int height) {
    for (int j = y; j < y + height; j++) {
        for (int i = x; i < x + width; i++) {
            if (i >= 0 && i < DISPLAY_WIDTH && j >= 0 && j < DISPLAY_HEIGHT) {
                frame->page[j / 8][i] = (uint8_t)(frame->page[j / 8][i] ^ 1u << j % 8);
            }
        }
    }
}

// Lights the space around what was drawn within, with its corners rounded.
static void label(struct display_frame *frame, int x, int y, int width, int height) {
    invert(frame, x + 1, y, width - 2, 1);
    invert(frame, x, y + 1, width, height - 2);
    invert(frame, x + 1, y + height - 1, width - 2, 1);
}

// ---- text

// Length of a text in an array, which may lack its zero.
static size_t length(const char *text, size_t size) {
    const char *end = memchr(text, 0, size);
    return end ? (size_t)(end - text) : size;
}

// Takes one character of UTF-8 off [*p, end) and returns its glyph; a byte that is not UTF-8 counts as a character.
static int next_glyph(const char **p, const char *end) {
    // What the letters of Latin-1 from U+00C0 on look like without their marks.
    static const char plain[] = "AAAAAAACEEEEIIIIDNOOOOOxOUUUUYPsaaaaaaaceeeeiiiidnooooo/ouuuuypy";
    const uint8_t *b = (const uint8_t *)*p;
    size_t left = (size_t)(end - *p);
    uint32_t c = b[0];
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (n > 1) {
        c &= 0x7fu >> n;
    }
    for (size_t i = 1; i < n; i++) {
        if (i >= left || (b[i] & 0xc0) != 0x80) {
            n = 0;
        } else {
            c = c << 6 | (b[i] & 0x3fu);
        }
    }
    *p += n ? n : 1;
    if (n == 1 && c >= ' ' && c < 127) {
        return (int)c;
    }
    if (n == 2 && c >= 0xc0 && c <= 0xff) {
        return plain[c - 0xc0];
    }
    switch (n ? c : 0) {
    case 0xb5: case 0x3bc: return GLYPH_MICRO;
    case 0x2126: case 0x3a9: return GLYPH_OHM;
    case 0x3a3: return GLYPH_SIGMA;
    case 0x2026: return GLYPH_DOTS;
    default: return GLYPH_BOX;
    }
}

static const uint8_t *small_columns(int glyph) {
    return small_font[glyph - GLYPH_FIRST];
}

// Widths are those of the letters, figures have one width.
static int small_width(int glyph) {
    const uint8_t *columns = small_columns(glyph);
    int width = 5;
    while (width > 0 && !columns[width - 1]) {
        width--;
    }
    return width ? width : 2;
}

static bool small_lit(int glyph, int x, int y) {
    return x >= 0 && x < 5 && y >= 0 && y < 8 && (small_columns(glyph)[x] >> y & 1);
}

// Draws a glyph in single or double size. Doubled, a corner of a pixel is lit or cleared where the two pixels beside it agree and go on
// diagonally, so that slants become slants instead of stairs.
static void small_draw(struct display_frame *frame, int x, int y, int glyph, int scale) {
    for (int j = 0; j < 8; j++) {
        for (int i = 0; i < 5; i++) {
            bool lit = small_lit(glyph, i, j);
            if (scale == 1) {
                if (lit) {
                    dot(frame, x + i, y + j);
                }
                continue;
            }
            bool up = small_lit(glyph, i, j - 1), down = small_lit(glyph, i, j + 1);
            bool left = small_lit(glyph, i - 1, j), right = small_lit(glyph, i + 1, j);
            bool corner[2][2] = {
                {left == up && left != down && up != right ? up : lit, up == right && up != left && right != down ? right : lit},
                {down == left && down != right && left != up ? left : lit, right == down && right != up && down != left ? down : lit},
            };
            for (int k = 0; k < 4; k++) {
                if (corner[k / 2][k % 2]) {
                    dot(frame, x + 2 * i + k % 2, y + 2 * j + k / 2);
                }
            }
        }
    }
}

static int text_width(const char *text, size_t n, int scale) {
    int width = 0;
    for (const char *p = text; p < text + n;) {
        width += (small_width(next_glyph(&p, text + n)) + 1) * scale;
    }
    return width ? width - scale : 0;
}

static void text_draw(struct display_frame *frame, int x, int y, const char *text, size_t n, int scale) {
    for (const char *p = text; p < text + n;) {
        int glyph = next_glyph(&p, text + n);
        small_draw(frame, x, y, glyph, scale);
        x += (small_width(glyph) + 1) * scale;
    }
}

// Draws what fits, and three dots for the rest.
static void text_within(struct display_frame *frame, int x, int y, int width, const char *text, size_t n) {
    if (text_width(text, n, 1) <= width) {
        text_draw(frame, x, y, text, n, 1);
        return;
    }
    width -= small_width(GLYPH_DOTS) + 1;
    for (const char *p = text; p < text + n;) {
        int glyph = next_glyph(&p, text + n), w = small_width(glyph);
        if (w > width) {
            break;
        }
        small_draw(frame, x, y, glyph, 1);
        x += w + 1;
        width -= w + 1;
    }
    small_draw(frame, x, y, GLYPH_DOTS, 1);
}

static void centered(struct display_frame *frame, int y, const char *text, int scale) {
    size_t n = strlen(text);
    text_draw(frame, (DISPLAY_WIDTH - text_width(text, n, scale)) / 2, y, text, n, scale);
}

// ---- figures

static int figure_index(char c) {
    switch (c) {
    case '-': return FIGURE_MINUS;
    case '.': return FIGURE_POINT;
    case ':': return FIGURE_COLON;
    case '<': return FIGURE_LESS;
    default: return c - '0';
    }
}

static uint32_t figure_column(char c, bool large, int x) {
    return large ? large_font[figure_index(c)][x] : medium_font[figure_index(c)][x];
}

// Figures are all of one width, so that a number does not dance; signs are as wide as they are.
static int figure_width(char c, bool large) {
    int width = large ? LARGE_WIDTH : MEDIUM_WIDTH;
    while (figure_index(c) >= FIGURE_MINUS && !figure_column(c, large, width - 1)) {
        width--;
    }
    return width;
}

static int figures_width(const char *digits, bool large) {
    int width = 0, gap = large ? 2 : 1;
    for (const char *p = digits; *p; p++) {
        width += figure_width(*p, large) + gap;
    }
    return width ? width - gap : 0;
}

static void figures_draw(struct display_frame *frame, int x, int y, const char *digits, bool large) {
    for (const char *p = digits; *p; p++) {
        int width = figure_width(*p, large);
        for (int i = 0; i < width; i++, x++) {
            for (int j = 0; j < (large ? LARGE_HEIGHT : MEDIUM_HEIGHT); j++) {
                if (figure_column(*p, large, i) >> j & 1) {
                    dot(frame, x, y + j);
                }
            }
        }
        x += large ? 2 : 1;
    }
}

// A number of middle size with a small unit on its line, its left edge at x or its right one.
static int medium_width(const struct display_figure *f) {
    return figures_width(f->digits, false) + 3 + text_width(f->unit, strlen(f->unit), 1);
}

static void medium_draw(struct display_frame *frame, int x, int y, const struct display_figure *f) {
    figures_draw(frame, x, y, f->digits, false);
    text_draw(frame, x + figures_width(f->digits, false) + 3, y + MEDIUM_HEIGHT - SMALL_HEIGHT, f->unit, strlen(f->unit), 1);
}

static void medium_right(struct display_frame *frame, int y, const struct display_figure *f) {
    medium_draw(frame, DISPLAY_WIDTH - medium_width(f), y, f);
}

// Power, large, at the right edge. Saturated, it is a bound: there is more of it than could be measured, on its side of zero.
static void power_draw(struct display_frame *frame, int y, int64_t power_uw, bool saturated) {
    struct display_figure f = display_power(power_uw);
    size_t n = strlen(f.unit);
    int unit = text_width(f.unit, n, 2), digits = figures_width(f.digits, true);
    int x = DISPLAY_WIDTH - unit - 5 - digits;
    text_draw(frame, DISPLAY_WIDTH - unit, y + LARGE_HEIGHT - 2 * SMALL_HEIGHT, f.unit, n, 2);
    figures_draw(frame, x, y, f.digits, true);
    if (saturated) {
        int width = figure_width('<', true);
        for (int i = 0; i < width; i++) {
            for (int j = 0; j < LARGE_HEIGHT; j++) {
                if (large_font[FIGURE_LESS][power_uw < 0 ? i : width - 1 - i] >> j & 1) {
                    dot(frame, i, y + j);
                }
            }
        }
    }
}

// ---- parts of screens

// Rows of pictures, the left pixel in bit 12: a cross under a wave, three dots, waves; an arrow beside them tells of readers.
#define ICON_WIDTH 13
static const uint16_t icons[][9] = {
    [DISPLAY_OFFLINE] = {0x03f8, 0x0c06, 0x1001, 0x0110, 0x00a0, 0x0040, 0x00a0, 0x0110, 0x0000},
    [DISPLAY_CONNECTING] = {0x0000, 0x0000, 0x0000, 0x0000, 0x0000, 0x0000, 0x0000, 0x18e3, 0x18e3},
    [DISPLAY_ONLINE] = {0x03f8, 0x0c06, 0x1001, 0x01f0, 0x0208, 0x0000, 0x0000, 0x00e0, 0x00e0},
    [DISPLAY_OBSERVED] = {0x03f8, 0x0c06, 0x1001, 0x01f0, 0x0208, 0x0000, 0x0000, 0x00e0, 0x00e0},
};
static const uint8_t arrow[] = {0x04, 0x0e, 0x1f, 0x04, 0x04, 0x04, 0x04}; // 5 wide

// A number or sign on a lit field, a name, and the network at the right.
static void header(struct display_frame *frame, const struct display_view *view, const char *badge, const char *name, size_t name_length) {
    size_t n = strlen(badge);
    int width = text_width(badge, n, 1), field = width + 6 > HEADER_HEIGHT ? width + 6 : HEADER_HEIGHT;
    text_draw(frame, (field - width) / 2, 2, badge, n, 1);
    label(frame, 0, 0, field, HEADER_HEIGHT);

    int right = DISPLAY_WIDTH - ICON_WIDTH;
    unsigned network = (unsigned)view->network <= DISPLAY_OBSERVED ? (unsigned)view->network : DISPLAY_OFFLINE;
    for (int j = 0; j < 9; j++) {
        for (int i = 0; i < ICON_WIDTH; i++) {
            if (icons[network][j] >> (ICON_WIDTH - 1 - i) & 1) {
                dot(frame, right + i, 1 + j);
            }
        }
    }
    if (network == DISPLAY_OBSERVED) {
        right -= 7;
        for (int j = 0; j < 7; j++) {
            for (int i = 0; i < 5; i++) {
                if (arrow[j] >> (4 - i) & 1) {
                    dot(frame, right + i, 2 + j);
                }
            }
        }
    }
    text_within(frame, field + 4, 2, right - 4 - (field + 4), name, name_length);
}

// Digits of a number up to 255.
static void decimal(char text[4], unsigned n) {
    if (n >= 100) {
        *text++ = (char)('0' + n / 100 % 10);
    }
    if (n >= 10) {
        *text++ = (char)('0' + n / 10 % 10);
    }
    *text++ = (char)('0' + n % 10);
    *text = 0;
}

static int64_t micro_watt_hours(int64_t energy_uj) {
    return energy_uj / 3600;
}

static int64_t add(int64_t a, int64_t b) {
    if (b > 0 ? a > INT64_MAX - b : a < INT64_MIN - b) {
        return b > 0 ? INT64_MAX : INT64_MIN;
    }
    return a + b;
}

static void channel_screen(struct display_frame *frame, const struct display_view *view, const struct display_channel *c) {
    char number[4];
    decimal(number, c->number);
    header(frame, view, number, c->name, length(c->name, sizeof c->name));
    struct display_figure energy = display_energy(micro_watt_hours(c->energy_uj));
    medium_draw(frame, 0, 54, &energy);
    if (!c->measured) {
        centered(frame, 22, "no sensor", 2);
        return;
    }
    power_draw(frame, 14, c->power_uw, c->saturated);
    struct display_figure voltage = display_voltage(c->voltage_uv), current = display_current(c->current_ua);
    medium_draw(frame, 0, 41, &voltage);
    medium_right(frame, 41, &current);
    if (c->saturated) {
        static const char text[] = "saturated";
        int width = text_width(text, sizeof text - 1, 1);
        text_draw(frame, DISPLAY_WIDTH - width - 2, 55, text, sizeof text - 1, 1);
        label(frame, DISPLAY_WIDTH - width - 4, 53, width + 4, HEADER_HEIGHT);
    }
}

// Where to break an address that is too long for a line: behind the last separator with which the first line still fits.
static size_t address_break(const char *address, size_t n) {
    size_t at = n;
    for (size_t i = 1; i < n; i++) {
        if (text_width(address, i, 1) > DISPLAY_WIDTH) {
            return at < n ? at : i - 1;
        }
        if (address[i - 1] == ':' || address[i - 1] == '.') {
            at = i;
        }
    }
    return at;
}

static void sum_screen(struct display_frame *frame, const struct display_view *view, int channels) {
    int measured = 0;
    bool saturated = false;
    int64_t power_uw = 0, energy_uwh = 0;
    for (int i = 0; i < channels; i++) {
        const struct display_channel *c = &view->channel[i];
        energy_uwh = add(energy_uwh, micro_watt_hours(c->energy_uj));
        if (c->measured) {
            measured++;
            saturated = saturated || c->saturated;
            power_uw = add(power_uw, c->power_uw);
        }
    }

    char of[8], name[32] = "";
    decimal(of, (unsigned)measured);
    strcat(name, of);
    if (measured < channels) {
        decimal(of, (unsigned)channels);
        strcat(strcat(name, " of "), of);
    }
    strcat(name, channels == 1 ? " channel" : " channels");
    header(frame, view, "\xce\xa3", name, strlen(name));

    // An address of version 6 may need two lines, and what is above them moves up.
    const char *address = view->address;
    size_t n = length(address, sizeof view->address), first = n;
    if (view->network == DISPLAY_CONNECTING) {
        address = "connecting\xe2\x80\xa6";
        first = n = strlen(address);
    } else if (view->network != DISPLAY_ONLINE && view->network != DISPLAY_OBSERVED) {
        address = "no network";
        first = n = strlen(address);
    } else if (!n) {
        address = "no address yet";
        first = n = strlen(address);
    } else if (text_width(address, n, 1) > DISPLAY_WIDTH) {
        first = address_break(address, n);
    }
    bool two = first < n;
    text_draw(frame, 0, two ? 49 : 56, address, first, 1);
    text_within(frame, 0, 57, DISPLAY_WIDTH, address + first, n - first);

    int y = two ? 37 : 41;
    struct display_figure energy = display_energy(energy_uwh);
    medium_draw(frame, 0, y, &energy);
    if (view->clock_known && view->hour < 24 && view->minute < 60) {
        struct display_figure clock = {
            {(char)('0' + view->hour / 10), (char)('0' + view->hour % 10), ':', (char)('0' + view->minute / 10), (char)('0' + view->minute % 10), 0}, "UTC"};
        medium_right(frame, y, &clock);
    }
    if (measured) {
        power_draw(frame, two ? 12 : 14, power_uw, saturated);
    } else {
        centered(frame, two ? 18 : 20, "no sensor", 2);
    }
}

// ---- messages

// Lays a text out in lines at blanks, and words that are longer than a line wherever it ends. Draws them if frame is not NULL. Returns the
// number of lines; whole tells whether no word had to be broken.
static int wrap(struct display_frame *frame, int y, int line_height, const char *text, size_t n, int scale, bool *whole) {
    int lines = 0;
    const char *p = text, *end = text + n;
    *whole = true;
    while (p < end) {
        while (p < end && *p == ' ') {
            p++;
        }
        // The line is [p, last): the most words that fit, or of one word the most characters.
        const char *last = p, *word = p;
        while (word < end && *word != '\n') {
            const char *stop = word;
            while (stop < end && *stop == ' ') {
                stop++;
            }
            while (stop < end && *stop != ' ' && *stop != '\n') {
                stop++;
            }
            if (text_width(p, (size_t)(stop - p), scale) > DISPLAY_WIDTH) {
                break;
            }
            last = word = stop;
        }
        const char *rest = last;
        if (last == p && p < end && *p != '\n') {
            // In parts of about one length, since a key is copied by eye.
            *whole = false;
            const char *stop = p;
            while (stop < end && *stop != ' ' && *stop != '\n') {
                stop++;
            }
            int width = text_width(p, (size_t)(stop - p), scale), parts = (width + DISPLAY_WIDTH - 1) / DISPLAY_WIDTH;
            int most = width / parts + 5 * scale < DISPLAY_WIDTH ? width / parts + 5 * scale : DISPLAY_WIDTH;
            for (const char *q = p; q < stop;) {
                next_glyph(&q, stop);
                if (text_width(p, (size_t)(q - p), scale) > most) {
                    break;
                }
                last = rest = q;
            }
        } else {
            while (rest < end && *rest == ' ') {
                rest++;
            }
            if (rest < end && *rest == '\n') {
                rest++;
            }
        }
        if (p == end) {
            break;
        }
        if (frame) {
            text_draw(frame, (DISPLAY_WIDTH - text_width(p, (size_t)(last - p), scale)) / 2, y + lines * line_height, p, (size_t)(last - p), scale);
        }
        lines++;
        p = rest;
    }
    return lines;
}

// A message, in double size if it fits without breaking a word.
static void message_screen(struct display_frame *frame, const char *text, size_t n) {
    static const struct { int scale, line_height, most; } sizes[] = {{2, 16, 4}, {1, 11, 6}, {1, 9, 7}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        bool whole;
        int height = sizes[i].line_height, scale = sizes[i].scale;
        int lines = wrap(NULL, 0, height, text, n, scale, &whole);
        if ((lines <= sizes[i].most && (whole || scale == 1)) || i + 1 == sizeof sizes / sizeof *sizes) {
            int used = (lines - 1) * height + SMALL_HEIGHT * scale;
            wrap(frame, used < DISPLAY_HEIGHT ? (DISPLAY_HEIGHT - used) / 2 : 0, height, text, n, scale, &whole);
            return;
        }
    }
}

int display_screen(int channels, uint64_t ms) {
    return channels > 0 ? (int)(ms / 1000 % ((uint64_t)channels + 1)) : 0;
}

void display_render(struct display_frame *frame, const struct display_view *view, int screen) {
    memset(frame, 0, sizeof *frame);
    size_t n = length(view->message, sizeof view->message);
    int channels = view->channels < 0 ? 0 : view->channels > METERING_MAX_CHANNELS ? METERING_MAX_CHANNELS : view->channels;
    if (n) {
        message_screen(frame, view->message, n);
    } else if (screen >= 0 && screen < channels) {
        channel_screen(frame, view, &view->channel[screen]);
    } else {
        sum_screen(frame, view, channels);
    }
}
