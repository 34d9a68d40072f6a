// Batches, ring, queue and encoders. Protobuf and JSON are compared with golden files that Go made, and make some that Go reads:
// test_telemetry -update FOLDER writes them anew. test_telemetry_nanopb decodes what is made here.
#include "check.h"

#include "golden.h"
#include "telemetry.h"
#include "writer.h"

static struct telemetry_identity id;
static struct telemetry_interval interval, next;
static struct telemetry_batch batch;
static struct telemetry_ring ring;
static struct metering meter;
static uint8_t ring_buffer[65536];
static uint8_t body[8192];
static char json[8192];

// splitmix64 (Steele, Lea, Flood).
static uint64_t state = 1;
static uint64_t rnd(uint64_t below)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % below;
}
static int between(int low, int high) { return low + (int)rnd((uint64_t)(high - low + 1)); }

static void copy(char *to, const char *from) { memcpy(to, from, strlen(from) + 1); }

static void identify(int channels)
{
    memset(&id, 0, sizeof id);
    id.boot_id = 0x12345678;
    id.sweep_period_us = 2000;
    id.channels = channels;
    for (int c = 0; c < channels; c++) {
        id.channel[c].number = (uint8_t)(c + 1);
        id.channel[c].calibration.shunt_uohm = 100000;
    }
}

// ---- golden files that Go made

static void compare(size_t n, const uint8_t *golden, size_t golden_size, size_t json_n, const char *golden_json)
{
    if (CHECK_EQ(n, golden_size)) {
        CHECK_MEM(body, golden, n);
    }
    json[json_n] = 0;
    CHECK_STR(json, golden_json);
}

static void golden_identity_(void)
{
    identify(2);
    copy(id.name, "bench-1");
    copy(id.serial, "24:6f:28:aa:bb:cc");
    copy(id.hardware, "esp32-2xina3221");
    copy(id.firmware_version, "0.1.0");
    id.max_observers = 32;
    id.shunt_conversion_us = id.bus_conversion_us = 332;
    id.averaging = 1;
    id.report_interval_us = 100000;
    id.ring_us = 10000000;
    id.channel[0].calibration = (struct metering_calibration){100000, -1200, 8000};
    copy(id.channel[0].name, "raspberrypi");
    id.channel[1].number = 6;
    id.channel[1].calibration = (struct metering_calibration){20000, 350, -40000};
    copy(id.channel[1].name, "jetson-nano");
    id.channel[1].earlier_energy_uj = 157680000000000;
    id.channel[1].earlier_charge_uc = -31536000000000;
}

static void golden_batch(void)
{
    static const int16_t counts[4][2] = {{1250, -3}, {1313, -66}, {1250, 0}, {-4096, 4095}};
    static const bool ok[4][2] = {{true, true}, {true, true}, {false, true}, {true, true}};
    telemetry_batch_reset(&batch);
    for (int i = 0; i < 4; i++) {
        CHECK(telemetry_batch_fits(&batch, &id, NULL, counts[i], ok[i]));
        telemetry_batch_add(&batch, 2, counts[i], ok[i]);
    }
    telemetry_batch_close(&batch, &id, &interval);
}

static void golden_report_(void)
{
    interval = (struct telemetry_interval){
        .seq = 7, .t_us = 700000, .interval_us = 100000, .sweeps = 350, .channels = 2,
        .channel = {
            {{3500000, 700000, 2000, 0, 1}, {5000000, 5000000, 1000000, 127, 128, 8000, 16000}},
            {{-64, -65, 0, 3, 0}, {-1, -8000, -2, 0, 0, 0, 0}},
        },
    };
    golden_batch();
}

