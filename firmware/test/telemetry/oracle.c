#include "oracle.h"

#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "meter.pb.h"
#include "telemetry.h"

#define MUST(condition) ((condition) ? (void)0 : fail(__LINE__, #condition))

static void fail(int line, const char *what)
{
    fprintf(stderr, "oracle.c:%d: %s does not hold\n", line, what);
    abort();
}

// ---- input

struct input {
    const uint8_t *bytes;
    size_t n, at;
};

static uint8_t byte(struct input *in) { return in->at < in->n ? in->bytes[in->at++] : 0; }

// A number of any size, small ones as likely as large ones.
static uint64_t number(struct input *in, unsigned bits)
{
    uint64_t v = 0;
    unsigned length = byte(in) % (bits / 8 + 1);
    for (unsigned i = 0; i < length; i++) {
        v = v << 8 | byte(in);
    }
    return bits < 64 ? v & ((UINT64_C(1) << bits) - 1) : v;
}

static int32_t within(struct input *in, int32_t limit)
{
    int64_t v = (int64_t)number(in, 32) % (limit + 1);
    return (int32_t)(byte(in) & 1 ? -v : v);
}

static void name(struct input *in, char *text, size_t size)
{
    size_t n = byte(in) % (size + 1);
    memset(text, 0, size);
    for (size_t i = 0; i < n; i++) {
        text[i] = (char)byte(in);
    }
}

// ---- what went in

// Of each closed report, what was put into its batch.
#define KEPT 64
struct record {
    struct telemetry_interval interval;
    uint32_t sweeps, counts[METERING_MAX_CHANNELS], missing[METERING_MAX_CHANNELS];
    int16_t count[METERING_MAX_CHANNELS][TELEMETRY_MAX_SWEEPS];
    uint16_t missed[METERING_MAX_CHANNELS][TELEMETRY_MAX_SWEEPS];
};

static struct record records[KEPT];
static unsigned recorded;
static struct telemetry_identity id;
static struct metering meter;
static struct telemetry_batch batch;
static struct telemetry_ring ring;
static uint8_t ring_buffer[6000], body[2000];
static char json[9000];
static wattlet_meter_v1_Report decoded;
static wattlet_meter_v1_PastBatch past;

static void identify(struct input *in)
{
    struct metering_calibration calibration[METERING_MAX_CHANNELS];
    memset(&id, 0, sizeof id);
    id.boot_id = (uint32_t)number(in, 32) | 1;
    name(in, id.name, sizeof id.name);
    name(in, id.serial, sizeof id.serial);
    name(in, id.hardware, sizeof id.hardware);
    id.max_observers = (uint32_t)number(in, 32);
    id.sweep_period_us = (uint32_t)number(in, 24) + 1;
    id.shunt_conversion_us = (uint32_t)number(in, 32);
    id.averaging = (uint32_t)number(in, 32);
    id.channels = byte(in) % METERING_MAX_CHANNELS + 1;
    for (int c = 0; c < id.channels; c++) {
        calibration[c] = (struct metering_calibration){(uint32_t)number(in, 32) % 9999901 + 100, within(in, 500000), within(in, 100000000)};
        id.channel[c].number = (uint8_t)(c * 20 + byte(in) % 20 + 1);
        id.channel[c].calibration = calibration[c];
        name(in, id.channel[c].name, sizeof id.channel[c].name);
        id.channel[c].earlier_energy_uj = (int64_t)number(in, 64);
        id.channel[c].earlier_charge_uc = (int64_t)number(in, 64);
    }
    MUST(metering_init(&meter, calibration, id.channels));
    for (int c = 0; c < id.channels; c++) {
        int sign = byte(in) & 1 ? -1 : 1;
        meter.account[c].energy_uj = sign * (int64_t)number(in, 48);
        meter.account[c].charge_uc = sign * (int64_t)number(in, 48);
        meter.account[c].unmeasured_us = number(in, 48);
        meter.account[c].saturated = number(in, 40);
        meter.account[c].sensor_errors = number(in, 40);
    }
}

// ---- what comes out

