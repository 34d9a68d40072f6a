// The board, with ESP-IDF's functions faked: the sensors' bus and its errors, the tick, what the flash and RTC memory keep, lines typed.
#include <stdlib.h>

#include "board.h"
#include "check.h"
#include "fake_idf.h"
#include "nvs.h"

// ---- the bus

static struct fake_ina3221 chip[2];
static struct fake_i2c wire;

static void load(void *context, int channel, uint64_t from_ns, uint64_t to_ns, int32_t *shunt_nv, int32_t *bus_uv) {
    (void)context, (void)from_ns, (void)to_ns;
    *shunt_nv = 40000 * (100 + channel);
    *bus_uv = 5000000;
}

static struct ina3221_bus open_bus(struct board_bus *b) {
    fake_idf_reset();
    fake_i2c_init(&wire);
    for (int i = 0; i < 2; i++) {
        fake_ina3221_init(&chip[i], (struct fake_ina3221_input){.mean = load});
        fake_i2c_join(&wire, &chip[i], (uint8_t)(0x40 + i));
    }
    idf.wire = &wire;
    CHECK(board_bus_open(b, (const uint8_t[]){0x41, 0x40}, 2));
    return board_bus_table(b);
}

static void bus_carries_the_driver(void) {
    struct board_bus b;
    struct ina3221_bus bus = open_bus(&b);
    CHECK_EQ(idf.i2c_hz, 400000);
    CHECK(idf.i2c_quiet);
    struct ina3221 c;
    CHECK_EQ(ina3221_init(&c, bus, 0x41), INA3221_OK);
    CHECK_EQ(ina3221_reset(&c), INA3221_OK);
    const struct ina3221_config config = {.enabled = {true, true, true}, .bus_time = INA3221_140_US, .shunt_time = INA3221_140_US, .mode = INA3221_BOTH};
    CHECK_EQ(ina3221_configure(&c, &config), INA3221_OK);
    fake_i2c_advance(&wire, 2000000);
    idf.now_us = (int64_t)(wire.now_ns / 1000);
    int16_t counts = 0;
    CHECK_EQ(ina3221_shunt(&c, 2, &counts), INA3221_OK);
    CHECK_EQ(counts, 102);
    CHECK_EQ(b.errors, 0);
    CHECK(idf.i2c_timeout_ms >= 1 && idf.i2c_timeout_ms <= 5); // a wait for ever would stop sampling
}

static void bus_errors_are_told(void) {
    struct board_bus b;
    struct ina3221_bus bus = open_bus(&b);
    uint8_t bytes[2];
    chip[1].nack = 1;
    CHECK(bus.read(bus.context, 0x41, 0xfe, bytes, 2) < 0);
    CHECK_EQ(bus.read(bus.context, 0x41, 0xfe, bytes, 2), 0);
    CHECK_EQ(bytes[0], 0x54);
    // No chip was said to be there: no transfer at all.
    int transfers = idf.i2c_transfers;
    CHECK(bus.read(bus.context, 0x43, 0xfe, bytes, 2) < 0);
    CHECK(bus.write(bus.context, 0x3c, bytes, 2) < 0);
    CHECK_EQ(idf.i2c_transfers, transfers);
    CHECK_EQ(b.errors, 1);
    CHECK_EQ(b.resets, 0);
}

