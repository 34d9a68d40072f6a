// Any bytes as a record of totals, and as the contents of one with its checksum right.

#include "record_fuzz.h"
#include "settings.h"

static void try(const uint8_t *record, size_t size) {
    struct settings_totals t, before;
    memset(&t, 0x5a, sizeof t);
    memcpy(&before, &t, sizeof t);
    if (!settings_totals_unpack(&t, record, size)) {
        MUST(memcmp(&before, &t, sizeof t) == 0);
        return;
    }
    uint8_t packed[SETTINGS_TOTALS_PACKED];
    size_t n = settings_totals_pack(&t, packed, sizeof packed);
    MUST(n && n <= size && memcmp(packed, record, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    try(data, size);
    size_t n;
    uint8_t *record = record_around("WTLT", data, size, &n);
    try(record, n);
    free(record);
    return 0;
}
