// The meter's firmware as a process: the components as they are, the sensors' fakes below them and CoAP above.
//
//          feed (stdin, or constant)                           wattlet-meter --help has the flags
//            │ analog inputs, faults
//   fake_ina3221 × 2 ── bus ── sampler ── queue ── coapserver ── UDP
//            └── the thread of sampling ──┘ └── the thread of the network: reports to stdout, totals to a file
//
// Three times. True time is the host's boot clock since the start; the sensors live in it, and --feed counts in it. The meter's clock is true
// time with a drift. The sensors' time is virtual: a transfer takes as long as on a wire, and the thread of sampling then waits until true time
// and the feed have come as far. So a host that is slow, or a feed that comes late, delays reports and changes nothing in them.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "coapserver.h"
#include "fake_ina3221.h"
#include "feed.h"
#include "ina3221.h"
#include "sampler.h"
#include "settings.h"
#include "telemetry.h"

#ifndef FIRMWARE_VERSION
#define FIRMWARE_VERSION "dev"
#endif

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, RING = 160 * 1024, RING_US = 10000000, KEEP_US = 10000000, POLL_MS = 20, OBSERVERS = 32, PEERS = 128 };

_Static_assert(FEED_CHANNELS == SAMPLER_CHANNELS && SETTINGS_CHANNELS == SAMPLER_CHANNELS, "two chips of three channels");

struct options {
    const char *settings, *totals;
    char address[64];
    uint16_t port;
    bool feed, quiet, plain, seeded;
    double noise_counts, drift_ppm;
    int32_t rate_error_ppm;
    uint32_t bus_overhead_us;
    uint64_t seed;
    bool loaded[SAMPLER_CHANNELS];
    double watts[SAMPLER_CHANNELS], volts[SAMPLER_CHANNELS];
};

struct meter {
    struct options options;
    struct settings settings;
    struct telemetry_identity identity;
    uint64_t start_ns; // the host's boot clock at the meter's zero

    struct feed feed;
    struct fake_ina3221 chip[SAMPLER_CHIPS];
    struct fake_i2c wire;
    struct ina3221_bus bus; // of the fakes
    struct channel_input {
        struct meter *meter;
        int first; // channel of the chip's channel 0
    } input[SAMPLER_CHIPS];
    uint64_t away_until_ns[SAMPLER_CHIPS];

    struct sampler_config sampling;
    struct sampler sampler;
    struct telemetry_queue queue;
    pthread_t thread;
    atomic_bool sampled; // the thread of sampling has come to its end
    atomic_bool broken;  // it could not begin

    struct coapserver *server;
    uint8_t ring[RING];
    struct settings_totals totals, earlier;
    uint64_t kept_us;
    int totals_fd; // -1: none
    bool unkept;   // the last attempt failed, and that was said
};

static struct meter meter;
static volatile sig_atomic_t asked_to_end;

static void on_signal(int number) {
    (void)number;
    asked_to_end = 1;
}

static void log_line(void *context, const char *line) {
    (void)context;
    char text[256];
    int n = snprintf(text, sizeof text, "wattlet-meter: %.240s\n", line);
    if (write(STDERR_FILENO, text, (size_t)n) < 0) {
        return; // Nobody is left to be told.
    }
}

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void complain(const char *format, ...) {
    char line[240];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    log_line(NULL, line);
}

// ---- clocks

static uint64_t boot_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// The meter's clock at a true time.
static uint64_t meter_us(const struct meter *m, uint64_t true_ns) {
    int64_t us = (int64_t)(true_ns / 1000);
    return (uint64_t)(us + (int64_t)floor((double)us * m->options.drift_ppm * 1e-6));
}

// The first true time at which the meter's clock shows us.
static uint64_t true_ns(const struct meter *m, uint64_t us) {
    uint64_t ns = (uint64_t)((double)us / (1 + m->options.drift_ppm * 1e-6)) * 1000;
    ns -= ns > 2000 ? 2000 : ns;
    while (meter_us(m, ns) < us) {
        ns += 1000;
    }
    return ns;
}