static bool same_text(const char *a, size_t max, const char *b)
{
    size_t i = 0;
    for (; i < max && a[i]; i++) {
        // What was no UTF-8 has become a question mark.
        if (a[i] != b[i] && !((uint8_t)a[i] >= 0x80 && b[i] == '?')) {
            return false;
        }
    }
    return b[i] == 0;
}

static void check_identity(uint64_t now_us)
{
    static wattlet_meter_v1_Identity m;
    m = (wattlet_meter_v1_Identity)wattlet_meter_v1_Identity_init_zero;
    size_t n = telemetry_encode_identity(&id, now_us, body, sizeof body);
    MUST(n > 0);
    pb_istream_t stream = pb_istream_from_buffer(body, n);
    MUST(pb_decode(&stream, wattlet_meter_v1_Identity_fields, &m));
    MUST(m.boot_id == id.boot_id && m.wire_revision == TELEMETRY_REVISION && m.min_reader == 0 && m.t_us == now_us && m.max_observers == id.max_observers);
    MUST(same_text(id.name, sizeof id.name, m.name) && same_text(id.serial, sizeof id.serial, m.serial));
    MUST(same_text(id.hardware, sizeof id.hardware, m.hardware) && m.firmware_version[0] == 0);
    MUST(m.has_sampling && m.sampling.sweep_period_us == id.sweep_period_us && m.sampling.shunt_conversion_us == id.shunt_conversion_us);
    MUST(m.sampling.bus_conversion_us == 0 && m.sampling.averaging == id.averaging && m.capabilities_count == 2);
    MUST(m.channels_count == id.channels);
    for (int c = 0; c < id.channels; c++) {
        const wattlet_meter_v1_ChannelInfo *i = &m.channels[c];
        MUST(i->channel == id.channel[c].number && i->shunt_uohm == id.channel[c].calibration.shunt_uohm);
        MUST(i->gain_ppm == id.channel[c].calibration.gain_ppm && i->offset_nv == id.channel[c].calibration.offset_nv);
        MUST(i->count_nv == 40000 && i->full_scale_counts == 4095 && same_text(id.channel[c].name, sizeof id.channel[c].name, i->name));
        MUST(i->earlier_energy_uj == id.channel[c].earlier_energy_uj && i->earlier_charge_uc == id.channel[c].earlier_charge_uc);
    }
    n = telemetry_json_identity(&id, now_us, json, sizeof json);
    MUST(n > 0 && json[0] == '{' && json[n - 1] == '}');
}

static void check_batch(const wattlet_meter_v1_Batch *m, const struct record *r)
{
    MUST(m->sample_period_us == id.sweep_period_us && m->sweeps == r->sweeps && m->channels_count == id.channels);
    for (int c = 0; c < id.channels; c++) {
        const wattlet_meter_v1_ChannelSamples *s = &m->channels[c];
        MUST(s->channel == id.channel[c].number && s->delta_counts_count == r->counts[c] && s->missing_count == r->missing[c]);
        int32_t count = 0;
        for (unsigned i = 0; i < s->delta_counts_count; i++) {
            count += s->delta_counts[i];
            MUST(count == r->count[c][i]);
        }
        for (unsigned i = 0; i < s->missing_count; i++) {
            MUST(s->missing[i] == r->missed[c][i]);
        }
    }
}