static void bus_is_reset_after_many(void) {
    struct board_bus b;
    struct ina3221_bus bus = open_bus(&b);
    uint8_t bytes[2];
    idf.i2c_error = ESP_ERR_TIMEOUT;
    // Seven errors and one transfer that goes well, again and again: no reset.
    for (int i = 0; i < 100; i++) {
        idf.i2c_fail = BOARD_BUS_RESET_AFTER - 1;
        for (int k = 0; k < BOARD_BUS_RESET_AFTER; k++) {
            bus.read(bus.context, 0x40, 1, bytes, 2);
        }
    }
    CHECK_EQ(idf.i2c_resets, 0);
    // Eight in a row: one. And while it goes on, at most one in 100 ms, for ever.
    idf.i2c_fail = BOARD_BUS_RESET_AFTER;
    for (int k = 0; k < BOARD_BUS_RESET_AFTER; k++) {
        CHECK(bus.read(bus.context, 0x40, 1, bytes, 2) < 0);
    }
    CHECK_EQ(idf.i2c_resets, 1);
    CHECK_EQ(bus.read(bus.context, 0x40, 1, bytes, 2), 0);
    idf.i2c_fail = 1000000;
    int64_t from = idf.now_us;
    while (idf.now_us < from + 10000000) {
        CHECK(bus.read(bus.context, 0x40, 1, bytes, 2) < 0);
        idf.now_us += 2000;
    }
    CHECK(idf.i2c_resets >= 90 && idf.i2c_resets <= 102);
    CHECK_EQ(b.resets, idf.i2c_resets);
    // And it comes back without anybody doing anything.
    idf.i2c_fail = 0;
    CHECK_EQ(bus.read(bus.context, 0x40, 1, bytes, 2), 0);
}

static void bus_that_cannot_be_had(void) {
    struct board_bus b;
    fake_idf_reset();
    idf.i2c_new_error = ESP_ERR_INVALID_ARG;
    CHECK(!board_bus_open(&b, (const uint8_t[]){0x41, 0x40}, 2));
    struct ina3221_bus bus = board_bus_table(&b);
    uint8_t bytes[2];
    CHECK(bus.read(bus.context, 0x40, 1, bytes, 2) < 0);
    CHECK(fake_idf_logged("bus of the sensors"));
}

// ---- the tick

static int64_t waited[100];

static void wait_body(void *argument) {
    struct board_tick *t = argument;
    CHECK(board_tick_start(t, 2000));
    uint64_t due = 0;
    for (int i = 0; i < 100; i++) {
        uint64_t next = (uint64_t)idf.now_us / 2000 * 2000 + 2000;
        due = due + 2000 > next ? due + 2000 : next;
        board_tick_wait(due);
        waited[i] = idf.now_us - (int64_t)due;
        idf.now_us += i % 10 == 9 ? 5300 : 1500; // the sweep, which is too long sometimes
    }
}

static void ticks_are_on_the_grid(void) {
    static struct board_tick t;
    fake_idf_reset();
    idf.now_us = 123457;
    fake_idf_run(wait_body, &t, 100000000);
    for (int i = 0; i < 100; i++) {
        CHECK(waited[i] >= 0 && waited[i] < 20);
    }
    CHECK(idf.now_us > 200000 && idf.now_us < 400000);
}

static void wait_without_alarm(void *argument) {
    (void)argument;
    board_tick_wait(1000000);
    waited[0] = idf.now_us - 1000000;
}

static void waiting_ends_without_an_alarm(void) {
    fake_idf_reset();
    idf.now_us = 990000;
    fake_idf_run(wait_without_alarm, NULL, 100000000);
    CHECK(waited[0] >= 0 && waited[0] <= 3000);
}

// ---- what is kept

static void settings_are_kept(void) {
    fake_idf_reset();
    CHECK(board_store_open());
    struct settings s, t;
    settings_default(&s);
    t = s;
    CHECK(!board_settings_load(&t));
    CHECK_MEM(&t, &s, sizeof s);
    strcpy(s.name, "bench-1");
    s.key_length = 32;
    memset(s.key, 'k', 32);
    CHECK(board_settings_save(&s));
    CHECK_EQ(idf.nvs_commits, 1);
    CHECK(board_settings_load(&t));
    CHECK_MEM(&t, &s, sizeof s);
    idf.blob[0].bytes[20] ^= 1;
    settings_default(&t);
    CHECK(!board_settings_load(&t));
    CHECK(fake_idf_logged("not whole"));
    CHECK(!fake_idf_logged("kkkk"));
}