// The clock of the network: the meter's, now.
static uint64_t network_now(void *context) {
    const struct meter *m = context;
    return meter_us(m, boot_ns() - m->start_ns);
}

// The clock of the sampler: the meter's, at the sensors' time.
static uint64_t sampler_now(void *context) {
    const struct meter *m = context;
    return meter_us(m, m->wire.now_ns);
}

// Waits until true time has come to ns.
static void wait_for_clock(const struct meter *m, uint64_t ns) {
    uint64_t at = m->start_ns + ns;
    if (boot_ns() >= at) {
        return;
    }
    struct timespec t = {.tv_sec = (time_t)(at / 1000000000), .tv_nsec = (long)(at % 1000000000)};
    while (clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}

// ---- the sensors

static void mean(void *context, int channel, uint64_t from_ns, uint64_t to_ns, int32_t *shunt_nv, int32_t *bus_uv) {
    const struct channel_input *in = context;
    feed_mean(&in->meter->feed, in->first + channel, from_ns, to_ns, shunt_nv, bus_uv);
}

// Brings about what the feed says happens to the chips by now.
static void happen(struct meter *m) {
    struct feed_fault fault;
    while (feed_fault(&m->feed, m->wire.now_ns, &fault)) {
        struct fake_ina3221 *chip = &m->chip[fault.chip];
        switch (fault.what) {
        case FEED_NACK:
            chip->nack += fault.count;
            break;
        case FEED_SUPPLY:
            fake_ina3221_power(chip, false);
            fake_ina3221_power(chip, true);
            break;
        default:
            chip->absent = true;
            m->away_until_ns[fault.chip] = fault.at_ns + (uint64_t)fault.count * 1000000;
        }
    }
    for (int i = 0; i < SAMPLER_CHIPS; i++) {
        if (m->chip[i].absent && m->wire.now_ns >= m->away_until_ns[i]) {
            m->chip[i].absent = false;
        }
    }
}

static int bus_write(void *context, uint8_t address, const uint8_t *bytes, size_t n) {
    struct meter *m = context;
    happen(m);
    int result = m->bus.write(m->bus.context, address, bytes, n);
    wait_for_clock(m, m->wire.now_ns);
    return result;
}

static int bus_read(void *context, uint8_t address, uint8_t reg, uint8_t *bytes, size_t n) {
    struct meter *m = context;
    happen(m);
    int result = m->bus.read(m->bus.context, address, reg, bytes, n);
    wait_for_clock(m, m->wire.now_ns);
    return result;
}

static void make_sensors(struct meter *m) {
    const struct options *o = &m->options;
    fake_i2c_init(&m->wire);
    m->wire.overhead_us = o->bus_overhead_us;
    m->bus = fake_i2c_bus(&m->wire);
    for (int i = 0; i < SAMPLER_CHIPS; i++) {
        m->input[i] = (struct channel_input){.meter = m, .first = i * INA3221_CHANNELS};
        fake_ina3221_init(&m->chip[i], (struct fake_ina3221_input){.mean = mean, .context = &m->input[i]});
        m->chip[i].rate_ppm = o->rate_error_ppm;
        m->chip[i].noise_nv = (uint32_t)(o->noise_counts * INA3221_SHUNT_NV);
        m->chip[i].seed = o->seed + (uint64_t)i;
        fake_i2c_join(&m->wire, &m->chip[i], m->sampling.address[i]);
    }
    for (int i = 0; i < SAMPLER_CHANNELS; i++) {
        if (o->loaded[i]) {
            double amperes = o->volts[i] > 0 ? o->watts[i] / o->volts[i] : 0;
            m->feed.last.shunt_nv[i] = (int32_t)fmin(fmax(amperes * m->settings.channel[i].calibration.shunt_uohm * 1e3, INT32_MIN), INT32_MAX);
            m->feed.last.bus_uv[i] = (int32_t)(o->volts[i] * 1e6);
        }
    }
}

// The thread of sampling.
static void *sample(void *context) {
    struct meter *m = context;
    if (sampler_init(&m->sampler, &m->sampling, &m->identity, &m->queue) < 0) {
        atomic_store(&m->broken, true);
    }
    while (!atomic_load(&m->broken) && !m->feed.stopped) {
        uint64_t tick = sampler_next(&m->sampler, sampler_now(m));
        // A sweep is carried out when its time is past, so that no thread ever waits within one that is as long as it should be.
        uint64_t end_ns = true_ns(m, tick + m->sampling.sweep_period_us);
        if (!feed_wait(&m->feed, end_ns)) {
            break;
        }
        wait_for_clock(m, end_ns);
        // The firmware does not wait for the network. Here it may have to make up for time in which the process did not run.
        while (!telemetry_queue_slot(&m->queue) && !m->feed.stopped) {
            nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
        }
        fake_i2c_advance_to(&m->wire, true_ns(m, tick));
        sampler_sweep(&m->sampler, tick);
    }
    atomic_store(&m->sampled, true);
    return NULL;
}

// ---- totals over all boots, as the flash keeps them: two places written in turn, so that one of them is always whole

static void read_totals(struct meter *m) {
    bool any = false;
    for (int slot = 0; slot < 2; slot++) {
        uint8_t bytes[SETTINGS_TOTALS_PACKED];
        struct settings_totals t;
        if (pread(m->totals_fd, bytes, sizeof bytes, slot * (off_t)sizeof bytes) == (ssize_t)sizeof bytes && settings_totals_unpack(&t, bytes, sizeof bytes) &&
            (!any || settings_totals_newer(&t, &m->earlier))) {
            m->earlier = t;
            any = true;
        }
    }
    m->totals = m->earlier;
    for (int i = 0; i < SAMPLER_CHANNELS; i++) {
        m->identity.channel[i].earlier_energy_uj = m->earlier.channel[i].energy_uj;
        m->identity.channel[i].earlier_charge_uc = m->earlier.channel[i].charge_uc;
    }
}

static void keep_totals(struct meter *m) {
    if (m->totals_fd < 0) {
        return;
    }
    uint8_t bytes[SETTINGS_TOTALS_PACKED] = {0};
    m->totals.sequence++;
    bool kept = settings_totals_pack(&m->totals, bytes, sizeof bytes) &&
                pwrite(m->totals_fd, bytes, sizeof bytes, m->totals.sequence % 2 * (off_t)sizeof bytes) == (ssize_t)sizeof bytes &&
                fdatasync(m->totals_fd) == 0;
    if (!kept && !m->unkept) {
        complain("totals cannot be kept in %s: %s", m->options.totals, strerror(errno));
    }
    m->unkept = !kept;
}

// ---- the thread of the network

static void print_line(const char *line, size_t n) {
    while (n > 0) {
        ssize_t written = write(STDOUT_FILENO, line, n);
        if (written < 0 && errno != EINTR) {
            asked_to_end = 1; // Whoever reads reports has gone.
            return;
        }
        line += written > 0 ? written : 0;
        n -= written > 0 ? (size_t)written : 0;
    }
}

static void on_report(void *context, const struct telemetry_interval *r) {
    struct meter *m = context;
    if (!m->options.quiet) {
        char line[128 + SAMPLER_CHANNELS * 110];
        int n = snprintf(line, sizeof line, "report seq=%" PRIu32 " t=%" PRIu64 " sweeps=%" PRIu64, r->seq, r->t_us, r->sweeps);
        for (int i = 0; i < r->channels; i++) {
            const struct metering_totals *t = &r->channel[i].totals;
            n += snprintf(line + n, sizeof line - (size_t)n, " %u:%" PRId64 ",%" PRId64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64, m->identity.channel[i].number,
                          t->energy_uj, t->charge_uc, t->unmeasured_us, t->saturated, t->sensor_errors);
        }
        line[n++] = '\n';
        print_line(line, (size_t)n);
    }
    for (int i = 0; i < r->channels; i++) {
        m->totals.channel[i].energy_uj = m->earlier.channel[i].energy_uj + r->channel[i].totals.energy_uj;
        m->totals.channel[i].charge_uc = m->earlier.channel[i].charge_uc + r->channel[i].totals.charge_uc;
    }
    if (r->t_us - m->kept_us >= KEEP_US) {
        m->kept_us = r->t_us;
        keep_totals(m);
    }
}

static int serve(struct meter *m) {
    bool good = true;
    // What arrives before there is something to tell waits in the socket, so that a peer that is quick is not sent away.
    while (!asked_to_end && !atomic_load(&m->sampled) && !telemetry_queue_peek(&m->queue)) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    while (good && !asked_to_end && !atomic_load(&m->sampled)) {
        good = coapserver_poll(m->server, POLL_MS);
    }
    feed_stop(&m->feed);
    pthread_join(m->thread, NULL);
    while (good && telemetry_queue_peek(&m->queue)) {
        good = coapserver_poll(m->server, 0);
    }
    keep_totals(m);
    char line[200];
    const struct sampler_counts *c = &m->sampler.counts;
    int n = snprintf(line, sizeof line,
                     "end sweeps=%" PRIu64 " repeated=%" PRIu64 " missed=%" PRIu64 " late=%" PRIu64 " retried=%" PRIu64 " failed=%" PRIu64 " dropped=%" PRIu32 "\n",
                     c->sweeps, c->repeated, c->missed, c->late, c->retried, c->failed, (uint32_t)m->queue.dropped);
    print_line(line, (size_t)n);
    char why[128];
    if (feed_failed(&m->feed, why, sizeof why)) {
        complain("the feed cannot be read: %s", why);
        return EXIT_USAGE;
    }
    if (atomic_load(&m->broken)) {
        complain("these settings cannot be sampled with: rate %u, interval %u", m->settings.rate, m->settings.interval);
        return EXIT_USAGE;
    }
    return good ? 0 : EXIT_FAILED;
}

// ---- start

static const char help[] =
    "wattlet-meter --settings=FILE [flags]: the meter's firmware as a process\n"
    "\n"
    "  --listen=ADDRESS:PORT  where to listen; port 0 takes any (127.0.0.1:0)\n"
    "  --settings=FILE        lines as on the serial console: name, identity, key, channel, rate, interval\n"
    "  --totals=FILE          keeps the totals over all boots\n"
    "  --feed                 inputs come as records on stdin; firmware/test/host/feed.h has their form\n"
    "  --load=CH=WATTS@VOLTS  a constant load on a channel, 1 to 6\n"
    "  --noise=COUNTS         of each conversion of a shunt, uniform within +- COUNTS\n"
    "  --seed=N               makes noise repeatable\n"
    "  --rate-error=PPM       the sensors' conversions take longer by this\n"
    "  --bus-overhead=US      time of the driver for each transfer\n"
    "  --clock-drift=PPM      the meter's clock runs fast by this\n"
    "  --quiet                prints no reports\n"
    "  --plain                CoAP without DTLS, on loopback only\n";

static void usage(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void usage(const char *format, ...) {
    char line[240];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    log_line(NULL, line);
    exit(EXIT_USAGE);
}

static double number(const char *flag, const char *text, double low, double high) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= low && v <= high)) {
        usage("--%s=%s: a number from %.0f to %.0f is wanted", flag, text, low, high);
    }
    return v;
}

