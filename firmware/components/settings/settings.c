// Lines. One is split into words, the first of which names a command; a command checks all of its words before it changes anything. Errors
// quote what was typed, but never a passphrase or a key: consoles are logged.

#include "valid.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WORDS 5 // most words of a command, and one more to see that there are too many

// A line taken apart: words without their quotes, each with a zero at its end. Words hold no zeros, since control characters are refused.
struct line {
    char text[SETTINGS_LINE + 1];
    const char *word[WORDS];
    size_t length[WORDS];
    int words; // WORDS if there are that many or more
    char *error;
    size_t error_size;
};

#if defined __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static enum settings_request fail(const struct line *l, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (l->error_size) {
        vsnprintf(l->error, l->error_size, format, arguments);
        // What did not fit is left out by whole characters.
        size_t n = strlen(l->error);
        while (n && !settings_text(l->error, n)) {
            l->error[--n] = 0;
        }
    }
    va_end(arguments);
    return SETTINGS_ERROR;
}

// Splits a line. Says in l->error what is wrong with it, and returns false.
static bool split(struct line *l, const char *line, size_t length) {
    while (length && (line[length - 1] == '\n' || line[length - 1] == '\r')) {
        length--;
    }
    if (length > SETTINGS_LINE) {
        fail(l, "a line has at most %d characters; this one has %lu", SETTINGS_LINE, (unsigned long)length);
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if (((unsigned char)line[i] < ' ' && line[i] != '\t') || line[i] == 127) {
            fail(l, "character %lu is a control character: write text only", (unsigned long)i + 1);
            return false;
        }
        l->text[i] = line[i] == '\t' ? ' ' : line[i];
    }
    l->text[length] = 0;
    if (!settings_text(l->text, length)) {
        fail(l, "this is not UTF-8: set the terminal to UTF-8, or write plain letters");
        return false;
    }
    // Words are written over the line from its start; quotes and backslashes go, so that they never get ahead of what is read.
    const char *in = l->text;
    char *out = l->text;
    while (l->words < WORDS) {
        while (*in == ' ') {
            in++;
        }
        if (!*in) {
            break;
        }
        char *word = out;
        if (*in == '"') {
            for (in++; *in != '"'; in++) {
                if (*in == '\\') {
                    in++;
                    if (*in != '"' && *in != '\\') {
                        fail(l, "in quotes, a backslash stands before a quote or a backslash: write \\\\ for one backslash");
                        return false;
                    }
                }
                if (!*in) {
                    fail(l, "a quote is not closed: write \" at the end too, or \\\" within quotes for a quote itself");
                    return false;
                }
                *out++ = *in;
            }
            in++;
        } else {
            while (*in && *in != ' ' && *in != '"') {
                *out++ = *in++;
            }
        }
        if (*in && *in != ' ') {
            fail(l, "a quote within a word: put the whole word into quotes, with \\\" for the quote itself");
            return false;
        }
        l->word[l->words] = word;
        l->length[l->words++] = (size_t)(out - word);
        bool end = !*in;
        in += !end;
        *out++ = 0;
        if (end) {
            break;
        }
    }
    return true;
}

static bool is(const struct line *l, int word, const char *text) {
    return l->words > word && strcmp(l->word[word], text) == 0;
}

// ---- values

static void set_text(char *out, size_t size, const char *text, size_t n) {
    memset(out, 0, size);
    memcpy(out, text, n);
}

// Reads a whole number, with a sign if it may be negative.
static bool number(const char *text, int64_t min, int64_t max, int64_t *value) {
    bool negative = *text == '-';
    int64_t n = 0;
    text += *text == '-' || *text == '+';
    if (!*text) {
        return false;
    }
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || n > 1000000000) {
            return false;
        }
        n = n * 10 + (*text - '0');
    }
    *value = negative ? -n : n;
    return *value >= min && *value <= max;
}

static enum settings_request set_name(const struct line *l, int word, const char *what, size_t min, char *out, size_t size) {
    size_t n = l->length[word];
    if (n < min) {
        return fail(l, "%s is empty: write 1 to %lu bytes, as bench-1", what, (unsigned long)size - 1);
    }
    if (n >= size) {
        return fail(l, "%s has %lu bytes: write at most %lu; letters beyond ASCII have two and more", what, (unsigned long)n, (unsigned long)size - 1);
    }
    set_text(out, size, l->word[word], n);
    return SETTINGS_CHANGED;
}

// ---- commands

static enum settings_request name_command(struct settings *s, const struct line *l) {
    return set_name(l, 1, "name", 1, s->name, sizeof s->name);
}