static void as_go_writes_them(void)
{
#define COMPARE(message, encoded, as_json) compare(encoded, golden_##message, sizeof golden_##message, as_json, golden_##message##_json)
    golden_identity_();
    COMPARE(identity, telemetry_encode_identity(&id, 123456789, body, sizeof body), telemetry_json_identity(&id, 123456789, json, sizeof json));
    golden_report_();
    COMPARE(report, telemetry_encode_report(&id, &interval, body, sizeof body), telemetry_json_report(&id, &interval, json, sizeof json));
    telemetry_ring_init(&ring, ring_buffer, sizeof ring_buffer, id.boot_id);
    telemetry_ring_add(&ring, &interval);
    COMPARE(samples, telemetry_encode_samples(&ring, 7, body, sizeof body), telemetry_json_samples(&ring, 7, json, sizeof json));
    telemetry_ring_init(&ring, ring_buffer, sizeof ring_buffer, id.boot_id);
    interval.seq = 8;
    interval.batch_length = 0;
    telemetry_ring_add(&ring, &interval);
    COMPARE(samples_empty, telemetry_encode_samples(&ring, 9, body, sizeof body), telemetry_json_samples(&ring, 9, json, sizeof json));
    COMPARE(time, telemetry_encode_time(id.boot_id, 1000000, 1000250, body, sizeof body),
            telemetry_json_time(id.boot_id, 1000000, 1000250, json, sizeof json));
    COMPARE(error, telemetry_encode_error(TELEMETRY_BUSY, "32 observers, no place left", 5000, body, sizeof body),
            telemetry_json_error(TELEMETRY_BUSY, "32 observers, no place left", 5000, json, sizeof json));

    identify(1);
    id.boot_id = 1;
    id.channel[0].number = 3;
    interval = (struct telemetry_interval){.seq = 1, .t_us = 100000, .interval_us = 100000, .channels = 1};
    COMPARE(report_idle, telemetry_encode_report(&id, &interval, body, sizeof body), telemetry_json_report(&id, &interval, json, sizeof json));

    identify(6);
    id.boot_id = UINT32_MAX;
    interval = (struct telemetry_interval){
        .seq = UINT32_MAX, .t_us = 315576000000000, .interval_us = UINT32_MAX, .sweeps = 157788000000, .channels = 6};
    for (unsigned c = 0; c < 6; c++) {
        interval.channel[c] = (struct telemetry_channel){
            {16942600000000000, 517000000000000, interval.t_us - c, interval.sweeps, interval.sweeps - c},
            {53687091, 32768000, 1638400, 107374182, 107374182, 65536000, 65536000},
        };
    }
    COMPARE(report_worst, telemetry_encode_report(&id, &interval, body, sizeof body), telemetry_json_report(&id, &interval, json, sizeof json));
}

// ---- golden files for Go, which internal/wire reads

static const char *update;

static void keep(const char *name, size_t n, const uint8_t *golden, size_t golden_size, size_t json_n, const char *golden_json)
{
    CHECK(n > 0 && json_n > 0);
    json[json_n] = 0;
#ifndef __riscv
    if (update) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s.hex", update, name);
        FILE *f = fopen(path, "w");
        for (size_t i = 0; f && i < n; i++) {
            fprintf(f, "%02x%c", body[i], i % 16 == 15 || i == n - 1 ? '\n' : ' ');
        }
        CHECK(f && fclose(f) == 0);
        snprintf(path, sizeof path, "%s/%s.json", update, name);
        f = fopen(path, "w");
        CHECK(f && fprintf(f, "%s\n", json) > 0 && fclose(f) == 0);
        return;
    }
#endif
    (void)name;
    compare(n, golden, golden_size, json_n, golden_json);
}

#define KEEP(name, message, encoded, as_json) keep(name, encoded, golden_##message, sizeof golden_##message, as_json, golden_##message##_json)

// A meter of six channels, a year old, at full rate: sweeps as the sampler takes them.
static uint64_t now_us, closed_us;

static void a_year_old(uint32_t period_us)
{
    identify(6);
    id.sweep_period_us = period_us;
    id.boot_id = 0xdeadbeef;
    struct metering_calibration c[6];
    for (int i = 0; i < 6; i++) {
        c[i] = id.channel[i].calibration;
    }
    CHECK(metering_init(&meter, c, 6));
    for (int i = 0; i < 6; i++) {
        meter.account[i].energy_uj = 157680000000000 + i; // 5 W
        meter.account[i].charge_uc = 31536000000000;
    }
    now_us = closed_us = 31536000000000;
    interval = (struct telemetry_interval){.seq = 315360000, .sweeps = now_us / period_us, .channels = 6};
    telemetry_batch_reset(&batch);
    telemetry_ring_init(&ring, ring_buffer, sizeof ring_buffer, id.boot_id);
}

static void close_report(void)
{
    interval.seq++;
    interval.t_us = now_us;
    interval.interval_us = (uint32_t)(now_us - closed_us);
    for (int c = 0; c < id.channels; c++) {
        metering_close(&meter, c, &interval.channel[c].totals, &interval.channel[c].interval);
    }
    telemetry_batch_close(&batch, &id, &interval);
    telemetry_batch_reset(&batch);
    telemetry_ring_add(&ring, &interval);
    closed_us = now_us;
}