static void parse_listen(struct options *o, const char *text) {
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    if (!colon || n >= sizeof o->address) {
        usage("--listen=%s: ADDRESS:PORT is wanted, as 127.0.0.1:5684 or [::1]:0", text);
    }
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    memcpy(o->address, text, n);
    o->address[n] = 0;
    o->port = (uint16_t)number("listen", colon + 1, 0, UINT16_MAX);
}

static void parse_load(struct options *o, const char *text) {
    int channel, end = 0;
    double watts, volts;
    if (sscanf(text, "%d=%lf@%lf%n", &channel, &watts, &volts, &end) != 3 || text[end] || channel < 1 || channel > SAMPLER_CHANNELS || !(volts > 0 && volts <= 26) ||
        !isfinite(watts)) {
        usage("--load=%s: CH=WATTS@VOLTS is wanted, as 5=2.5@5.1; channels are 1 to 6, volts up to 26", text);
    }
    o->loaded[channel - 1] = true;
    o->watts[channel - 1] = watts;
    o->volts[channel - 1] = volts;
}

static void parse_options(struct options *o, int argc, char **argv) {
    enum { LISTEN = 1, SETTINGS, TOTALS, FEED, LOAD, NOISE, SEED, RATE_ERROR, BUS_OVERHEAD, CLOCK_DRIFT, QUIET, PLAIN, HELP };
    static const struct option flags[] = {
        {"listen", required_argument, NULL, LISTEN}, {"settings", required_argument, NULL, SETTINGS}, {"totals", required_argument, NULL, TOTALS},
        {"feed", no_argument, NULL, FEED}, {"load", required_argument, NULL, LOAD}, {"noise", required_argument, NULL, NOISE},
        {"seed", required_argument, NULL, SEED}, {"rate-error", required_argument, NULL, RATE_ERROR},
        {"bus-overhead", required_argument, NULL, BUS_OVERHEAD}, {"clock-drift", required_argument, NULL, CLOCK_DRIFT},
        {"quiet", no_argument, NULL, QUIET}, {"plain", no_argument, NULL, PLAIN}, {"help", no_argument, NULL, HELP}, {0},
    };
    parse_listen(o, "127.0.0.1:0");
    opterr = 0;
    int flag;
    bool any_load = false;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        switch (flag) {
        case LISTEN: parse_listen(o, optarg); break;
        case SETTINGS: o->settings = optarg; break;
        case TOTALS: o->totals = optarg; break;
        case FEED: o->feed = true; break;
        case LOAD: parse_load(o, optarg); any_load = true; break;
        case NOISE: o->noise_counts = number("noise", optarg, 0, 4095); break;
        case SEED: o->seed = (uint64_t)number("seed", optarg, 0, 9007199254740992.0); o->seeded = true; break;
        case RATE_ERROR: o->rate_error_ppm = (int32_t)number("rate-error", optarg, -100000, 100000); break;
        case BUS_OVERHEAD: o->bus_overhead_us = (uint32_t)number("bus-overhead", optarg, 0, 1000000); break;
        case CLOCK_DRIFT: o->drift_ppm = number("clock-drift", optarg, -10000, 10000); break;
        case QUIET: o->quiet = true; break;
        case PLAIN: o->plain = true; break;
        case HELP: print_line(help, sizeof help - 1); exit(0);
        default: usage("%s is no flag, or lacks a value; --help has all", argv[optind - 1]);
        }
    }
    if (optind < argc) {
        usage("%s is no flag; --help has all", argv[optind]);
    }
    if (!o->settings) {
        usage("no settings; give --settings=FILE with lines as: identity wattlet, key HEX");
    }
    if (o->feed && any_load) {
        usage("--feed and --load exclude each other");
    }
}

