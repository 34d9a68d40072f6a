// The same messages as JSON, for people. internal/wire/json.go makes the same bytes of the same message; golden files hold both to that.
#include <string.h>

#include "writer.h"

#define SHUNT_NV 40000

static void text(struct writer *w, const char *s) { writer_bytes(w, (const uint8_t *)s, strlen(s)); }

static void number(struct writer *w, uint64_t v)
{
    uint8_t digits[20];
    size_t n = 0;
    do {
        digits[n++] = (uint8_t)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    while (n > 0) {
        writer_byte(w, digits[--n]);
    }
}

static void signed_number(struct writer *w, int64_t v)
{
    if (v < 0) {
        writer_byte(w, '-');
    }
    number(w, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

// A member with its name and all that stands before it: {" or ," as the caller says.
static void member(struct writer *w, const char *name, uint64_t v)
{
    text(w, name);
    number(w, v);
}

static void signed_member(struct writer *w, const char *name, int64_t v)
{
    text(w, name);
    signed_number(w, v);
}

static void member_unless_zero(struct writer *w, const char *name, uint64_t v)
{
    if (v > 0) {
        member(w, name, v);
    }
}

// A string as Go's encoding/json has it: what could end a script element is escaped as well, and so are U+2028 and U+2029.
static void string(struct writer *w, const char *s, size_t max)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t c[4];
    writer_byte(w, '"');
    for (size_t at = 0, n; (n = writer_character(s + at, max - at, c)) > 0; at += n) {
        const char *named = n == 1 ? strchr("\bb\ff\nn\rr\tt", c[0]) : NULL;
        if (n == 3 && c[0] == 0xe2 && c[1] == 0x80 && (c[2] & 0xfe) == 0xa8) {
            text(w, "\\u202");
            writer_byte(w, (uint8_t)hex[c[2] & 15]);
        } else if (c[0] == '"' || c[0] == '\\') {
            writer_byte(w, '\\');
            writer_byte(w, c[0]);
        } else if (named && c[0] < ' ') {
            writer_byte(w, '\\');
            writer_byte(w, (uint8_t)named[1]);
        } else if (c[0] < ' ' || c[0] == '<' || c[0] == '>' || c[0] == '&') {
            text(w, "\\u00");
            writer_byte(w, (uint8_t)hex[c[0] >> 4]);
            writer_byte(w, (uint8_t)hex[c[0] & 15]);
        } else {
            writer_bytes(w, c, n);
        }
    }
    writer_byte(w, '"');
}

static void faults(struct writer *w, const struct telemetry_interval *i)
{
    uint64_t unmeasured_us = 0, saturated = 0, sensor_errors = 0;
    for (int c = 0; c < i->channels; c++) {
        unmeasured_us += i->channel[c].totals.unmeasured_us;
        saturated += i->channel[c].totals.saturated;
        sensor_errors += i->channel[c].totals.sensor_errors;
    }
    member(w, ",\"faults\":{\"unmeasured_us\":", unmeasured_us);
    member(w, ",\"saturated\":", saturated);
    member(w, ",\"sensor_errors\":", sensor_errors);
    writer_byte(w, '}');
}

static void report(struct writer *w, const struct telemetry_identity *id, const struct telemetry_interval *i, bool summed)
{
    member(w, "{\"boot_id\":", id->boot_id);
    member(w, ",\"seq\":", i->seq);
    member(w, ",\"t_us\":", i->t_us);
    member(w, ",\"sweeps\":", i->sweeps);
    if (summed) {
        faults(w, i);
    }
    text(w, ",\"channels\":");
    for (int c = 0; c < i->channels; c++) {
        const struct telemetry_channel *ch = &i->channel[c];
        member(w, c == 0 ? "[{\"channel\":" : ",{\"channel\":", id->channel[c].number);
        signed_member(w, ",\"energy_uj\":", ch->totals.energy_uj);
        signed_member(w, ",\"charge_uc\":", ch->totals.charge_uc);
        signed_member(w, ",\"power_uw\":", ch->interval.power_uw);
        signed_member(w, ",\"voltage_uv\":", ch->interval.voltage_uv);
        signed_member(w, ",\"current_ua\":", ch->interval.current_ua);
        if (!summed) {
            member_unless_zero(w, ",\"unmeasured_us\":", ch->totals.unmeasured_us);
            member_unless_zero(w, ",\"saturated\":", ch->totals.saturated);
            member_unless_zero(w, ",\"sensor_errors\":", ch->totals.sensor_errors);
        }
        writer_byte(w, '}');
    }
    text(w, i->channels > 0 ? "]}" : "null}");
}

size_t telemetry_json_report(const struct telemetry_identity *id, const struct telemetry_interval *i, char *out, size_t size)
{
    struct writer w = {0};
    report(&w, id, i, false);
    bool summed = w.length > TELEMETRY_MAX_BODY;
    w = (struct writer){(uint8_t *)out, size, 0};
    report(&w, id, i, summed);
    return writer_end(&w);
}

size_t telemetry_json_identity(const struct telemetry_identity *id, uint64_t now_us, char *out, size_t size)
{
    struct writer w = {(uint8_t *)out, size, 0};
    member(&w, "{\"boot_id\":", id->boot_id);
    member(&w, ",\"wire_revision\":", TELEMETRY_REVISION);
    text(&w, ",\"name\":");
    string(&w, id->name, sizeof id->name);
    text(&w, ",\"serial\":");
    string(&w, id->serial, sizeof id->serial);
    text(&w, ",\"hardware\":");
    string(&w, id->hardware, sizeof id->hardware);
    text(&w, ",\"firmware_version\":");
    string(&w, id->firmware_version, sizeof id->firmware_version);
    member(&w, ",\"t_us\":", now_us);
    member(&w, ",\"max_observers\":", id->max_observers);
    text(&w, ",\"capabilities\":[\"CAPABILITY_SAMPLES\",\"CAPABILITY_TIME\"]");
    member(&w, ",\"sampling\":{\"sweep_period_us\":", id->sweep_period_us);
    member(&w, ",\"shunt_conversion_us\":", id->shunt_conversion_us);
    member(&w, ",\"bus_conversion_us\":", id->bus_conversion_us);
    member(&w, ",\"averaging\":", id->averaging);
    member(&w, ",\"report_interval_us\":", id->report_interval_us);
    member(&w, ",\"ring_us\":", id->ring_us);
    text(&w, "},\"channels\":");
    for (int c = 0; c < id->channels; c++) {
        member(&w, c == 0 ? "[{\"channel\":" : ",{\"channel\":", id->channel[c].number);
        text(&w, ",\"name\":");
        string(&w, id->channel[c].name, sizeof id->channel[c].name);
        member(&w, ",\"shunt_uohm\":", id->channel[c].calibration.shunt_uohm);
        signed_member(&w, ",\"gain_ppm\":", id->channel[c].calibration.gain_ppm);
        signed_member(&w, ",\"offset_nv\":", id->channel[c].calibration.offset_nv);
        member(&w, ",\"count_nv\":", SHUNT_NV);
        member(&w, ",\"full_scale_counts\":", METERING_FULL_SCALE);
        signed_member(&w, ",\"earlier_energy_uj\":", id->channel[c].earlier_energy_uj);
        signed_member(&w, ",\"earlier_charge_uc\":", id->channel[c].earlier_charge_uc);
        writer_byte(&w, '}');
    }
    text(&w, id->channels > 0 ? "]}" : "null}");
    return writer_end(&w);
}

size_t telemetry_json_time(uint32_t boot_id, uint64_t received_us, uint64_t sent_us, char *out, size_t size)
{
    struct writer w = {(uint8_t *)out, size, 0};
    member(&w, "{\"boot_id\":", boot_id);
    member(&w, ",\"received_us\":", received_us);
    member(&w, ",\"sent_us\":", sent_us);
    writer_byte(&w, '}');
    return writer_end(&w);
}

size_t telemetry_json_error(enum telemetry_error code, const char *message, uint32_t retry_after_ms, char *out, size_t size)
{
    static const char *const names[] = {
        [TELEMETRY_BAD_REQUEST] = "CODE_BAD_REQUEST", [TELEMETRY_NOT_FOUND] = "CODE_NOT_FOUND", [TELEMETRY_NOT_ACCEPTABLE] = "CODE_NOT_ACCEPTABLE",
        [TELEMETRY_BUSY] = "CODE_BUSY", [TELEMETRY_SENSOR] = "CODE_SENSOR", [TELEMETRY_INTERNAL] = "CODE_INTERNAL",
    };
    struct writer w = {(uint8_t *)out, size, 0};
    text(&w, "{\"code\":\"");
    text(&w, names[code]);
    text(&w, "\",\"message\":");
    string(&w, message, TELEMETRY_MAX_MESSAGE);
    member_unless_zero(&w, ",\"retry_after_ms\":", retry_after_ms);
    writer_byte(&w, '}');
    return writer_end(&w);
}

// ---- samples, decoded from the ring, which holds what the batches' encoder wrote

// The value of a varint field if it comes next, 0 if it was left out.
static uint64_t field(const struct telemetry_ring *r, size_t *at, size_t end, unsigned field_number)
{
    if (*at >= end || ring_byte(r, *at) != field_number << 3) {
        return 0;
    }
    (*at)++;
    return ring_varint(r, at);
}

// Enters a field with a length if it comes next. Returns its end, or at itself.
static size_t enter(const struct telemetry_ring *r, size_t *at, size_t end, unsigned field_number)
{
    if (*at >= end || ring_byte(r, *at) != (field_number << 3 | 2)) {
        return *at;
    }
    (*at)++;
    size_t length = (size_t)ring_varint(r, at);
    return *at + length;
}

static void past_batch(struct writer *w, const struct telemetry_ring *r, const struct ring_entry *e)
{
    size_t at = e->at, end = enter(r, &at, e->at + e->length, 2);
    member(w, "{\"seq\":", field(r, &at, end, 1));
    member(w, ",\"t_us\":", field(r, &at, end, 2));
    member(w, ",\"sweeps\":", field(r, &at, end, 3));
    end = enter(r, &at, end, 4);
    member(w, ",\"sample_period_us\":", field(r, &at, end, 1));
    field(r, &at, end, 2);
    text(w, ",\"channels\":[");
    for (bool first = true; at < end; first = false) {
        size_t channel_end = enter(r, &at, end, 3);
        member(w, first ? "{\"channel\":" : ",{\"channel\":", field(r, &at, channel_end, 1));
        text(w, ",\"counts\":[");
        int32_t count = 0;
        size_t list_end = enter(r, &at, channel_end, 2), begin = at;
        while (at < list_end) {
            if (at > begin) {
                writer_byte(w, ',');
            }
            uint64_t z = ring_varint(r, &at);
            count += (int32_t)(z >> 1) ^ -(int32_t)(z & 1);
            signed_number(w, count);
        }
        writer_byte(w, ']');
        list_end = enter(r, &at, channel_end, 3);
        begin = at;
        if (at < list_end) {
            text(w, ",\"missing\":[");
            while (at < list_end) {
                if (at > begin) {
                    writer_byte(w, ',');
                }
                number(w, ring_varint(r, &at));
            }
            writer_byte(w, ']');
        }
        writer_byte(w, '}');
    }
    text(w, "]}");
}

size_t telemetry_json_samples(const struct telemetry_ring *r, uint32_t from, char *out, size_t size)
{
    // As many batches as the protobuf form has, or fewer if the buffer holds no more.
    size_t begin, end;
    uint32_t next = ring_select(r, from, TELEMETRY_MAX_BODY - LIST_BOOT - LIST_NEXT, &begin, &end);
    static const char around[] = "{\"boot_id\":4294967295,\"next\":4294967295,\"batches\":[]}";
    struct writer count = {0};
    struct ring_entry e;
    size_t stop = begin;
    while (stop < end && ring_entry(r, stop, &e)) {
        count.length += stop > begin;
        past_batch(&count, r, &e);
        if (count.length + sizeof around > size) {
            if (stop == begin) {
                return 0;
            }
            next = e.seq;
            break;
        }
        stop += e.length;
    }
    struct writer w = {(uint8_t *)out, size, 0};
    member(&w, "{\"boot_id\":", r->boot_id);
    member(&w, ",\"next\":", next);
    text(&w, ",\"batches\":[");
    for (size_t at = begin; at < stop && ring_entry(r, at, &e); at += e.length) {
        if (at > begin) {
            writer_byte(&w, ',');
        }
        past_batch(&w, r, &e);
    }
    text(&w, "]}");
    return writer_end(&w);
}
