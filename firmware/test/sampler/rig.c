#include "rig.h"

#include <string.h>

// Time in which the board has drawn its high current, up to a time.
static uint64_t high_ns(const struct rig_load *l, uint64_t ns) {
    if (!l->period_ns) {
        return 0;
    }
    uint64_t t = ns + l->phase_ns, rest = t % l->period_ns;
    return t / l->period_ns * l->on_ns + (rest < l->on_ns ? rest : l->on_ns);
}

static uint32_t bus_uv(const struct rig_load *l, uint32_t ua) {
    return l->supply_uv - (uint32_t)((uint64_t)ua * l->source_uohm / 1000000);
}

static void mean(void *context, int channel, uint64_t from_ns, uint64_t to_ns, int32_t *shunt_nv, int32_t *uv) {
    const struct rig_inputs *in = context;
    const struct rig_load *l = &in->rig->load[in->chip * INA3221_CHANNELS + channel];
    // Conversions take less than 10 ms, so products of ns and uA stay far from 64 bits.
    uint64_t span = to_ns - from_ns, high = high_ns(l, to_ns) - high_ns(l, from_ns);
    uint64_t ua_ns = high * l->high_ua + (span - high) * l->low_ua, uv_ns = high * bus_uv(l, l->high_ua) + (span - high) * bus_uv(l, l->low_ua);
    *shunt_nv = (int32_t)(ua_ns / span * l->shunt_uohm / 1000);
    *uv = (int32_t)(uv_ns / span);
}

uint64_t rig_energy_pj(const struct rig_load *l, uint64_t ns) {
    // high_ns counts from a time before the start.
    uint64_t high = (high_ns(l, ns) - high_ns(l, 0)) / 1000, low = ns / 1000 - high;
    uint64_t high_uw = (uint64_t)l->high_ua * bus_uv(l, l->high_ua) / 1000000, low_uw = (uint64_t)l->low_ua * bus_uv(l, l->low_ua) / 1000000;
    return high * high_uw + low * low_uw;
}

void rig_init(struct rig *r, struct sampler_config *config) {
    memset(r, 0, sizeof *r);
    fake_i2c_init(&r->wire);
    telemetry_queue_init(&r->queue);
    sampler_defaults(config);
    config->bus = fake_i2c_bus(&r->wire);
    config->now = fake_i2c_now_us;
    config->clock_context = &r->wire;
    r->identity = (struct telemetry_identity){.boot_id = 1, .channels = SAMPLER_CHANNELS};
    for (int i = 0; i < SAMPLER_CHIPS; i++) {
        r->inputs[i] = (struct rig_inputs){.rig = r, .chip = i};
        fake_ina3221_init(&r->chip[i], (struct fake_ina3221_input){.mean = mean, .context = &r->inputs[i]});
        fake_i2c_join(&r->wire, &r->chip[i], config->address[i]);
    }
    for (int i = 0; i < SAMPLER_CHANNELS; i++) {
        r->load[i] = (struct rig_load){.low_ua = 400000, .supply_uv = 5000000, .shunt_uohm = 100000};
        r->identity.channel[i].number = (uint8_t)(i + 1);
        r->identity.channel[i].calibration = config->calibration[i];
    }
}

int rig_start(struct rig *r, const struct sampler_config *config) {
    sampler_describe(config, &r->identity);
    return sampler_init(&r->sampler, config, &r->identity, &r->queue);
}

void rig_take(struct rig *r) {
    const struct telemetry_interval *i;
    while ((i = telemetry_queue_peek(&r->queue))) {
        r->last = *i;
        r->reports++;
        telemetry_queue_done(&r->queue);
    }
}

void rig_sweep(struct rig *r, bool take) {
    uint64_t tick = sampler_next(&r->sampler, fake_i2c_now_us(&r->wire));
    fake_i2c_advance_to(&r->wire, tick * 1000);
    sampler_sweep(&r->sampler, tick);
    if (take) {
        rig_take(r);
    }
}
