// Any text, line by line: errors change nothing and say something; what is accepted survives the flash and being shown and typed again.

#include <stdlib.h>
#include <string.h>

#include "../../components/settings/valid.h"

#define MUST(condition) ((condition) ? (void)0 : abort())

static void same(const struct settings *a, const struct settings *b) {
    uint8_t x[SETTINGS_PACKED], y[SETTINGS_PACKED];
    size_t n = settings_pack(a, x, sizeof x), m = settings_pack(b, y, sizeof y);
    MUST(n && n == m && memcmp(x, y, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct settings s, before, again;
    settings_default(&s);
    for (size_t at = 0; at < size;) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t n = end ? (size_t)(end - (data + at)) + 1 : size - at;
        // The line in memory of its own: reading beyond it would be seen.
        char *line = malloc(n);
        MUST(line != NULL);
        memcpy(line, data + at, n);
        at += n;
        char error[160];
        size_t room = n % 3 ? sizeof error : n % sizeof error;
        memset(error, 'x', sizeof error);
        memcpy(&before, &s, sizeof s);
        enum settings_request request = settings_line(&s, line, n, error, room);
        free(line);
        MUST(request <= SETTINGS_SHOW_SECRETS);
        if (request != SETTINGS_CHANGED) {
            MUST(memcmp(&before, &s, sizeof s) == 0);
        }
        if (room) {
            size_t told = settings_length(error, room);
            MUST(told < room && settings_text(error, told));
            MUST((request == SETTINGS_ERROR) == (told > 0) || room == 1);
        }
        MUST(settings_valid(&s));
    }

    uint8_t packed[SETTINGS_PACKED];
    size_t n = settings_pack(&s, packed, sizeof packed);
    MUST(n);
    memset(&again, 0x5a, sizeof again);
    MUST(settings_unpack(&again, packed, n));
    same(&s, &again);

    static char shown[SETTINGS_SHOWN];
    n = settings_show(&s, true, shown, sizeof shown);
    MUST(n && n == strlen(shown));
    settings_default(&again);
    for (char *line = shown; *line;) {
        size_t length = strcspn(line, "\n");
        MUST(settings_line(&again, line, length, NULL, 0) <= SETTINGS_CHANGED);
        line += length + 1;
    }
    same(&s, &again);
    return 0;
}