static void check_report(const struct record *r)
{
    const struct telemetry_interval *i = &r->interval;
    decoded = (wattlet_meter_v1_Report)wattlet_meter_v1_Report_init_zero;
    size_t n = telemetry_encode_report(&id, i, body, sizeof body);
    MUST(n > 0 && n <= TELEMETRY_MAX_BODY);
    pb_istream_t stream = pb_istream_from_buffer(body, n);
    MUST(pb_decode(&stream, wattlet_meter_v1_Report_fields, &decoded));
    MUST(decoded.boot_id == id.boot_id && decoded.seq == i->seq && decoded.t_us == i->t_us && decoded.interval_us == i->interval_us);
    MUST(decoded.sweeps == i->sweeps && decoded.min_reader == 0 && decoded.channels_count == id.channels);
    for (int c = 0; c < id.channels; c++) {
        const wattlet_meter_v1_ChannelReport *m = &decoded.channels[c];
        const struct metering_totals *t = &i->channel[c].totals;
        const struct metering_interval *v = &i->channel[c].interval;
        MUST(m->channel == id.channel[c].number && m->energy_uj == t->energy_uj && m->charge_uc == t->charge_uc);
        MUST(m->unmeasured_us == t->unmeasured_us && m->saturated == t->saturated && m->sensor_errors == t->sensor_errors);
        MUST(m->power_uw == v->power_uw && m->voltage_uv == v->voltage_uv && m->current_ua == v->current_ua);
        MUST(m->power_drop_uw == v->power_drop_uw && m->power_rise_uw == v->power_rise_uw);
        MUST(m->voltage_drop_uv == v->voltage_drop_uv && m->voltage_rise_uv == v->voltage_rise_uv);
    }
    // Of one sweep of many channels with large numbers a report may go without; more sweeps are there because they fitted.
    MUST(decoded.has_batch || r->sweeps <= 1);
    if (decoded.has_batch) {
        check_batch(&decoded.batch, r);
    }
    n = telemetry_json_report(&id, i, json, sizeof json);
    MUST(n > 0 && json[0] == '{' && json[n - 1] == '}');
}

struct list {
    uint32_t first, last;
    unsigned batches;
};

static bool read_past(pb_istream_t *stream, const pb_field_t *field, void **argument)
{
    (void)field;
    struct list *list = *argument;
    past = (wattlet_meter_v1_PastBatch)wattlet_meter_v1_PastBatch_init_zero;
    if (!pb_decode(stream, wattlet_meter_v1_PastBatch_fields, &past)) {
        return false;
    }
    const struct record *r = &records[past.seq % KEPT];
    MUST(r->interval.seq == past.seq && r->interval.t_us == past.t_us && r->interval.sweeps == past.sweeps && past.has_batch);
    MUST(list->batches == 0 || past.seq == list->last + 1);
    check_batch(&past.batch, r);
    list->first = list->batches++ == 0 ? past.seq : list->first;
    list->last = past.seq;
    return true;
}

static void check_samples(uint32_t from, struct oracle_tally *tally)
{
    struct list list = {0};
    size_t n = telemetry_encode_samples(&ring, from, body, sizeof body);
    MUST(n > 0 && n <= TELEMETRY_MAX_BODY);
    wattlet_meter_v1_SampleList m = wattlet_meter_v1_SampleList_init_zero;
    m.batches.funcs.decode = read_past;
    m.batches.arg = &list;
    pb_istream_t stream = pb_istream_from_buffer(body, n);
    MUST(pb_decode(&stream, wattlet_meter_v1_SampleList_fields, &m));
    MUST(m.boot_id == id.boot_id);
    if (from >= ring.next) {
        MUST(list.batches == 0 && m.next == ring.next);
    } else if (ring.first < ring.next) {
        MUST(list.batches > 0 && list.first == (from > ring.first ? from : ring.first) && m.next == list.last + 1);
    }
    static uint8_t again[TELEMETRY_MAX_BODY];
    MUST(telemetry_encode_samples(&ring, from, again, sizeof again) == n && memcmp(body, again, n) == 0);
    n = telemetry_json_samples(&ring, from, json, sizeof json);
    MUST(n > 0 && json[0] == '{' && json[n - 1] == '}');
    tally->lists++;
    tally->batches += list.batches;
}

// ---- a run

static uint64_t closed_us;

static void close_report(struct record *r, struct oracle_tally *tally)
{
    struct telemetry_interval *i = &r->interval;
    i->interval_us = (uint32_t)(i->t_us - closed_us);
    for (int c = 0; c < id.channels; c++) {
        metering_close(&meter, c, &i->channel[c].totals, &i->channel[c].interval);
    }
    telemetry_batch_close(&batch, &id, i);
    telemetry_batch_reset(&batch);
    telemetry_ring_add(&ring, i);
    closed_us = i->t_us;
    check_report(r);
    tally->reports++;
}