static void settings_are_not_erased_before_they_are_saved(void) {
    fake_idf_reset();
    idf.nvs_init_error = ESP_ERR_NVS_NEW_VERSION_FOUND;
    CHECK(!board_store_open());
    struct settings s;
    settings_default(&s);
    CHECK(!board_settings_load(&s));
    CHECK_EQ(idf.nvs_erased, 0);
    CHECK(board_settings_save(&s));
    CHECK_STR(idf.nvs_erased_partition, "nvs");
    CHECK(board_settings_load(&s));
}

static void totals_that_cannot_be_read_are_erased(void) {
    fake_idf_reset();
    idf.totals_init_error = ESP_ERR_NVS_NO_FREE_PAGES;
    CHECK(board_store_open());
    CHECK_EQ(idf.nvs_erased, 1);
    CHECK_STR(idf.nvs_erased_partition, "totals");
}

static struct settings_totals totals(uint32_t sequence, int64_t uj) {
    struct settings_totals t = {.sequence = sequence};
    t.channel[3].energy_uj = uj;
    t.channel[5].charge_uc = -uj;
    return t;
}


static void totals_the_newest_counts(void) {
    fake_idf_reset();
    CHECK(board_store_open());
    fake_idf_rtc_scramble();
    struct settings_totals t = totals(1000, 5), found;
    CHECK(board_totals_save(&t));
    CHECK(board_totals_load(&found));
    CHECK_EQ(found.sequence, 1000);
    CHECK_EQ(found.channel[3].energy_uj, 5);
    CHECK_EQ(found.channel[5].charge_uc, -5);
    // RTC memory goes ahead of the flash.
    t.channel[3].energy_uj = 6;
    board_totals_remember(&t);
    CHECK_EQ(t.sequence, 1001);
    CHECK(board_totals_load(&found));
    CHECK_EQ(found.channel[3].energy_uj, 6);
    // A start later, with power gone: the flash's.
    fake_idf_rtc_scramble();
    CHECK(board_totals_load(&found));
    CHECK_EQ(found.channel[3].energy_uj, 5);
    // Sequence numbers may go round.
    t = totals(UINT32_MAX, 7);
    fake_idf_rtc_scramble();
    board_totals_save(&t);
    board_totals_save(&t);
    board_totals_remember(&t);
    CHECK_EQ(t.sequence, 0);
    CHECK(board_totals_load(&found));
    CHECK_EQ(found.sequence, 0);
}

static void totals_in_rtc_memory(void) {
    fake_idf_reset();
    CHECK(board_store_open());
    struct settings_totals t, found;
    // Random bytes are no record, whatever they are.
    for (int i = 0; i < 1000; i++) {
        fake_idf_rtc_scramble();
        CHECK(!board_totals_load(&found));
        CHECK_EQ(found.sequence, 0);
    }
    // A reset in the midst of writing a record, at any byte, leaves the one before.
    size_t size;
    uint8_t *rtc = fake_idf_rtc(&size), before[1024], after[1024];
    CHECK(size != 0 && size <= sizeof before);
    for (uint32_t sequence = 50; sequence < 52; sequence++) {
        t = totals(sequence - 2, 1);
        board_totals_remember(&t);
        t.channel[3].energy_uj = 2;
        board_totals_remember(&t);
        memcpy(before, rtc, size);
        t.channel[3].energy_uj = 3;
        board_totals_remember(&t);
        memcpy(after, rtc, size);
        for (size_t i = 0; i <= size; i++) {
            memcpy(rtc, after, i);
            memcpy(rtc + i, before + i, size - i);
            CHECK(board_totals_load(&found));
            CHECK(found.channel[3].energy_uj == 2 || found.channel[3].energy_uj == 3);
        }
    }
}