static enum settings_request wifi_command(struct settings *s, const struct line *l) {
    size_t ssid = l->length[1], passphrase = l->length[2];
    if (ssid >= sizeof s->ssid) {
        return fail(l, "wifi: the SSID has %lu bytes; an SSID has at most 32", (unsigned long)ssid);
    }
    if (passphrase && !ssid) {
        return fail(l, "wifi: the SSID is empty: write wifi SSID PASSPHRASE, or wifi \"\" \"\" for no Wi-Fi");
    }
    if (passphrase && !settings_ascii(l->word[2], passphrase)) {
        return fail(l, "wifi: a passphrase has ASCII characters only (IEEE 802.11): change it at the access point");
    }
    if (passphrase && (passphrase < SETTINGS_PASSPHRASE_MIN || passphrase > SETTINGS_PASSPHRASE_MAX)) {
        return fail(l, "wifi: the passphrase has %lu characters: write %d to %d, or \"\" for an open network", (unsigned long)passphrase,
                    SETTINGS_PASSPHRASE_MIN, SETTINGS_PASSPHRASE_MAX);
    }
    set_text(s->ssid, sizeof s->ssid, l->word[1], ssid);
    set_text(s->passphrase, sizeof s->passphrase, l->word[2], passphrase);
    return SETTINGS_CHANGED;
}

static bool check_identity(const struct settings *s, const struct line *l, int word) {
    size_t n = l->length[word];
    if (n >= sizeof s->identity) {
        fail(l, "identity has %lu characters: write at most %lu", (unsigned long)n, (unsigned long)sizeof s->identity - 1);
        return false;
    }
    if (!settings_identity(l->word[word], n)) {
        fail(l, "identity: write letters, digits, dot, dash and underscore, as wattlet");
        return false;
    }
    return true;
}

static enum settings_request identity_command(struct settings *s, const struct line *l) {
    if (!check_identity(s, l, 1)) {
        return SETTINGS_ERROR;
    }
    set_text(s->identity, sizeof s->identity, l->word[1], l->length[1]);
    return SETTINGS_CHANGED;
}