static void preview(const int16_t *counts, const int16_t *bus, const bool *ok)
{
    next = interval;
    next.seq++;
    next.t_us = now_us + id.sweep_period_us;
    next.interval_us = (uint32_t)(next.t_us - closed_us);
    next.sweeps++;
    for (int c = 0; c < id.channels; c++) {
        metering_preview(&meter, c, ok[c], counts[c], bus[c], id.sweep_period_us, &next.channel[c].totals, &next.channel[c].interval);
    }
}

static bool fits(const int16_t *counts, const int16_t *bus, const bool *ok)
{
    if (telemetry_batch_fits(&batch, &id, NULL, counts, ok)) {
        return true;
    }
    preview(counts, bus, ok);
    return telemetry_batch_fits(&batch, &id, &next, counts, ok);
}

static void sweep(const int16_t *counts, const int16_t *bus, const bool *ok)
{
    telemetry_batch_add(&batch, id.channels, counts, ok);
    for (int c = 0; c < id.channels; c++) {
        if (ok[c]) {
            metering_add(&meter, c, counts[c], bus[c], id.sweep_period_us);
        } else {
            metering_miss(&meter, c, id.sweep_period_us);
        }
    }
    now_us += id.sweep_period_us;
    interval.sweeps++;
}

static const bool all_ok[METERING_MAX_CHANNELS] = {true, true, true, true, true, true, true, true, true, true, true, true};

// Noise of 4 counts, as the sum of four even ones of its half-width 3.5 has it.
static void noisy(int16_t *counts, int16_t *bus)
{
    for (int c = 0; c < 6; c++) {
        int noise = 0;
        for (int i = 0; i < 4; i++) {
            noise += between(-7, 7);
        }
        counts[c] = (int16_t)(1230 + noise / 2);
        bus[c] = (int16_t)between(637, 640);
    }
}

// Takes sweeps until a report is closed, after so many or because it is full. Returns how many it has.
static int take(int sweeps, bool wild)
{
    for (int n = 0;; n++) {
        int16_t counts[6], bus[6];
        bool ok[6];
        noisy(counts, bus);
        for (int c = 0; c < 6; c++) {
            ok[c] = !wild || rnd(10) > 0;
            if (wild) {
                counts[c] = (int16_t)between(-4096, 4095);
                bus[c] = (int16_t)between(-4096, 4095);
            }
        }
        if (n == sweeps || !fits(counts, bus, ok)) {
            close_report();
            return n;
        }
        sweep(counts, bus, ok);
    }
}

static void for_go_to_read(void)
{
    state = 7;
    golden_identity_();
    copy(id.name, "b\xc3\xa4nk <1> & \"2\"\\\t\x01\x7f");
    copy(id.hardware, "\xe2\x80\xa8\xf0\x9f\x94\x8c \xff\xc0\xaf\xed\xa0\x80.");
    // A name cut in the middle of a character.
    memcpy(id.channel[0].name, "abcdefghijklmnopqrstuvwxyz0123\xc3", 32);
    KEEP("firmware-identity", firmware_identity, telemetry_encode_identity(&id, UINT64_MAX, body, sizeof body),
         telemetry_json_identity(&id, UINT64_MAX, json, sizeof json));

    a_year_old(1000);
    CHECK_EQ(take(100, false), 100);
    KEEP("firmware-report", firmware_report, telemetry_encode_report(&id, &interval, body, sizeof body),
         telemetry_json_report(&id, &interval, json, sizeof json));
    CHECK(take(100, true) > 20);
    KEEP("firmware-report-wild", firmware_report_wild, telemetry_encode_report(&id, &interval, body, sizeof body),
         telemetry_json_report(&id, &interval, json, sizeof json));
    for (int i = 0; i < 5; i++) {
        take(30, i == 2);
    }
    KEEP("firmware-samples", firmware_samples, telemetry_encode_samples(&ring, interval.seq - 4, body, sizeof body),
         telemetry_json_samples(&ring, interval.seq - 4, json, sizeof json));
    KEEP("firmware-time", firmware_time, telemetry_encode_time(1, 0, INT64_MAX / 1000, body, sizeof body),
         telemetry_json_time(1, 0, INT64_MAX / 1000, json, sizeof json));
    const char *message = "from=\xe2\x82\xac: from is the number of a report, and this is a text that goes on and on until it is longer than a line may be \xe2\x82\xac";
    CHECK_EQ(strlen(message), 122); // the last character ends behind the 120 bytes
    KEEP("firmware-error", firmware_error, telemetry_encode_error(TELEMETRY_BAD_REQUEST, message, 0, body, sizeof body),
         telemetry_json_error(TELEMETRY_BAD_REQUEST, message, 0, json, sizeof json));
}

// ---- what fits