static void totals_one_record_broken(void) {
    fake_idf_reset();
    CHECK(board_store_open());
    fake_idf_rtc_scramble();
    struct settings_totals t, found;
    for (uint32_t i = 0; i < 5; i++) {
        t = totals(2000 + i, 100 + i);
        CHECK(board_totals_save(&t));
    }
    CHECK_EQ(idf.blobs, 2);
    // Whichever of the two is broken, the other is there: the newest, or the one 10 s older.
    for (int broken = 0; broken < 2; broken++) {
        idf.blob[broken].bytes[30] ^= 0x10;
        CHECK(board_totals_load(&found));
        CHECK(found.sequence == 2004 || found.sequence == 2003);
        idf.blob[broken].bytes[30] ^= 0x10;
    }
    // After a start, the first save replaces the older one.
    CHECK(board_totals_load(&found));
    t = totals(2005, 105);
    CHECK(board_totals_save(&t));
    bool has_2004 = false;
    for (int i = 0; i < 2; i++) {
        CHECK(settings_totals_unpack(&found, idf.blob[i].bytes, idf.blob[i].length));
        has_2004 = has_2004 || found.sequence == 2004;
    }
    CHECK(has_2004);
    // A save that fails is said, and tried in the same place again.
    idf.nvs_set_error = ESP_FAIL;
    CHECK(!board_totals_save(&t));
    idf.nvs_set_error = ESP_OK;
    CHECK(board_totals_save(&t));
}

// ---- the display

static void display_is_looked_for(void) {
    fake_idf_reset();
    static struct display_frame frame;
    frame.page[7][127] = 0xa5;
    CHECK(board_oled_open());
    idf.oled_missing = true;
    for (int i = 0; i < 100; i++) { // 20 s
        CHECK(!board_oled_show(&frame));
        idf.now_us += 200000;
    }
    CHECK(idf.oled_inits >= 2 && idf.oled_inits <= 3);
    idf.oled_missing = false;
    idf.now_us += 10000000;
    CHECK(board_oled_show(&frame));
    CHECK_EQ(idf.oled[1023], 0xa5);
    idf.oled_missing = true;
    CHECK(!board_oled_show(&frame));
    idf.oled_missing = false;
    idf.now_us += 10000000;
    CHECK(board_oled_show(&frame));
}

// ---- lines

static char echoed[1024];

static enum board_line_result type(struct board_line *l, const char *text) {
    enum board_line_result result = BOARD_LINE_MORE;
    for (; *text != 0; text++) {
        char echo[9];
        result = board_line_type(l, (uint8_t)*text, echo);
        CHECK(strlen(echo) <= 8);
        strncat(echoed, echo, sizeof echoed - strlen(echoed) - 1);
    }
    return result;
}

static void expect(const char *typed, const char *line, const char *echo) {
    struct board_line l = {0};
    echoed[0] = 0;
    CHECK_EQ(type(&l, typed), BOARD_LINE_DONE);
    CHECK_STR(l.text, line);
    CHECK_EQ(l.length, strlen(line));
    if (echo != NULL) {
        CHECK_STR(echoed, echo);
    }
}

static void lines(void) {
    expect("show\r", "show", "show\r\n");
    expect("show\n", "show", "show\r\n");
    expect("shhow\b\b\x7f\x7fhow\r", "show", NULL);
    expect("\b\bx\r", "x", "x\r\n");
    expect("nonsense\x15help\r", "help", NULL);
    expect("nonsense\x03help\r", "help", NULL);
    expect("a\x1b[Ab\x1b[3~c\x1bOd\r", "abcd", NULL);
    expect("a\tb\x01\r", "ab", NULL);
    expect("name caf\xc3\xa9\r", "name caf\xc3\xa9", NULL);
    // A carriage return and a line feed are one end.
    struct board_line l = {0};
    CHECK_EQ(type(&l, "a\r"), BOARD_LINE_DONE);
    board_line_clear(&l);
    CHECK_EQ(type(&l, "\n"), BOARD_LINE_MORE);
    CHECK_EQ(type(&l, "b\n"), BOARD_LINE_DONE);
    CHECK_STR(l.text, "b");
}

