// What the fuzz targets of records share: a record around any contents, so that the fuzzer gets past the checksum.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MUST(condition) ((condition) ? (void)0 : abort())

// CRC-32 by its polynomial as it is written in IEEE 802.3, from the highest bit on; the firmware's goes the other way.
static inline uint32_t record_crc(const uint8_t *bytes, size_t n) {
    uint32_t crc = 0xffffffff, reversed = 0;
    for (size_t i = 0; i < n; i++) {
        for (int bit = 0; bit < 8; bit++) {
            uint32_t in = bytes[i] >> bit & 1;
            crc = crc << 1 ^ ((crc >> 31) ^ in ? 0x04c11db7 : 0);
        }
    }
    for (int bit = 0; bit < 32; bit++) {
        reversed |= (crc >> bit & 1) << (31 - bit);
    }
    return ~reversed;
}

// A record of version 1 in memory of its own.
static inline uint8_t *record_around(const char *magic, const uint8_t *contents, size_t n, size_t *size) {
    *size = n + 12;
    uint8_t *record = malloc(*size);
    MUST(record != NULL);
    memcpy(record, magic, 4);
    record[4] = 1;
    record[5] = 0;
    record[6] = (uint8_t)*size;
    record[7] = (uint8_t)(*size >> 8);
    memcpy(record + 8, contents, n);
    uint32_t crc = record_crc(record, n + 8);
    for (int i = 0; i < 4; i++) {
        record[n + 8 + (size_t)i] = (uint8_t)(crc >> 8 * i);
    }
    return record;
}