// 100 ms of six channels at 1 kHz, after a year, with noise of 4 counts.
static void a_hundred_sweeps_fit(void)
{
    state = 3;
    size_t largest = 0;
    a_year_old(1000);
    for (int report = 0; report < 50; report++) {
        CHECK_EQ(take(100, false), 100);
        size_t n = telemetry_encode_report(&id, &interval, body, sizeof body);
        CHECK(n > 0 && n <= TELEMETRY_MAX_BODY);
        CHECK(n > interval.batch_length);
        largest = n > largest ? n : largest;
    }
    printf("100 sweeps of 6 channels after a year: at most %lu bytes\n", (unsigned long)largest);
}

static void random_meter(void)
{
    identify(between(1, METERING_MAX_CHANNELS));
    struct metering_calibration c[METERING_MAX_CHANNELS];
    for (int i = 0; i < id.channels; i++) {
        id.channel[i].number = (uint8_t)(i * 21 + between(1, 20));
        c[i] = (struct metering_calibration){(uint32_t)(rnd(4) ? between(10000, 200000) : 100), between(-500000, 500000), between(-100000000, 100000000)};
        if (rnd(2)) {
            c[i].gain_ppm = c[i].offset_nv = 0;
        }
        id.channel[i].calibration = c[i];
    }
    CHECK(metering_init(&meter, c, id.channels));
    uint64_t past = rnd(3) ? rnd(1u << 20) : rnd(315576000000000);
    for (int i = 0; i < id.channels; i++) {
        meter.account[i].energy_uj = (int64_t)past * between(-50, 50);
        meter.account[i].charge_uc = (int64_t)past * between(-5, 5);
        meter.account[i].unmeasured_us = rnd(2) ? 0 : rnd(past + 1);
        meter.account[i].sensor_errors = meter.account[i].unmeasured_us / 2000;
        meter.account[i].saturated = rnd(2) ? 0 : rnd(past / 2000 + 1);
    }
    now_us = closed_us = past;
    id.sweep_period_us = (uint32_t)between(100, 20000);
    interval = (struct telemetry_interval){.seq = (uint32_t)rnd(past / 1000 + 1), .sweeps = past / 1000, .channels = id.channels};
    telemetry_batch_reset(&batch);
    telemetry_ring_init(&ring, ring_buffer, sizeof ring_buffer, id.boot_id);
}

static size_t list_size(void)
{
    struct writer w = {0};
    encode_past_head(&w, interval.seq, interval.t_us, interval.sweeps, interval.batch_length);
    return LIST_BOOT + w.length + interval.batch_length + LIST_NEXT;
}

// A report is closed at the last sweep that fits and not at one before, whatever loads, faults and totals are.
static void no_byte_is_wasted_and_none_too_many(void)
{
    static struct telemetry_batch forced;
    state = 11;
    long full = 0;
    for (int round = 0; round < 400; round++) {
        random_meter();
        int wild = between(0, 3), faults = between(1, 40);
        for (int report = 0; report < 3; report++) {
            for (int n = 0; n < TELEMETRY_MAX_SWEEPS + 1; n++) {
                int16_t counts[METERING_MAX_CHANNELS], bus[METERING_MAX_CHANNELS];
                bool ok[METERING_MAX_CHANNELS];
                for (int c = 0; c < id.channels; c++) {
                    counts[c] = (int16_t)(wild == 0 ? between(-4096, 4095) : 1000 + between(-20 * wild, 20 * wild));
                    bus[c] = (int16_t)(wild == 0 ? between(-4096, 4095) : between(600, 630));
                    ok[c] = rnd((uint64_t)faults + 1) > 0;
                }
                preview(counts, bus, ok);
                bool exact = telemetry_batch_fits(&batch, &id, &next, counts, ok);
                // The answer for all reports is never better than the exact one.
                CHECK(exact || !telemetry_batch_fits(&batch, &id, NULL, counts, ok));
                if (!exact) {
                    if (batch.sweeps < TELEMETRY_MAX_SWEEPS) {
                        // It would have been too much, by the report or by the list, or for the room of missed sweeps.
                        forced = batch;
                        telemetry_batch_add(&forced, id.channels, counts, ok);
                        if (forced.sweeps > batch.sweeps) {
                            size_t head = encode_report_size(&id, &next);
                            size_t payload = 0;
                            for (int c = 0; c < id.channels; c++) {
                                size_t a = forced.channel[c].length, b = forced.channel[c].missing_length;
                                size_t inner = 1 + writer_varint_size(id.channel[c].number) + (a ? 1 + writer_varint_size(a) + a : 0) +
                                               (b ? 1 + writer_varint_size(b) + b : 0);
                                payload += 1 + writer_varint_size(inner) + inner;
                            }
                            payload += 1 + writer_varint_size(id.sweep_period_us) + 1 + writer_varint_size(forced.sweeps);
                            struct writer past = {0};
                            encode_past_head(&past, next.seq, next.t_us, next.sweeps, payload);
                            CHECK(head + 1 + writer_varint_size(payload) + payload > TELEMETRY_MAX_BODY ||
                                  LIST_BOOT + past.length + payload + LIST_NEXT > TELEMETRY_MAX_BODY);
                            full++;
                        }
                    }
                    break;
                }
                sweep(counts, bus, ok);
            }
            close_report();
            size_t n = telemetry_encode_report(&id, &interval, body, sizeof body);
            CHECK(n > 0 && n <= TELEMETRY_MAX_BODY);
            // With its batch, but for what one sweep in an empty batch may need.
            size_t with = encode_report_size(&id, &interval) + 1 + writer_varint_size(interval.batch_length) + interval.batch_length;
            CHECK_EQ(n, with);
            CHECK(list_size() <= TELEMETRY_MAX_BODY);
            CHECK(telemetry_encode_samples(&ring, interval.seq, body, sizeof body) > interval.batch_length);
        }
    }
    CHECK(full > 1000);
}