static void set_key(struct settings *s, const void *key, size_t n) {
    memset(s->key, 0, sizeof s->key);
    memcpy(s->key, key, n);
    s->key_length = (uint8_t)n;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static enum settings_request key_command(struct settings *s, const struct line *l) {
    if (is(l, 1, "new")) {
        return SETTINGS_NEW_KEY;
    }
    size_t n = l->length[1];
    uint8_t key[SETTINGS_KEY_MAX];
    for (size_t i = 0; i < n; i++) {
        if (hex_digit(l->word[1][i]) < 0) {
            return fail(l, "key: character %lu is not hexadecimal: write key HEX, key new, or psk set IDENTITY KEY for a key of letters", (unsigned long)i + 1);
        }
    }
    if (n % 2 || n < 2 * SETTINGS_KEY_MIN || n > 2 * SETTINGS_KEY_MAX) {
        return fail(l, "key has %lu hexadecimal digits: write two for each byte, %d to %d in all", (unsigned long)n, 2 * SETTINGS_KEY_MIN, 2 * SETTINGS_KEY_MAX);
    }
    for (size_t i = 0; i < n / 2; i++) {
        key[i] = (uint8_t)(hex_digit(l->word[1][2 * i]) << 4 | hex_digit(l->word[1][2 * i + 1]));
    }
    set_key(s, key, n / 2);
    return SETTINGS_CHANGED;
}

// As wattctl meter provision prints it: the bytes of the key are the characters, which an agent's key file has too.
static enum settings_request psk_command(struct settings *s, const struct line *l) {
    size_t n = l->length[3];
    if (!is(l, 1, "set")) {
        return fail(l, "psk: write psk set IDENTITY KEY, as wattctl meter provision prints it");
    }
    if (!check_identity(s, l, 2)) {
        return SETTINGS_ERROR;
    }
    if (n < SETTINGS_KEY_MIN || n > SETTINGS_KEY_MAX) {
        return fail(l, "psk: the key has %lu bytes: write %d to %d", (unsigned long)n, SETTINGS_KEY_MIN, SETTINGS_KEY_MAX);
    }
    set_text(s->identity, sizeof s->identity, l->word[2], l->length[2]);
    set_key(s, l->word[3], n);
    return SETTINGS_CHANGED;
}

static enum settings_request sntp_command(struct settings *s, const struct line *l) {
    size_t n = l->length[1];
    if (n >= sizeof s->sntp) {
        return fail(l, "sntp: the host has %lu characters: write at most %lu", (unsigned long)n, (unsigned long)sizeof s->sntp - 1);
    }
    if (!settings_host(l->word[1], n)) {
        return fail(l, "sntp \"%s\": write a host name or an address, as pool.ntp.org, or \"\" for none", l->word[1]);
    }
    set_text(s->sntp, sizeof s->sntp, l->word[1], n);
    return SETTINGS_CHANGED;
}

static enum settings_request rate_command(struct settings *s, const struct line *l) {
    int64_t value;
    if (!number(l->word[1], SETTINGS_RATE_MIN, SETTINGS_RATE_MAX, &value)) {
        return fail(l, "rate \"%s\": write sweeps per second, %d to %d, as 500", l->word[1], SETTINGS_RATE_MIN, SETTINGS_RATE_MAX);
    }
    s->rate = (uint16_t)value;
    return SETTINGS_CHANGED;
}

static enum settings_request interval_command(struct settings *s, const struct line *l) {
    int64_t value;
    if (!number(l->word[1], SETTINGS_INTERVAL_MIN, SETTINGS_INTERVAL_MAX, &value)) {
        return fail(l, "interval \"%s\": write milliseconds, %d to %d, as 100", l->word[1], SETTINGS_INTERVAL_MIN, SETTINGS_INTERVAL_MAX);
    }
    s->interval = (uint16_t)value;
    return SETTINGS_CHANGED;
}

static enum settings_request channel_command(struct settings *s, const struct line *l) {
    int64_t n, value;
    if (!number(l->word[1], 1, SETTINGS_CHANNELS, &n)) {
        return fail(l, "channel \"%s\": there are channels 1 to %d", l->word[1], SETTINGS_CHANNELS);
    }
    struct metering_calibration *c = &s->channel[n - 1].calibration;
    const char *what = l->word[2], *text = l->word[3];
    if (strcmp(what, "name") == 0) {
        return set_name(l, 3, "channel's name", 0, s->channel[n - 1].name, sizeof s->channel[n - 1].name);
    }
    if (strcmp(what, "shunt") == 0) {
        if (!number(text, SETTINGS_SHUNT_MIN, SETTINGS_SHUNT_MAX, &value)) {
            return fail(l, "shunt \"%s\": write microohms, %d to %d, as 50000 for 0.05 ohms", text, SETTINGS_SHUNT_MIN, SETTINGS_SHUNT_MAX);
        }
        c->shunt_uohm = (uint32_t)value;
        return SETTINGS_CHANGED;
    }
    if (strcmp(what, "gain") == 0) {
        if (!number(text, -SETTINGS_GAIN_MAX, SETTINGS_GAIN_MAX, &value)) {
            return fail(l, "gain \"%s\": write millionths (ppm), -%d to %d, as -1200 for 0.12 %% less", text, SETTINGS_GAIN_MAX, SETTINGS_GAIN_MAX);
        }
        c->gain_ppm = (int32_t)value;
        return SETTINGS_CHANGED;
    }
    if (strcmp(what, "offset") == 0) {
        if (!number(text, -SETTINGS_OFFSET_MAX, SETTINGS_OFFSET_MAX, &value)) {
            return fail(l, "offset \"%s\": write nanovolts, -%d to %d, as 8000 for 8 microvolts", text, SETTINGS_OFFSET_MAX, SETTINGS_OFFSET_MAX);
        }
        c->offset_nv = (int32_t)value;
        return SETTINGS_CHANGED;
    }
    return fail(l, "channel %s \"%s\": a channel has name, shunt, gain and offset", l->word[1], what);
}

static enum settings_request reset_command(struct settings *s, const struct line *l) {
    (void)s;
    return is(l, 1, "totals") ? SETTINGS_RESET_TOTALS : fail(l, "reset \"%s\": write reset totals", l->word[1]);
}

static enum settings_request show_command(struct settings *s, const struct line *l) {
    (void)s;
    return l->words == 1          ? SETTINGS_SHOW
           : is(l, 1, "secrets") ? SETTINGS_SHOW_SECRETS
                                  : fail(l, "show \"%s\": write show, or show secrets for passphrase and key too", l->word[1]);
}

static enum settings_request save_command(struct settings *s, const struct line *l) {
    (void)s;
    (void)l;
    return SETTINGS_SAVE;
}

static enum settings_request reboot_command(struct settings *s, const struct line *l) {
    (void)s;
    (void)l;
    return SETTINGS_REBOOT;
}

static enum settings_request help_command(struct settings *s, const struct line *l) {
    (void)s;
    (void)l;
    return SETTINGS_HELP;
}

static const struct command {
    const char *name;
    int words_min, words_max; // itself among them
    const char *form;         // what to write if there are more or fewer
    enum settings_request (*run)(struct settings *s, const struct line *l);
} commands[] = {
    {"name", 2, 2, "name NAME, in quotes if it has blanks", name_command},
    {"wifi", 3, 3, "wifi SSID PASSPHRASE, in quotes what has blanks; \"\" as passphrase for an open network", wifi_command},
    {"identity", 2, 2, "identity NAME, as identity wattlet", identity_command},
    {"key", 2, 2, "key new, or key HEX", key_command},
    {"psk", 4, 4, "psk set IDENTITY KEY, as wattctl meter provision prints it", psk_command},
    {"channel", 4, 4, "channel NUMBER name NAME, or shunt UOHM, gain PPM, offset NV; in quotes what has blanks", channel_command},
    {"sntp", 2, 2, "sntp HOST, or sntp \"\" for none", sntp_command},
    {"rate", 2, 2, "rate SWEEPS-PER-SECOND, as rate 500", rate_command},
    {"interval", 2, 2, "interval MS, as interval 100", interval_command},
    {"show", 1, 2, "show, or show secrets", show_command},
    {"save", 1, 1, "save", save_command},
    {"reset", 2, 2, "reset totals", reset_command},
    {"reboot", 1, 1, "reboot", reboot_command},
    {"help", 1, 1, "help", help_command},
};

const char *settings_help(void) {
    return "name NAME                        the meter's name\n"
           "wifi SSID PASSPHRASE             \"\" as passphrase for an open network\n"
           "psk set IDENTITY KEY             as wattctl meter provision prints it; the key is what an agent's key file has\n"
           "identity NAME                    of the key\n"
           "key new                          makes a key and shows it\n"
           "key HEX                          a key of any bytes, in hexadecimal\n"
           "channel N name NAME              N from 1 to 6, as printed on the board\n"
           "channel N shunt UOHM             50000 for 0.05 ohms\n"
           "channel N gain PPM               1000 makes results 0.1 % larger\n"
           "channel N offset NV              of the shunt voltage, subtracted\n"
           "sntp HOST                        for the display's clock; \"\" for none\n"
           "rate N                           sweeps per second, 50 to 1200\n"
           "interval MS                      longest time between reports, 20 to 10000\n"
           "show | show secrets              all settings, as lines to be typed\n"
           "save                             keeps them; most count from the next start\n"
           "reset totals                     all energy and charge from zero\n"
           "reboot\n"
           "What has blanks goes into quotes: wifi \"my wifi\" \"eight or more\"\n";
}

enum settings_request settings_line(struct settings *s, const char *line, size_t length, char *error, size_t error_size) {
    struct line l;
    memset(&l, 0, sizeof l);
    l.error = error;
    l.error_size = error_size;
    if (error_size) {
        *error = 0;
    }
    size_t blanks = 0;
    while (blanks < length && strchr(" \t\r\n", line[blanks]) && line[blanks]) {
        blanks++;
    }
    if (blanks == length || line[blanks] == '#') {
        return SETTINGS_NOTHING;
    }
    if (!split(&l, line, length)) {
        return SETTINGS_ERROR;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const struct command *c = &commands[i];
        if (strcmp(l.word[0], c->name) == 0) {
            return l.words < c->words_min || l.words > c->words_max ? fail(&l, "%s: write %s", c->name, c->form) : c->run(s, &l);
        }
    }
    // What is longer than any command may be a key.
    return l.length[0] > 12 ? fail(&l, "there is no such command; help lists them") : fail(&l, "there is no command \"%s\"; help lists them", l.word[0]);
}

void settings_default(struct settings *s) {
    memset(s, 0, sizeof *s);
    memcpy(s->name, "wattlet", sizeof "wattlet");
    memcpy(s->identity, "wattlet", sizeof "wattlet");
    memcpy(s->sntp, "pool.ntp.org", sizeof "pool.ntp.org");
    s->rate = 500;
    s->interval = 100;
    for (int i = 0; i < SETTINGS_CHANNELS; i++) {
        s->channel[i].calibration.shunt_uohm = 100000; // what common modules carry
    }
}

bool settings_make_key(struct settings *s, const uint8_t *random, size_t n) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const size_t count = sizeof letters - 1, fair = 256 / count * count; // bytes from here on would favour the first letters
    uint8_t key[SETTINGS_KEY_NEW];
    size_t length = 0;
    for (size_t i = 0; i < n && length < sizeof key; i++) {
        if (random[i] < fair) {
            key[length++] = (uint8_t)letters[random[i] % count];
        }
    }
    if (length < sizeof key) {
        return false;
    }
    set_key(s, key, length);
    return true;
}

