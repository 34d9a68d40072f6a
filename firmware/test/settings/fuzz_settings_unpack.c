// Any bytes as a record of settings, and as the contents of one with its checksum right. What is taken is valid and packs to the same bytes;
// what is refused leaves the settings as they were.

#include "../../components/settings/valid.h"
#include "record_fuzz.h"

static void try(const uint8_t *record, size_t size) {
    struct settings s, before;
    memset(&s, 0x5a, sizeof s);
    memcpy(&before, &s, sizeof s);
    if (!settings_unpack(&s, record, size)) {
        MUST(memcmp(&before, &s, sizeof s) == 0);
        return;
    }
    uint8_t packed[SETTINGS_PACKED];
    size_t n = settings_pack(&s, packed, sizeof packed);
    MUST(settings_valid(&s) && n && n <= size && memcmp(packed, record, n) == 0);
    static char shown[SETTINGS_SHOWN];
    MUST(settings_show(&s, true, shown, sizeof shown));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    try(data, size);
    size_t n;
    uint8_t *record = record_around("WTLS", data, size, &n);
    try(record, n);
    free(record);
    return 0;
}