// Of a single channel at rest the list of past batches is larger than the report: it is the list that may not be too large, and it is filled to the last
// byte.
static void the_list_fits_as_well(void)
{
    identify(1);
    struct metering_calibration c = id.channel[0].calibration;
    CHECK(metering_init(&meter, &c, 1));
    now_us = closed_us = 0;
    id.sweep_period_us = 100;
    interval = (struct telemetry_interval){.channels = 1};
    telemetry_batch_reset(&batch);
    telemetry_ring_init(&ring, ring_buffer, sizeof ring_buffer, id.boot_id);
    const int16_t zero[1] = {0};
    while (fits(zero, zero, all_ok)) {
        sweep(zero, zero, all_ok);
    }
    CHECK(batch.sweeps < TELEMETRY_MAX_SWEEPS);
    close_report();
    CHECK_EQ(list_size(), TELEMETRY_MAX_BODY);
    CHECK(telemetry_encode_report(&id, &interval, body, sizeof body) < TELEMETRY_MAX_BODY);
    CHECK_EQ(telemetry_encode_samples(&ring, 1, body, sizeof body), TELEMETRY_MAX_BODY - LIST_NEXT + 2);
}

// The bound for all reports is that of the largest one, and no larger.
static void the_largest_report(void)
{
    identify(6);
    interval = (struct telemetry_interval){
        .seq = UINT32_MAX, .t_us = UINT64_MAX >> 8, .interval_us = UINT32_MAX, .sweeps = UINT64_MAX >> 15, .channels = 6};
    for (int c = 0; c < 6; c++) {
        id.channel[c].number = 255;
        interval.channel[c] = (struct telemetry_channel){
            {INT64_MIN, INT64_MIN, UINT64_MAX >> 8, UINT64_MAX >> 15, UINT64_MAX >> 15},
            {-130000000000, -32768000, -4000000000, 260000000000, 260000000000, 65536000, 65536000},
        };
    }
    size_t most = encode_report_size(&id, &interval);
    CHECK_EQ(most, 34 + 6 * 94);
    // A batch of any length is sure to fit exactly if it fits beside this report.
    for (int sweeps = 1; sweeps < 400; sweeps++) {
        telemetry_batch_reset(&batch);
        int16_t counts[6] = {0};
        for (int i = 0; i < sweeps; i++) {
            telemetry_batch_add(&batch, 6, counts, all_ok);
        }
        bool sure = telemetry_batch_fits(&batch, &id, NULL, counts, all_ok);
        CHECK_EQ(sure, telemetry_batch_fits(&batch, &id, &interval, counts, all_ok));
        telemetry_batch_add(&batch, 6, counts, all_ok);
        telemetry_batch_close(&batch, &id, &interval);
        if (interval.batch_length > 0) {
            size_t n = telemetry_encode_report(&id, &interval, body, sizeof body);
            CHECK_EQ(sure, n > most);
        }
    }
}