static void read_settings(struct settings *s, const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) {
        usage("cannot read settings: %s: %s", path, strerror(errno));
    }
    settings_default(s);
    char line[SETTINGS_LINE + 2], error[160];
    for (int number = 1; fgets(line, sizeof line, f); number++) {
        size_t n = strlen(line);
        if (n == sizeof line - 1 && line[n - 1] != '\n') {
            usage("%s:%d: longer than %d bytes", path, number, SETTINGS_LINE);
        }
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) {
            n--;
        }
        enum settings_request request = settings_line(s, line, n, error, sizeof error);
        if (request == SETTINGS_ERROR) {
            usage("%s:%d: %s", path, number, error);
        }
        if (request != SETTINGS_NOTHING && request != SETTINGS_CHANGED) {
            usage("%s:%d: this is a command, not a setting", path, number);
        }
    }
    fclose(f);
}

static uint32_t random_u32(void) {
    uint32_t v = 0;
    while (v == 0) {
        if (getrandom(&v, sizeof v, 0) != sizeof v && errno != EINTR) {
            usage("no random numbers: %s", strerror(errno));
        }
    }
    return v;
}

static void set_up(struct meter *m) {
    const struct settings *s = &m->settings;
    sampler_defaults(&m->sampling);
    sampler_rate(&m->sampling, s->rate);
    m->sampling.report_interval_us = s->interval * 1000u;
    m->sampling.bus = (struct ina3221_bus){.write = bus_write, .read = bus_read, .context = m};
    m->sampling.now = sampler_now;
    m->sampling.clock_context = m;

    struct telemetry_identity *id = &m->identity;
    *id = (struct telemetry_identity){
        .boot_id = random_u32(), .hardware = "host-2xina3221", .firmware_version = FIRMWARE_VERSION, .max_observers = OBSERVERS,
        .ring_us = RING_US,
    };
    sampler_describe(&m->sampling, id);
    _Static_assert(sizeof id->name == sizeof s->name && sizeof id->channel[0].name == sizeof s->channel[0].name, "names are as long here as there");
    memcpy(id->name, s->name, sizeof id->name);
    // A device has its MAC address; a process has what it is called.
    uint32_t h = 2166136261u;
    for (const char *p = s->name; *p; p++) {
        h = (h ^ (uint8_t)*p) * 16777619u;
    }
    snprintf(id->serial, sizeof id->serial, "host:%08" PRIx32, h);
    for (int i = 0; i < SAMPLER_CHANNELS; i++) {
        id->channel[i].number = (uint8_t)(i + 1);
        memcpy(id->channel[i].name, s->channel[i].name, sizeof id->channel[i].name);
        id->channel[i].calibration = m->sampling.calibration[i] = s->channel[i].calibration;
    }
}