static struct record *open_report(const struct telemetry_interval *before)
{
    struct record *r = &records[(before->seq + 1) % KEPT];
    r->interval.seq = before->seq + 1;
    r->interval.t_us = before->t_us;
    r->interval.sweeps = before->sweeps;
    r->interval.channels = id.channels;
    r->sweeps = 0;
    memset(r->counts, 0, sizeof r->counts);
    memset(r->missing, 0, sizeof r->missing);
    recorded++;
    return r;
}

void oracle_run(const uint8_t *bytes, size_t n, struct oracle_tally *tally)
{
    static struct telemetry_interval next;
    struct input in = {bytes, n, 0};
    identify(&in);
    check_identity(number(&in, 64));
    telemetry_ring_init(&ring, ring_buffer, 1100 + number(&in, 16) % (sizeof ring_buffer - 1100), id.boot_id);
    telemetry_batch_reset(&batch);
    memset(&next, 0, sizeof next);
    next.t_us = number(&in, 48);
    next.sweeps = number(&in, 40);
    closed_us = next.t_us;
    recorded = 0;
    struct record *r = open_report(&next);

    while (in.at < in.n) {
        // A byte says what comes: a sweep of small or of wild counts, repeated so many times, or the end of the report, or a request.
        uint8_t what = byte(&in);
        if (what >= 0xf0) {
            uint32_t from = r->interval.seq + 3u - byte(&in) % 70u;
            check_samples(from > r->interval.seq + 3 ? 0 : from, tally);
            continue;
        }
        if (what >= 0xe0) {
            if (r->sweeps > 0) {
                close_report(r, tally);
                r = open_report(&r->interval);
            }
            continue;
        }
        int16_t counts[METERING_MAX_CHANNELS], bus[METERING_MAX_CHANNELS];
        bool ok[METERING_MAX_CHANNELS];
        unsigned failed = what & 1 ? (unsigned)byte(&in) << 8 | byte(&in) : 0;
        for (int c = 0; c < id.channels; c++) {
            uint8_t b = byte(&in);
            counts[c] = (int16_t)(what & 2 ? (int16_t)(b << 8 | byte(&in)) / 8 : (int8_t)b);
            bus[c] = (int16_t)(what & 4 ? (int16_t)(b << 8 | (b ^ 0x5a)) / 8 : 600 + b % 8);
            ok[c] = !(failed >> c & 1);
        }
        for (unsigned repeat = what & 8 ? (what >> 4) * 4u : 1; repeat > 0; repeat--) {
            next = r->interval;
            next.t_us += id.sweep_period_us;
            next.interval_us = (uint32_t)(next.t_us - closed_us);
            next.sweeps++;
            for (int c = 0; c < id.channels; c++) {
                metering_preview(&meter, c, ok[c], counts[c], bus[c], id.sweep_period_us, &next.channel[c].totals, &next.channel[c].interval);
            }
            bool exact = telemetry_batch_fits(&batch, &id, &next, counts, ok);
            MUST(exact || !telemetry_batch_fits(&batch, &id, NULL, counts, ok));
            if (!exact) {
                tally->early++;
                close_report(r, tally);
                r = open_report(&r->interval);
            }
            telemetry_batch_add(&batch, id.channels, counts, ok);
            for (int c = 0; c < id.channels; c++) {
                if (ok[c]) {
                    metering_add(&meter, c, counts[c], bus[c], id.sweep_period_us);
                    r->count[c][r->counts[c]++] = counts[c];
                } else {
                    metering_miss(&meter, c, id.sweep_period_us);
                    r->missed[c][r->missing[c]++] = (uint16_t)r->sweeps;
                    tally->missed++;
                }
            }
            r->sweeps++;
            r->interval.t_us += id.sweep_period_us;
            r->interval.sweeps++;
            tally->sweeps++;
        }
    }
    if (r->sweeps > 0) {
        close_report(r, tally);
    }
    check_samples(ring.first, tally);
    check_samples(0, tally);
    check_samples(ring.next, tally);
}