static void one_sweep_always_fits(void)
{
    identify(12);
    int16_t counts[12];
    for (int c = 0; c < 12; c++) {
        counts[c] = c % 2 ? 4095 : -4096;
        id.channel[c].number = (uint8_t)(200 + c);
    }
    telemetry_batch_reset(&batch);
    CHECK(telemetry_batch_fits(&batch, &id, NULL, counts, all_ok));
    telemetry_batch_add(&batch, 12, counts, all_ok);
    telemetry_batch_close(&batch, &id, &interval);
    CHECK(interval.batch_length > 0);

    // Twelve channels of 0.1 ohm after ten years of all there is have room for it.
    interval.channels = 12;
    interval.seq = UINT32_MAX;
    interval.t_us = interval.interval_us = 1000000;
    interval.t_us *= 315576000;
    interval.sweeps = 157788000000;
    for (int c = 0; c < 12; c++) {
        interval.channel[c] = (struct telemetry_channel){
            {-16942600000000000, -517000000000000, 315576000000000, 0, 157788000000},
            {-53687091, -32768000, -1638400, 107374182, 107374182, 65536000, 65536000},
        };
    }
    size_t n = telemetry_encode_report(&id, &interval, body, sizeof body);
    CHECK(n > 0 && n <= TELEMETRY_MAX_BODY);

    // What cannot be, in spite of all bounds, goes without its batch.
    for (int c = 0; c < 6; c++) {
        interval.channel[c].totals.energy_uj = interval.channel[c].totals.charge_uc = INT64_MIN;
    }
    interval.channels = 11;
    interval.batch_length = 900;
    n = telemetry_encode_report(&id, &interval, body, sizeof body);
    CHECK_EQ(n, encode_report_size(&id, &interval));
    CHECK(n > 0 && n <= TELEMETRY_MAX_BODY);
}

// Whoever does not ask what fits breaks nothing.
static void a_batch_does_not_overflow(void)
{
    static const bool none[METERING_MAX_CHANNELS];
    int16_t counts[METERING_MAX_CHANNELS] = {0};
    identify(1);
    telemetry_batch_reset(&batch);
    for (int i = 0; i < 5000; i++) {
        counts[0] = (int16_t)(i % 2 ? INT16_MAX : INT16_MIN);
        telemetry_batch_add(&batch, 1, counts, all_ok);
    }
    CHECK(batch.channel[0].length <= sizeof batch.channel[0].deltas);
    CHECK_EQ(batch.sweeps, batch.channel[0].counts);
    telemetry_batch_close(&batch, &id, &interval);
    CHECK_EQ(interval.batch_length, 0); // and what does not fit is no batch
    telemetry_batch_reset(&batch);
    for (int i = 0; i < 5000; i++) {
        telemetry_batch_add(&batch, 1, counts, none);
    }
    CHECK(batch.channel[0].missing_length <= sizeof batch.channel[0].missed);
    CHECK(batch.channel[0].missing > 150);
    CHECK(!telemetry_batch_fits(&batch, &id, NULL, counts, none));

    // A batch of a thousand sweeps is full, however small they are.
    identify(1);
    telemetry_batch_reset(&batch);
    id.channels = 0;
    for (int i = 0; i < TELEMETRY_MAX_SWEEPS; i++) {
        CHECK(telemetry_batch_fits(&batch, &id, NULL, counts, all_ok));
        telemetry_batch_add(&batch, 0, counts, all_ok);
    }
    CHECK(!telemetry_batch_fits(&batch, &id, NULL, counts, all_ok));

    telemetry_batch_reset(&batch);
    telemetry_batch_close(&batch, &id, &interval);
    CHECK_EQ(interval.batch_length, 0);
}

// ---- the ring

// Ten seconds at 500 Hz with noise of 4 counts, in the 40 kB that the header promises to be enough.
static void ten_seconds_in_forty_kilobytes(void)
{
    a_year_old(2000);
    telemetry_ring_init(&ring, ring_buffer, 40000, id.boot_id);
    for (int i = 0; i < 500; i++) {
        CHECK_EQ(take(50, false), 50);
    }
    uint32_t kept = ring.next - ring.first;
    printf("a ring of 40 kB keeps %lu.%lu s of six channels at 500 Hz\n", (unsigned long)kept / 10, (unsigned long)kept % 10);
    CHECK(kept >= 100);
    CHECK(kept < 500);
}

// Reads all that the ring has from a seq on, list by list, and checks that it holds together. Returns how many batches there were.
static int read_on(uint32_t from)
{
    static uint8_t again[TELEMETRY_MAX_BODY];
    int lists = 0;
    while (from < ring.next && ++lists < 2000) {
        size_t n = telemetry_encode_samples(&ring, from, body, sizeof body);
        CHECK(n > LIST_BOOT + 2 && n <= TELEMETRY_MAX_BODY);
        CHECK_EQ(telemetry_encode_samples(&ring, from, again, sizeof again), n);
        CHECK_MEM(again, body, n);
        size_t begin, end;
        uint32_t to = ring_select(&ring, from, TELEMETRY_MAX_BODY - LIST_BOOT - LIST_NEXT, &begin, &end);
        if (!CHECK(to > from && end > begin)) {
            break;
        }
        from = to;
    }
    return lists;
}