int main(int argc, char **argv) {
    struct meter *m = &meter;
    parse_options(&m->options, argc, argv);
    read_settings(&m->settings, m->options.settings);
    if (!m->options.seeded) {
        m->options.seed = random_u32();
    }
    set_up(m);
    m->totals_fd = -1;
    if (m->options.totals) {
        m->totals_fd = open(m->options.totals, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (m->totals_fd < 0) {
            usage("cannot keep totals: %s: %s", m->options.totals, strerror(errno));
        }
        read_totals(m);
    }
    feed_init(&m->feed);
    make_sensors(m);
    telemetry_queue_init(&m->queue);

    // Signals are for the thread of the network, which waits; the others are told.
    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, NULL);
    sigaction(SIGINT, &(struct sigaction){.sa_handler = on_signal}, NULL);
    signal(SIGPIPE, SIG_IGN);

    m->start_ns = boot_ns();
    m->server = coapserver_new(&(struct coapserver_config){
        .address = m->options.address[0] ? m->options.address : NULL, .port = m->options.port, .any_port = true,
        .identity = m->settings.identity, .key = m->settings.key, .key_length = m->settings.key_length, .meter = &m->identity, .queue = &m->queue,
        .ring = m->ring, .ring_size = sizeof m->ring, .max_observers = OBSERVERS, .max_peers = PEERS, .plain = m->options.plain,
        .now_us = network_now, .clock_context = m, .on_report = on_report, .on_report_context = m, .log = log_line,
    });
    if (!m->server) {
        return EXIT_FAILED;
    }
    char line[100];
    int n = snprintf(line, sizeof line, "ready port=%u boot=%08" PRIx32 " start=%" PRIu64 "\n", coapserver_port(m->server), m->identity.boot_id, m->start_ns);
    print_line(line, (size_t)n);

    pthread_sigmask(SIG_BLOCK, &signals, &before);
    bool running = (!m->options.feed || feed_read(&m->feed, STDIN_FILENO)) && pthread_create(&m->thread, NULL, sample, m) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    int status = EXIT_FAILED;
    if (running) {
        status = serve(m);
    } else {
        complain("no thread: %s", strerror(errno));
    }
    coapserver_free(m->server);
    return status;
}