// ---- showing

struct text {
    char *out;
    size_t size, length; // length goes on beyond size
};

static void write_bytes(struct text *t, const char *bytes, size_t n) {
    if (t->length < t->size && n < t->size - t->length) {
        memcpy(t->out + t->length, bytes, n);
    }
    t->length += n;
}

static void write_text(struct text *t, const char *text) {
    write_bytes(t, text, strlen(text));
}

// Writes a word as settings_line reads it.
static void write_word(struct text *t, const char *word, size_t size) {
    size_t n = settings_length(word, size);
    bool plain = n > 0;
    for (size_t i = 0; i < n; i++) {
        plain = plain && word[i] != ' ' && word[i] != '"';
    }
    if (plain) {
        write_bytes(t, word, n);
        return;
    }
    write_text(t, "\"");
    for (size_t i = 0; i < n; i++) {
        if (word[i] == '"' || word[i] == '\\') {
            write_text(t, "\\");
        }
        write_bytes(t, &word[i], 1);
    }
    write_text(t, "\"");
}

static void write_number(struct text *t, long number) {
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%ld", number);
    write_bytes(t, digits, (size_t)n);
}

static void write_setting(struct text *t, const char *name, long number) {
    write_text(t, name);
    write_number(t, number);
    write_text(t, "\n");
}