static void the_oldest_goes_whole(void)
{
    static uint8_t first[TELEMETRY_MAX_BODY], second[TELEMETRY_MAX_BODY];
    state = 5;
    for (size_t size = 1000; size < 5000; size += 371) {
        a_year_old(2000);
        interval.seq = 0;
        telemetry_ring_init(&ring, ring_buffer, size, id.boot_id);
        CHECK_EQ(ring.next, 1);
        size_t n = telemetry_encode_samples(&ring, 0, body, sizeof body);
        CHECK_EQ(n, LIST_BOOT + 2);
        for (int i = 0; i < 300; i++) {
            take(between(1, 60), rnd(4) == 0);
            CHECK_EQ(ring.next, interval.seq + 1);
            CHECK(ring.used <= size);
            // The newest is there, as the report has it.
            size_t m = telemetry_encode_samples(&ring, interval.seq, first, sizeof first);
            struct writer head = {0};
            encode_past_head(&head, interval.seq, interval.t_us, interval.sweeps, interval.batch_length);
            CHECK_EQ(m, LIST_BOOT + head.length + interval.batch_length + 1 + writer_varint_size(ring.next));
            CHECK_MEM(first + LIST_BOOT + head.length, interval.batch, interval.batch_length);
            // Older than the ring is as from its oldest.
            m = telemetry_encode_samples(&ring, 0, first, sizeof first);
            CHECK_EQ(telemetry_encode_samples(&ring, ring.first, second, sizeof second), m);
            CHECK_MEM(first, second, m);
            // Not yet made is nothing.
            m = telemetry_encode_samples(&ring, ring.next, body, sizeof body);
            CHECK_EQ(m, LIST_BOOT + 1 + writer_varint_size(ring.next));
            if (i % 50 == 0) {
                CHECK(read_on(ring.first) > 0);
            }
        }
        CHECK(ring.first > 200);
    }
    // A batch larger than the ring is not kept, and breaks nothing.
    telemetry_ring_init(&ring, ring_buffer, 50, id.boot_id);
    take(50, true);
    CHECK_EQ(ring.next, interval.seq + 1);
    CHECK_EQ(ring.first, ring.next);
    CHECK_EQ(ring.used, 0);
    telemetry_ring_init(&ring, NULL, 0, id.boot_id);
    take(50, true);
    CHECK(telemetry_encode_samples(&ring, 0, body, sizeof body) > 0);
}

// A buffer that holds fewer batches than a datagram gets fewer, and is told where to go on.
static void samples_as_json_fit_their_buffer(void)
{
    a_year_old(2000);
    telemetry_ring_init(&ring, ring_buffer, sizeof ring_buffer, id.boot_id);
    for (int i = 0; i < 20; i++) {
        take(10, false);
    }
    size_t whole = telemetry_json_samples(&ring, 0, json, sizeof json), last = 0;
    CHECK(whole > 2000);
    int steps = 0;
    for (size_t size = 0; size <= whole + 60; size++) {
        size_t n = telemetry_json_samples(&ring, 0, json, size);
        CHECK(n <= size && n >= last);
        CHECK(n == 0 || (json[0] == '{' && json[n - 1] == '}' && json[n - 2] == ']'));
        steps += n > last;
        last = n;
    }
    CHECK_EQ(last, whole);
    CHECK(steps > 3);
}

// ---- small buffers

static void what_does_not_fit_is_nothing(void)
{
    golden_identity_();
    golden_report_();
    telemetry_ring_init(&ring, ring_buffer, sizeof ring_buffer, id.boot_id);
    telemetry_ring_add(&ring, &interval);
    for (int which = 0; which < 9; which++) {
        size_t whole = 0;
        for (size_t size = sizeof body; size != (size_t)-1; size = size > 1200 ? 1200 : size - 1) {
            memset(body, 0xa5, sizeof body);
            char *text = (char *)body;
            size_t n = which == 0   ? telemetry_encode_identity(&id, 123456789, body, size)
                       : which == 1 ? telemetry_encode_report(&id, &interval, body, size)
                       : which == 2 ? telemetry_encode_samples(&ring, 0, body, size)
                       : which == 3 ? telemetry_encode_time(1, 2, 3, body, size)
                       : which == 4 ? telemetry_encode_error(TELEMETRY_BUSY, "busy", 1, body, size)
                       : which == 5 ? telemetry_json_identity(&id, 123456789, text, size)
                       : which == 6 ? telemetry_json_report(&id, &interval, text, size)
                       : which == 7 ? telemetry_json_time(1, 2, 3, text, size)
                                    : telemetry_json_error(TELEMETRY_BUSY, "busy", 1, text, size);
            whole = whole ? whole : n;
            CHECK(n <= size);
            if (which == 1 || which == 2) {
                CHECK(size < whole ? n < whole : n <= whole); // a report goes without its batch, a list with fewer
            } else {
                CHECK_EQ(n, size < whole ? 0 : whole);
            }
            for (size_t i = size; i < sizeof body; i++) {
                if (body[i] != 0xa5) {
                    CHECK_EQ(i, size - 1);
                    break;
                }
            }
        }
        CHECK(whole > 0);
    }
}

