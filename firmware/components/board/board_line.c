#include "board.h"

#include <string.h>

// The end of a word that begins at p, which has quotes if it has spaces. Anything after it is another word.
static const char *word_end(const char *p, const char *end) {
    if (p < end && *p == '"') {
        for (p++; p < end && *p != '"'; p++) {
            p += *p == '\\' && p + 1 < end;
        }
    }
    while (p < end && *p != ' ') {
        p++;
    }
    return p;
}

// Whether what is typed next is part of a secret: after "key", "wifi NAME" and "psk set NAME".
static bool secret(const struct board_line *l) {
    static const struct {
        const char *name;
        int open; // words that may be seen, the name among them
    } secrets[] = {{"key", 1}, {"wifi", 2}, {"psk", 3}};
    const char *p = l->text, *end = l->text + l->length, *first = NULL;
    int words = 0, open = 0;
    for (;;) {
        while (p < end && *p == ' ') {
            p++;
        }
        const char *stop = word_end(p, end);
        if (stop == end) { // this word, or the next, is being typed
            return open != 0 && words >= open;
        }
        if (words++ == 0) {
            first = p;
            for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
                size_t n = strlen(secrets[i].name);
                if ((size_t)(stop - first) == n && memcmp(first, secrets[i].name, n) == 0) {
                    open = secrets[i].open;
                }
            }
        }
        p = stop;
    }
}

void board_line_clear(struct board_line *l) {
    bool cr = l->cr;
    memset(l, 0, sizeof *l);
    l->cr = cr;
}

enum board_line_result board_line_type(struct board_line *l, uint8_t byte, char echo[9]) {
    bool cr = l->cr;
    l->cr = byte == '\r';
    echo[0] = 0;
    // What arrow keys and the like send: ESC, perhaps [ and more, then a letter or ~ (ECMA-48, 5.4).
    if (l->escape) {
        l->escape = byte == '[' || (byte >= 0x20 && byte < 0x40);
        return BOARD_LINE_MORE;
    }
    switch (byte) {
    case 0x1b:
        l->escape = true;
        return BOARD_LINE_MORE;
    case '\n':
        if (cr) {
            return BOARD_LINE_MORE;
        }
        // fall through
    case '\r':
        strcpy(echo, "\r\n");
        return l->too_long ? BOARD_LINE_TOO_LONG : BOARD_LINE_DONE;
    case 0x08:
    case 0x7f:
        if (l->length > 0) {
            l->text[--l->length] = 0;
            strcpy(echo, "\b \b");
        }
        return BOARD_LINE_MORE;
    case 0x03:
    case 0x15:
        board_line_clear(l);
        strcpy(echo, byte == 0x03 ? "^C\r\n> " : "\r\x1b[K> ");
        return BOARD_LINE_MORE;
    }
    if (byte < 0x20) {
        return BOARD_LINE_MORE; // tabs
    }
    if (l->length + 1 >= sizeof l->text) {
        l->too_long = true;
        strcpy(echo, "\a");
        return BOARD_LINE_MORE;
    }
    echo[0] = secret(l) && byte != ' ' ? '*' : (char)byte;
    echo[1] = 0;
    l->text[l->length++] = (char)byte;
    l->text[l->length] = 0;
    return BOARD_LINE_MORE;
}