static void write_key(struct text *t, const struct settings *s) {
    if (settings_identity((const char *)s->key, s->key_length)) {
        write_text(t, "psk set ");
        write_word(t, s->identity, sizeof s->identity);
        write_text(t, " ");
        write_bytes(t, (const char *)s->key, s->key_length);
    } else {
        write_text(t, "key ");
        for (size_t i = 0; i < s->key_length; i++) {
            write_bytes(t, &"0123456789abcdef"[s->key[i] >> 4], 1);
            write_bytes(t, &"0123456789abcdef"[s->key[i] & 15], 1);
        }
    }
    write_text(t, "\n");
}

size_t settings_show(const struct settings *s, bool secrets, char *out, size_t size) {
    struct text t = {out, size, 0};
    write_text(&t, "name ");
    write_word(&t, s->name, sizeof s->name);
    // Without its secret a line is a remark: given back, it changes nothing.
    write_text(&t, s->passphrase[0] && !secrets ? "\n# wifi " : "\nwifi ");
    write_word(&t, s->ssid, sizeof s->ssid);
    if (!s->passphrase[0]) {
        write_text(&t, " \"\"");
    } else if (secrets) {
        write_text(&t, " ");
        write_word(&t, s->passphrase, sizeof s->passphrase);
    } else {
        write_text(&t, ", passphrase not shown: show secrets");
    }
    write_text(&t, "\nidentity ");
    write_word(&t, s->identity, sizeof s->identity);
    write_text(&t, "\n");
    if (!s->key_length) {
        write_text(&t, "# no key yet: key new, or psk set IDENTITY KEY\n");
    } else if (secrets) {
        write_key(&t, s);
    } else {
        write_text(&t, "# key of ");
        write_number(&t, s->key_length);
        write_text(&t, " bytes, not shown: show secrets\n");
    }
    write_text(&t, "sntp ");
    write_word(&t, s->sntp, sizeof s->sntp);
    write_setting(&t, "\nrate ", s->rate);
    write_setting(&t, "interval ", s->interval);
    for (int i = 0; i < SETTINGS_CHANNELS; i++) {
        char channel[] = {'c', 'h', 'a', 'n', 'n', 'e', 'l', ' ', (char)('1' + i), ' ', 0};
        write_text(&t, channel);
        write_text(&t, "name ");
        write_word(&t, s->channel[i].name, sizeof s->channel[i].name);
        write_text(&t, "\n");
        write_text(&t, channel);
        write_setting(&t, "shunt ", (long)s->channel[i].calibration.shunt_uohm);
        write_text(&t, channel);
        write_setting(&t, "gain ", (long)s->channel[i].calibration.gain_ppm);
        write_text(&t, channel);
        write_setting(&t, "offset ", (long)s->channel[i].calibration.offset_nv);
    }
    if (t.length >= size) {
        if (size) {
            *out = 0;
        }
        return 0;
    }
    out[t.length] = 0;
    return t.length;
}