// ---- text

static void names_are_utf8(void)
{
    static const struct { const char *in, *out; } cases[] = {
        {"plain", "plain"},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x94\x8c", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x94\x8c"},
        {"\x80", "?"}, {"\xc3", "?"}, {"\xc3(", "?("}, {"\xc0\xaf", "??"}, {"\xe0\x80\xaf", "???"}, {"\xe2\x82", "??"},
        {"\xed\xa0\x80", "???"}, {"\xed\x9f\xbf", "\xed\x9f\xbf"}, {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"}, {"\xf4\x90\x80\x80", "????"},
        {"\xf0\x8f\xbf\xbf", "????"}, {"\xf5\x80\x80\x80", "????"}, {"\xfe\xff", "??"}, {"\xf0\x9f\x94", "???"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char out[64];
        uint8_t c[4];
        size_t length = 0, n;
        for (size_t at = 0; (n = writer_character(cases[i].in + at, 60 - at, c)) > 0; at += n) {
            memcpy(out + length, c, n);
            length += n;
        }
        out[length] = 0;
        CHECK_STR(out, cases[i].out);
    }
    CHECK_EQ(writer_character("\xc3\xa4", 1, (uint8_t[4]){0}), 1);
    // A name that fills its room has no zero.
    golden_identity_();
    memset(id.name, 'x', sizeof id.name);
    size_t n = telemetry_encode_identity(&id, 1, body, sizeof body);
    CHECK(n > 0 && body[7] == 0x22 && body[8] == sizeof id.name && body[9 + sizeof id.name] == 0x2a);
}

// ---- the queue, as one task sees it; test_telemetry_queue has two

static void the_queue_in_turn(void)
{
    static struct telemetry_queue q;
    telemetry_queue_init(&q);
    // Counts go round.
    q.head = q.tail = UINT32_MAX - 5;
    CHECK(!telemetry_queue_peek(&q));
    for (uint32_t round = 1; round < 20; round++) {
        for (uint32_t i = 0; i < TELEMETRY_QUEUE; i++) {
            struct telemetry_interval *slot = telemetry_queue_slot(&q);
            if (!CHECK(slot != NULL)) {
                return;
            }
            CHECK(telemetry_queue_slot(&q) == slot);
            slot->seq = round * 10 + i;
            telemetry_queue_publish(&q);
        }
        CHECK(!telemetry_queue_slot(&q));
        telemetry_queue_drop(&q);
        for (uint32_t i = 0; i < TELEMETRY_QUEUE; i++) {
            const struct telemetry_interval *taken = telemetry_queue_peek(&q);
            if (!CHECK(taken != NULL)) {
                return;
            }
            CHECK(telemetry_queue_peek(&q) == taken);
            CHECK_EQ(taken->seq, round * 10 + i);
            telemetry_queue_done(&q);
        }
        CHECK(!telemetry_queue_peek(&q));
        CHECK_EQ(q.dropped, round);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "-update") == 0) {
        update = argv[2];
        RUN(for_go_to_read);
        return check_end();
    }
    RUN(as_go_writes_them);
    RUN(for_go_to_read);
    RUN(a_hundred_sweeps_fit);
    RUN(no_byte_is_wasted_and_none_too_many);
    RUN(the_list_fits_as_well);
    RUN(the_largest_report);
    RUN(one_sweep_always_fits);
    RUN(a_batch_does_not_overflow);
    RUN(ten_seconds_in_forty_kilobytes);
    RUN(the_oldest_goes_whole);
    RUN(samples_as_json_fit_their_buffer);
    RUN(what_does_not_fit_is_nothing);
    RUN(names_are_utf8);
    RUN(the_queue_in_turn);
    return check_end();
}
