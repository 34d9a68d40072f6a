// Messages of proto/meter/v1 in protobuf. Fields go out in the order of their numbers, as all encoders have it, so that the same message is the
// same bytes from the meter and from its simulator.
#include <string.h>

#include "writer.h"

#define SHUNT_NV 40000 // one count (TI SBOS576, 8.6.2)

static void channel_report(struct writer *w, unsigned number, const struct telemetry_channel *c)
{
    writer_field(w, 1, number);
    writer_field_signed(w, 2, c->totals.energy_uj);
    writer_field_signed(w, 3, c->totals.charge_uc);
    writer_field(w, 4, c->totals.unmeasured_us);
    writer_field(w, 5, c->totals.saturated);
    writer_field(w, 6, c->totals.sensor_errors);
    writer_field_signed(w, 7, c->interval.power_uw);
    writer_field_signed(w, 8, c->interval.voltage_uv);
    writer_field_signed(w, 9, c->interval.current_ua);
    writer_field(w, 10, c->interval.power_drop_uw);
    writer_field(w, 11, c->interval.power_rise_uw);
    writer_field(w, 12, c->interval.voltage_drop_uv);
    writer_field(w, 13, c->interval.voltage_rise_uv);
}

static void report(struct writer *w, const struct telemetry_identity *id, const struct telemetry_interval *i, bool batch)
{
    writer_field_fixed32(w, 1, id->boot_id);
    writer_field(w, 2, i->seq);
    writer_field(w, 3, i->t_us);
    writer_field(w, 4, i->interval_us);
    for (int c = 0; c < i->channels; c++) {
        struct writer count = {0};
        channel_report(&count, id->channel[c].number, &i->channel[c]);
        writer_field_length(w, 5, count.length);
        channel_report(w, id->channel[c].number, &i->channel[c]);
    }
    if (batch && i->batch_length > 0) {
        writer_field_length(w, 6, i->batch_length);
        writer_bytes(w, i->batch, i->batch_length);
    }
    writer_field(w, 7, i->sweeps);
}

size_t encode_report_size(const struct telemetry_identity *id, const struct telemetry_interval *i)
{
    struct writer count = {0};
    report(&count, id, i, false);
    return count.length;
}

size_t telemetry_encode_report(const struct telemetry_identity *id, const struct telemetry_interval *i, uint8_t *out, size_t size)
{
    if (size > TELEMETRY_MAX_BODY) {
        size = TELEMETRY_MAX_BODY;
    }
    struct writer w = {out, size, 0};
    report(&w, id, i, true);
    if (w.length > size) {
        // Totals are what a report is for; its samples can be asked for.
        w.length = 0;
        report(&w, id, i, false);
    }
    return writer_end(&w);
}

static void channel_info(struct writer *w, const struct telemetry_identity *id, int c)
{
    writer_field(w, 1, id->channel[c].number);
    writer_field_text(w, 2, id->channel[c].name, sizeof id->channel[c].name);
    writer_field(w, 3, id->channel[c].calibration.shunt_uohm);
    writer_field_signed(w, 4, id->channel[c].calibration.gain_ppm);
    writer_field_signed(w, 5, id->channel[c].calibration.offset_nv);
    writer_field(w, 6, SHUNT_NV);
    writer_field(w, 7, METERING_FULL_SCALE);
    writer_field_signed(w, 8, id->channel[c].earlier_energy_uj);
    writer_field_signed(w, 9, id->channel[c].earlier_charge_uc);
}

static void sampling(struct writer *w, const struct telemetry_identity *id)
{
    writer_field(w, 1, id->sweep_period_us);
    writer_field(w, 2, id->shunt_conversion_us);
    writer_field(w, 3, id->bus_conversion_us);
    writer_field(w, 4, id->averaging);
    writer_field(w, 5, id->report_interval_us);
    writer_field(w, 6, id->ring_us);
}

size_t telemetry_encode_identity(const struct telemetry_identity *id, uint64_t now_us, uint8_t *out, size_t size)
{
    struct writer w = {out, size, 0}, count = {0};
    writer_field_fixed32(&w, 1, id->boot_id);
    writer_field(&w, 2, TELEMETRY_REVISION);
    writer_field_text(&w, 4, id->name, sizeof id->name);
    writer_field_text(&w, 5, id->serial, sizeof id->serial);
    writer_field_text(&w, 6, id->hardware, sizeof id->hardware);
    writer_field_text(&w, 7, id->firmware_version, sizeof id->firmware_version);
    writer_field(&w, 8, now_us);
    for (int c = 0; c < id->channels; c++) {
        count.length = 0;
        channel_info(&count, id, c);
        writer_field_length(&w, 9, count.length);
        channel_info(&w, id, c);
    }
    count.length = 0;
    sampling(&count, id);
    writer_field_length(&w, 10, count.length);
    sampling(&w, id);
    // CAPABILITY_SAMPLES, CAPABILITY_TIME
    writer_field_length(&w, 11, 2);
    writer_byte(&w, 1);
    writer_byte(&w, 2);
    writer_field(&w, 12, id->max_observers);
    return writer_end(&w);
}

void encode_past_head(struct writer *w, uint32_t seq, uint64_t t_us, uint64_t sweeps, size_t batch_length)
{
    struct writer count = {0};
    writer_field(&count, 1, seq);
    writer_field(&count, 2, t_us);
    writer_field(&count, 3, sweeps);
    writer_field_length(&count, 4, batch_length);
    writer_field_length(w, 2, count.length + batch_length);
    writer_field(w, 1, seq);
    writer_field(w, 2, t_us);
    writer_field(w, 3, sweeps);
    writer_field_length(w, 4, batch_length);
}

size_t telemetry_encode_samples(const struct telemetry_ring *r, uint32_t from, uint8_t *out, size_t size)
{
    if (size > TELEMETRY_MAX_BODY) {
        size = TELEMETRY_MAX_BODY;
    }
    if (size < LIST_BOOT + LIST_NEXT) {
        return 0;
    }
    struct writer w = {out, size, 0};
    size_t begin, end;
    uint32_t next = ring_select(r, from, size - LIST_BOOT - LIST_NEXT, &begin, &end);
    writer_field_fixed32(&w, 1, r->boot_id);
    for (size_t at = begin; at < end; at++) {
        writer_byte(&w, ring_byte(r, at));
    }
    writer_field(&w, 3, next);
    return writer_end(&w);
}

size_t telemetry_encode_time(uint32_t boot_id, uint64_t received_us, uint64_t sent_us, uint8_t *out, size_t size)
{
    struct writer w = {out, size, 0};
    writer_field_fixed32(&w, 1, boot_id);
    writer_field(&w, 2, received_us);
    writer_field(&w, 3, sent_us);
    return writer_end(&w);
}

size_t telemetry_encode_error(enum telemetry_error code, const char *message, uint32_t retry_after_ms, uint8_t *out, size_t size)
{
    struct writer w = {out, size, 0};
    writer_field(&w, 1, (uint64_t)code);
    writer_field_text(&w, 2, message, TELEMETRY_MAX_MESSAGE);
    writer_field(&w, 3, retry_after_ms);
    return writer_end(&w);
}