static void secrets_are_not_echoed(void) {
    expect("key 0123ab\r", "key 0123ab", "key ******\r\n");
    expect("  key new\r", "  key new", "  key ***\r\n");
    expect("keys 12\r", "keys 12", "keys 12\r\n");
    expect("wifi net secret12\r", "wifi net secret12", "wifi net ********\r\n");
    expect("wifi \"my net\" \"a b c d e\"\r", "wifi \"my net\" \"a b c d e\"", "wifi \"my net\" ** * * * **\r\n");
    expect("wifi \"my\\\" net\" s\r", "wifi \"my\\\" net\" s", "wifi \"my\\\" net\" *\r\n");
    expect("psk set wattlet ABCD\r", "psk set wattlet ABCD", "psk set wattlet ****\r\n");
    expect("name bench-1\r", "name bench-1", "name bench-1\r\n");
    expect("channel 5 name key x\r", "channel 5 name key x", "channel 5 name key x\r\n");
}

static void long_lines(void) {
    struct board_line l = {0};
    for (int i = 0; i < 10000; i++) {
        char echo[9];
        CHECK_EQ(board_line_type(&l, 'x', echo), BOARD_LINE_MORE);
    }
    CHECK_EQ(l.length, SETTINGS_LINE);
    CHECK_EQ(type(&l, "\r"), BOARD_LINE_TOO_LONG);
    board_line_clear(&l);
    CHECK_EQ(l.length, 0);
    CHECK_EQ(type(&l, "x\r"), BOARD_LINE_DONE);
    // Any bytes: within bounds, always text, and an end comes.
    uint32_t random = 1;
    for (int i = 0; i < 1000000; i++) {
        char echo[9];
        random = random * 1664525 + 1013904223;
        enum board_line_result result = board_line_type(&l, (uint8_t)(random >> 24), echo);
        if (l.length > SETTINGS_LINE || l.text[l.length] != 0 || strlen(echo) > 8) {
            CHECK(!"within bounds");
            return;
        }
        if (result != BOARD_LINE_MORE) {
            board_line_clear(&l);
        }
    }
}

// ---- the chip

static void ids(void) {
    fake_idf_reset();
    char serial[18];
    board_serial(serial);
    CHECK_STR(serial, "24:0a:c4:01:02:03");
    CHECK_STR(board_start_reason(), "power-on");
    uint32_t before = 0;
    for (int i = 0; i < 1000; i++) {
        uint32_t id = board_boot_id();
        CHECK(id != 0 && id != before);
        before = id;
    }
    // Without randomness, starts still differ by what time it is.
    uint32_t a, b;
    idf.random = 7, idf.now_us = 1000000, a = board_boot_id();
    idf.random = 7, idf.now_us = 1000500, b = board_boot_id();
    CHECK(a != b);
    CHECK(!board_image_on_trial());
    idf.image = ESP_OTA_IMG_PENDING_VERIFY;
    CHECK(board_image_on_trial());
}

int main(void) {
    RUN(bus_carries_the_driver);
    RUN(bus_errors_are_told);
    RUN(bus_is_reset_after_many);
    RUN(bus_that_cannot_be_had);
    RUN(ticks_are_on_the_grid);
    RUN(waiting_ends_without_an_alarm);
    RUN(settings_are_kept);
    RUN(settings_are_not_erased_before_they_are_saved);
    RUN(totals_that_cannot_be_read_are_erased);
    RUN(totals_the_newest_counts);
    RUN(totals_in_rtc_memory);
    RUN(totals_one_record_broken);
    RUN(display_is_looked_for);
    RUN(lines);
    RUN(secrets_are_not_echoed);
    RUN(long_lines);
    RUN(ids);
    return check_end();
}
