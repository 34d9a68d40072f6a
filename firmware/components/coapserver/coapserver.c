#define _GNU_SOURCE // fd_set and inet_pton, which libcoap's headers take for granted
#include "coapserver.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h> // inet_pton of ESP-IDF

#include <coap3/coap.h>

enum {
    DEFAULT_PORT = 5684,
    DEFAULT_OBSERVERS = 32,
    DEFAULT_REQUESTS = 50,
    DEFAULT_CONFIRM_MS = 5000,
    SPARE_PEERS = 16,        // beside observers, if nothing is said
    IDENTITY = 64,           // longest identity that is compared, RFC 4279 section 5.3 asks for no less than 128 bytes in general
    KEY = 64,
    TOKEN = 8,               // RFC 7252 section 3
    BODY = 6144,             // the longest: JSON of samples that are 1,024 bytes in protobuf, or of an identity with the longest names
    SHORT = 1280,            // everything else but reports
    REPORT_JSON = 2048,
    MESSAGE = 120,           // of an Error, meter.proto
    FORMAT_LINKS = 40,
    FORMAT_PROTOBUF = 42,
    FORMAT_JSON = 50,
    BLOCK = 1024,            // largest block, RFC 7959 section 2.2
    LARGEST_BLOCK = 6,       // and its number
    SLICE_MS = 5,            // how long a report in the queue may wait: libcoap waits for the network alone
    GONE_ROUNDS = 10,        // rounds without a notification after which an observation has ended; libcoap does not tell
    IDENTITY_KEPT_US = 2000000, // for block-wise transfer an identity must stay the same for a while
};

static const char links[] = "</meter>;rt=\"wattlet.meter.v1.Identity\";ct=\"42 50\","
                            "</power>;rt=\"wattlet.meter.v1.Report\";ct=\"42 50\";obs,"
                            "</samples>;rt=\"wattlet.meter.v1.SampleList\";ct=\"42 50\","
                            "</time>;rt=\"wattlet.meter.v1.Time\";ct=\"42 50\"";

enum what { CORE, METER, POWER, SAMPLES, TIME, UNKNOWN, WHATS };
static const char *const paths[] = {".well-known/core", "meter", "power", "samples", "time"};

// A session from which requests came.
struct peer {
    const coap_session_t *session; // NULL: a free place
    uint64_t due_us;               // when its requests so far would have come at the rate that is allowed (GCRA)
    uint32_t observations;
};

// An observation. libcoap keeps its own list, which it does not show; this one serves the limit. An observation that libcoap has ended, for
// example since a CON was not acknowledged, is no longer in its rounds, and that shows here.
struct observer {
    struct peer *peer; // NULL: a free place
    uint8_t token[TOKEN];
    uint8_t token_length;
    uint32_t round; // the last one it was notified in
};

struct resource {
    struct coapserver *server;
    enum what what;
};

// The last body that was long or asked for in blocks. It must not change while a peer fetches it.
struct kept {
    enum what what;
    uint16_t format;
    uint32_t from, etag;
    uint64_t made_us;
    size_t length; // 0: none
    uint8_t body[BODY];
};

struct coapserver {
    struct coapserver_config config;
    coap_context_t *context;
    coap_resource_t *power;
    struct resource resources[WHATS];
    uint16_t port;
    bool failed;

    uint8_t identity[IDENTITY], key[KEY], decoy[KEY];
    coap_bin_const_t right, wrong;

    struct telemetry_ring ring;
    // The last report, encoded at most once in each format however many observers there are.
    struct telemetry_interval last;
    uint8_t report[TELEMETRY_MAX_BODY];
    size_t report_length; // 0: none yet
    char report_json[REPORT_JSON];
    size_t report_json_length;
    uint32_t report_json_seq; // 0: not encoded

    uint8_t body[SHORT];
    struct kept kept;

    bool notifying; // the handler is called for a notification, not for a request
    uint32_t round; // of notifications
    uint64_t confirmed_us;
    uint32_t observer_count;
    struct observer *observers;
    uint32_t peer_count;
    struct peer *peers;
};

static void say(const struct coapserver_config *config, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(const struct coapserver_config *config, const char *format, ...) {
    char line[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (config->log) {
        config->log(config->log_context, line);
    } else {
        fprintf(stderr, "%s\n", line);
    }
}

static uint64_t now_us(const struct coapserver *s) {
    return s->config.now_us(s->config.clock_context);
}

// ---- peers and observations

static void count_observers(struct coapserver *s) {
    uint32_t peers = 0;
    for (uint32_t i = 0; i < s->config.max_peers; i++) {
        peers += s->peers[i].observations > 0;
    }
    // libcoap's limit is on sessions that observe nothing: the oldest of them leaves when another peer comes.
    uint32_t idle = s->config.max_peers > peers ? s->config.max_peers - peers : 1;
    coap_context_set_max_idle_sessions(s->context, idle);
}

static void observer_left(struct coapserver *s, struct observer *o, const char *why) {
    o->peer->observations--;
    o->peer = NULL;
    s->observer_count--;
    say(&s->config, "observer left: %s; %u observers", why, (unsigned)s->observer_count);
    count_observers(s);
}

static void peer_left(struct coapserver *s, struct peer *p) {
    for (uint32_t i = 0; i < s->config.max_observers; i++) {
        if (s->observers[i].peer == p) {
            observer_left(s, &s->observers[i], "session closed");
        }
    }
    p->session = NULL;
    s->peer_count--;
}

// The place of a peer, NULL if there is none left.
static struct peer *peer_of(struct coapserver *s, coap_session_t *session) {
    struct peer *p = coap_session_get_app_data(session);
    if (p) {
        return p;
    }
    for (uint32_t i = 0; i < s->config.max_peers; i++) {
        p = &s->peers[i];
        if (!p->session) {
            *p = (struct peer){.session = session};
            s->peer_count++;
            coap_session_set_app_data(session, p);
            return p;
        }
    }
    return NULL;
}

// Whether a request of a peer is within its rate: a second's worth at once, then one at a time.
static bool within_rate(const struct coapserver *s, struct peer *p, uint64_t now) {
    const uint64_t second = 1000000;
    uint64_t due = p->due_us > now ? p->due_us : now;
    if (due - now >= second) {
        return false;
    }
    p->due_us = due + second / s->config.requests_per_second;
    return true;
}

static struct observer *find_observer(const struct coapserver *s, const struct peer *p, coap_bin_const_t token) {
    for (uint32_t i = 0; i < s->config.max_observers; i++) {
        struct observer *o = &s->observers[i];
        if (o->peer == p && o->token_length == token.length && memcmp(o->token, token.s, token.length) == 0) {
            return o;
        }
    }
    return NULL;
}

static void forget_the_gone(struct coapserver *s) {
    for (uint32_t i = 0; i < s->config.max_observers; i++) {
        struct observer *o = &s->observers[i];
        if (o->peer && s->round - o->round > GONE_ROUNDS) {
            observer_left(s, o, "not heard of any more");
        }
    }
}

// Gives an observation a place, if there is one.
static bool add_observer(struct coapserver *s, coap_session_t *session, struct peer *p, coap_bin_const_t token) {
    if (token.length > TOKEN) {
        return false;
    }
    for (uint32_t i = 0; i < s->config.max_observers; i++) {
        struct observer *o = &s->observers[i];
        if (!o->peer) {
            *o = (struct observer){.peer = p, .token_length = (uint8_t)token.length, .round = s->round};
            memcpy(o->token, token.s, token.length);
            p->observations++;
            s->observer_count++;
            say(&s->config, "observer came: %s; %u observers", coap_session_str(session), (unsigned)s->observer_count);
            count_observers(s);
            return true;
        }
    }
    return false;
}

static int on_event(coap_session_t *session, const coap_event_t event) {
    struct peer *p = coap_session_get_app_data(session);
    if (p && (event == COAP_EVENT_DTLS_CLOSED || event == COAP_EVENT_DTLS_ERROR || event == COAP_EVENT_SERVER_SESSION_DEL)) {
        struct coapserver *s = coap_get_app_data(coap_session_get_context(session));
        coap_session_set_app_data(session, NULL);
        peer_left(s, p);
    }
    return 0;
}

// The key of an identity. One that nobody has meets the same silence as a wrong key (RFC 4279 section 2), so that nobody can try out names; how
// long that takes does not depend on the identity.
static const coap_bin_const_t *key_of(coap_bin_const_t *identity, coap_session_t *session, void *context) {
    struct coapserver *s = context;
    (void)session;
    uint8_t given[IDENTITY] = {0};
    size_t n = identity->length < sizeof given ? identity->length : sizeof given;
    memcpy(given, identity->s, n);
    volatile uint8_t differs = identity->length > sizeof given;
    for (size_t i = 0; i < sizeof given; i++) {
        differs = (uint8_t)(differs | (given[i] ^ s->identity[i]));
    }
    coap_prng(s->decoy, s->wrong.length);
    const coap_bin_const_t *const keys[] = {&s->right, &s->wrong};
    return keys[differs != 0];
}

// ---- answers

static uint32_t hash(const uint8_t *p, size_t n) {
    uint32_t h = 2166136261u; // FNV-1a
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 16777619u;
    }
    return h;
}

static void add_number(coap_pdu_t *response, coap_option_num_t option, uint32_t value) {
    uint8_t bytes[4];
    coap_add_option(response, option, coap_encode_var_safe(bytes, sizeof bytes, value), bytes);
}

struct exchange {
    struct coapserver *server;
    coap_session_t *session;
    const coap_pdu_t *request;
    coap_pdu_t *response;
    uint16_t format;
    bool in_blocks; // asked for with Block2
    coap_block_b_t block;
};

static void fail(struct exchange *x, coap_pdu_code_t code, enum telemetry_error why, uint32_t retry_ms, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

// Answers with an Error; retry_ms is when asking again makes sense, 0 if it does not.
static void fail(struct exchange *x, coap_pdu_code_t code, enum telemetry_error why, uint32_t retry_ms, const char *format, ...) {
    char message[MESSAGE + 1];
    uint8_t *body = x->server->body;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    size_t n = x->format == FORMAT_JSON ? telemetry_json_error(why, message, retry_ms, (char *)body, SHORT)
                                        : telemetry_encode_error(why, message, retry_ms, body, SHORT);
    coap_pdu_set_code(x->response, code);
    add_number(x->response, COAP_OPTION_CONTENT_FORMAT, x->format);
    if (retry_ms) {
        // RFC 7252 section 5.9.3.4: Max-Age of a 5.03 says when to try again.
        add_number(x->response, COAP_OPTION_MAXAGE, (retry_ms + 999) / 1000);
    }
    coap_add_data(x->response, n, body);
}

// Answers with a body, or with the block of it that was asked for. Nothing is kept for a peer: whoever wants another block asks for it, and the
// ETag tells whether it is still the same body (RFC 7959 section 2.4).
static void answer(struct exchange *x, uint16_t format, const uint8_t *body, size_t length, const uint32_t *etag) {
    bool in_blocks = x->in_blocks || length > BLOCK;
    if (in_blocks) {
        if (!x->in_blocks) {
            x->block = (coap_block_b_t){.szx = LARGEST_BLOCK, .aszx = LARGEST_BLOCK, .defined = 1};
        }
        if (coap_write_block_b_opt(x->session, &x->block, COAP_OPTION_BLOCK2, x->response, length) <= 0) {
            fail(x, COAP_RESPONSE_CODE_BAD_REQUEST, TELEMETRY_BAD_REQUEST, 0, "no such block");
            return;
        }
    }
    coap_pdu_set_code(x->response, COAP_RESPONSE_CODE_CONTENT);
    uint32_t tag = etag ? *etag : hash(body, length);
    if (etag || in_blocks) {
        const uint8_t bytes[] = {(uint8_t)(tag >> 24), (uint8_t)(tag >> 16), (uint8_t)(tag >> 8), (uint8_t)tag};
        coap_add_option(x->response, COAP_OPTION_ETAG, sizeof bytes, bytes);
    }
    add_number(x->response, COAP_OPTION_CONTENT_FORMAT, format);
    if (in_blocks) {
        coap_add_block_b_data(x->response, length, body, &x->block);
    } else {
        coap_add_data(x->response, length, body);
    }
}

// Answers with the kept body.
static void answer_kept(struct exchange *x) {
    const struct kept *k = &x->server->kept;
    answer(x, k->format, k->body, k->length, &k->etag);
}

// Answers with the kept body, if it is the one asked for: a further block of it, or the first one to another peer soon after.
static bool answer_from_kept(struct exchange *x, enum what what, uint32_t from) {
    const struct kept *k = &x->server->kept;
    bool further = x->in_blocks && x->block.num > 0;
    bool soon = what == METER && now_us(x->server) - k->made_us < IDENTITY_KEPT_US;
    if (!k->length || k->what != what || k->format != x->format || k->from != from || !(further || soon)) {
        return false;
    }
    answer_kept(x);
    return true;
}

// Says of what the kept body is from now on. With length 0 there is none.
static void keep(struct exchange *x, enum what what, uint32_t from, size_t length, const uint32_t *etag) {
    struct kept *k = &x->server->kept;
    k->what = what;
    k->format = x->format;
    k->from = from;
    k->length = length;
    k->etag = etag ? *etag : hash(k->body, length);
    k->made_us = now_us(x->server);
}

static void answer_meter(struct exchange *x) {
    struct coapserver *s = x->server;
    if (answer_from_kept(x, METER, 0)) {
        return;
    }
    uint8_t *body = s->kept.body;
    keep(x, METER, 0, x->format == FORMAT_JSON ? telemetry_json_identity(s->config.meter, now_us(s), (char *)body, BODY)
                                               : telemetry_encode_identity(s->config.meter, now_us(s), body, BODY), NULL);
    if (!s->kept.length) {
        fail(x, COAP_RESPONSE_CODE_INTERNAL_ERROR, TELEMETRY_INTERNAL, 0, "the identity does not fit");
        return;
    }
    answer_kept(x);
}

static void answer_time(struct exchange *x, uint64_t received_us) {
    struct coapserver *s = x->server;
    uint32_t boot = s->config.meter->boot_id;
    size_t n = x->format == FORMAT_JSON ? telemetry_json_time(boot, received_us, now_us(s), (char *)s->body, SHORT)
                                        : telemetry_encode_time(boot, received_us, now_us(s), s->body, SHORT);
    answer(x, x->format, s->body, n, NULL);
}

// Finds from=SEQ among the queries; as in any list the first counts.
static bool query_from(const coap_pdu_t *request, uint32_t *from) {
    static const char key[] = {'f', 'r', 'o', 'm', '='};
    coap_opt_filter_t filter;
    coap_opt_iterator_t i;
    coap_option_filter_clear(&filter);
    coap_option_filter_set(&filter, COAP_OPTION_URI_QUERY);
    coap_option_iterator_init(request, &i, &filter);
    for (coap_opt_t *option = coap_option_next(&i); option; option = coap_option_next(&i)) {
        const uint8_t *p = coap_opt_value(option);
        size_t n = coap_opt_length(option);
        if (n < sizeof key || memcmp(p, key, sizeof key) != 0) {
            continue;
        }
        uint64_t value = 0;
        for (size_t at = sizeof key; at < n; at++) {
            if (p[at] < '0' || p[at] > '9') {
                return false;
            }
            value = value * 10 + (uint64_t)(p[at] - '0');
            if (value > UINT32_MAX) {
                return false;
            }
        }
        *from = (uint32_t)value;
        return n > sizeof key;
    }
    return false;
}

static void answer_samples(struct exchange *x) {
    struct coapserver *s = x->server;
    uint32_t from;
    if (!query_from(x->request, &from)) {
        fail(x, COAP_RESPONSE_CODE_BAD_REQUEST, TELEMETRY_BAD_REQUEST, 0, "ask /samples?from=SEQ, SEQ a whole number below 4294967296");
        return;
    }
    if (answer_from_kept(x, SAMPLES, from)) {
        return;
    }
    if (x->format == FORMAT_PROTOBUF && !x->in_blocks) {
        // What agents ask for does not take the place of what a person fetches in blocks.
        size_t n = telemetry_encode_samples(&s->ring, from, s->body, SHORT);
        answer(x, x->format, s->body, n, NULL);
        return;
    }
    uint8_t *body = s->kept.body;
    keep(x, SAMPLES, from, x->format == FORMAT_JSON ? telemetry_json_samples(&s->ring, from, (char *)body, BODY)
                                                    : telemetry_encode_samples(&s->ring, from, body, BODY), NULL);
    if (!s->kept.length) {
        fail(x, COAP_RESPONSE_CODE_INTERNAL_ERROR, TELEMETRY_INTERNAL, 0, "the samples do not fit; ask without Accept");
        return;
    }
    answer_kept(x);
}

// The value of Observe in a request, or -1.
static int observe_of(const coap_pdu_t *request) {
    coap_opt_iterator_t i;
    const coap_opt_t *option = coap_check_option(request, COAP_OPTION_OBSERVE, &i);
    return option ? (int)(coap_decode_var_bytes(coap_opt_value(option), coap_opt_length(option)) & 0xffffff) : -1;
}

// Answers with the last report. libcoap has begun or ended the observation already, and takes one back whose answer is an error. A notification
// must not become an error: libcoap 4.3.1 uses the observation after it has freed it.
static void answer_power(struct exchange *x, struct peer *p) {
    struct coapserver *s = x->server;
    if (!s->report_length) {
        fail(x, COAP_RESPONSE_CODE_SERVICE_UNAVAILABLE, TELEMETRY_BUSY, s->config.meter->report_interval_us / 1000, "no report yet");
        return;
    }
    const coap_bin_const_t token = coap_pdu_get_token(x->request);
    int observe = observe_of(x->request);
    struct observer *o = p ? find_observer(s, p, token) : NULL;
    if (s->notifying || (observe == COAP_OBSERVE_ESTABLISH && o)) {
        if (o) {
            o->round = s->round;
        }
    } else if (observe == COAP_OBSERVE_ESTABLISH) {
        if (!add_observer(s, x->session, p, token)) {
            fail(x, COAP_RESPONSE_CODE_SERVICE_UNAVAILABLE, TELEMETRY_BUSY, s->config.confirm_every_ms, "%u observers, no place left",
                 (unsigned)s->config.max_observers);
            return;
        }
    } else if (observe == COAP_OBSERVE_CANCEL && o) {
        observer_left(s, o, "asked");
    }
    if (!s->notifying && x->in_blocks && x->block.num > 0 && answer_from_kept(x, POWER, 0)) {
        return;
    }
    const uint8_t *body = s->report;
    size_t n = s->report_length;
    if (x->format == FORMAT_JSON) {
        if (s->report_json_seq != s->last.seq) {
            s->report_json_length = telemetry_json_report(s->config.meter, &s->last, s->report_json, sizeof s->report_json);
            s->report_json_seq = s->last.seq;
        }
        body = (const uint8_t *)s->report_json;
        n = s->report_json_length;
    }
    if (x->in_blocks || n > BLOCK) {
        memcpy(s->kept.body, body, n);
        keep(x, POWER, 0, n, &s->last.seq);
    }
    answer(x, x->format, body, n, &s->last.seq);
}

// A notification that could not be sent is made again at any time. It looks like an observer's NON request, which therefore is not refused either.
static bool is_again(const struct exchange *x, enum what what, const struct peer *p) {
    return what == POWER && p && coap_pdu_get_type(x->response) != COAP_MESSAGE_ACK && observe_of(x->request) == COAP_OBSERVE_ESTABLISH &&
           find_observer(x->server, p, coap_pdu_get_token(x->request));
}

// Answers any request, and makes any notification.
static void handle(coap_resource_t *resource, coap_session_t *session, const coap_pdu_t *request, const coap_string_t *query,
                   coap_pdu_t *response) {
    const struct resource *r = coap_resource_get_userdata(resource);
    struct coapserver *s = r->server;
    uint64_t received_us = now_us(s);
    (void)query; // Its form is libcoap's; the options are what the peer wrote.
    struct exchange x = {.server = s, .session = session, .request = request, .response = response, .format = FORMAT_PROTOBUF};
    coap_opt_iterator_t i;
    const coap_opt_t *option = coap_check_option(request, COAP_OPTION_ACCEPT, &i);
    uint32_t accept = option ? coap_decode_var_bytes(coap_opt_value(option), coap_opt_length(option)) : FORMAT_PROTOBUF;
    if (accept == FORMAT_JSON) {
        x.format = FORMAT_JSON;
    }
    bool acceptable = r->what == CORE ? !option || accept == FORMAT_LINKS : accept == x.format;
    x.in_blocks = coap_get_block_b(session, request, COAP_OPTION_BLOCK2, &x.block);

    struct peer *p = peer_of(s, session);
    if (s->notifying || is_again(&x, r->what, p)) {
        answer_power(&x, p);
        return;
    }
    if (!p) {
        fail(&x, COAP_RESPONSE_CODE_SERVICE_UNAVAILABLE, TELEMETRY_BUSY, s->config.confirm_every_ms, "%u peers, no place left",
             (unsigned)s->config.max_peers);
    } else if (!within_rate(s, p, received_us)) {
        fail(&x, COAP_RESPONSE_CODE_SERVICE_UNAVAILABLE, TELEMETRY_BUSY, 1000, "more than %u requests a second",
             (unsigned)s->config.requests_per_second);
    } else if (r->what == UNKNOWN) {
        fail(&x, COAP_RESPONSE_CODE_NOT_FOUND, TELEMETRY_NOT_FOUND, 0, "no such resource; see /.well-known/core");
    } else if (coap_pdu_get_code(request) != COAP_REQUEST_CODE_GET) {
        fail(&x, COAP_RESPONSE_CODE_NOT_ALLOWED, TELEMETRY_BAD_REQUEST, 0, "resources can be read only, with GET");
    } else if (!acceptable) {
        fail(&x, COAP_RESPONSE_CODE_NOT_ACCEPTABLE, TELEMETRY_NOT_ACCEPTABLE, 0, "no such format; leave out Accept or ask for %s",
             r->what == CORE ? "40, links" : "50, JSON");
    } else if (r->what == CORE) {
        answer(&x, FORMAT_LINKS, (const uint8_t *)links, sizeof links - 1, NULL);
    } else if (r->what == METER) {
        answer_meter(&x);
    } else if (r->what == POWER) {
        answer_power(&x, p);
    } else if (r->what == SAMPLES) {
        answer_samples(&x);
    } else {
        answer_time(&x, received_us);
    }
}

// ---- notifications

// Lets libcoap notify, and nothing else: requests are read in coap_io_process only.
static void notify(struct coapserver *s) {
    coap_tick_t now;
    s->notifying = true;
    coap_ticks(&now);
    if (coap_context_get_coap_fd(s->context) >= 0) {
        coap_io_prepare_epoll(s->context, now);
    } else {
        coap_socket_t *sockets[1];
        unsigned int n;
        coap_io_prepare_io(s->context, sockets, 1, &n, now);
    }
    s->notifying = false;
}

// Takes one report from the queue and sends it to all observers. Marking a resource twice before libcoap has notified makes one notification, so
// each report is sent before the next is taken.
static bool take_report(struct coapserver *s) {
    const struct telemetry_interval *next = telemetry_queue_peek(s->config.queue);
    if (!next) {
        return false;
    }
    s->last = *next;
    telemetry_queue_done(s->config.queue);
    telemetry_ring_add(&s->ring, &s->last);
    if (s->config.on_report) {
        s->config.on_report(s->config.on_report_context, &s->last);
    }
    size_t n = telemetry_encode_report(s->config.meter, &s->last, s->report, sizeof s->report);
    if (!n) {
        say(&s->config, "report %u does not fit a datagram", (unsigned)s->last.seq);
        return true;
    }
    s->report_length = n;
    s->round++;
    uint64_t now = now_us(s);
    bool confirm = now - s->confirmed_us >= (uint64_t)s->config.confirm_every_ms * 1000;
    if (confirm) {
        s->confirmed_us = now;
        coap_resource_set_mode(s->power, COAP_RESOURCE_FLAGS_NOTIFY_CON);
    }
    coap_resource_notify_observers(s->power, NULL);
    notify(s);
    if (confirm) {
        // Who has not acknowledged the CON before gets this report as a NON: to hold reports back would stall the stream for seconds.
        coap_resource_set_mode(s->power, COAP_RESOURCE_FLAGS_NOTIFY_NON);
        notify(s);
    }
    forget_the_gone(s);
    return true;
}

bool coapserver_poll(struct coapserver *s, uint32_t ms) {
    coap_tick_t begin, now;
    coap_ticks(&begin);
    do {
        while (take_report(s)) {
        }
        coap_ticks(&now);
        uint32_t passed = (uint32_t)((now - begin) * 1000 / COAP_TICKS_PER_SECOND);
        uint32_t left = passed < ms ? ms - passed : 0;
        uint32_t slice = left < SLICE_MS ? left : SLICE_MS;
        if (coap_io_process(s->context, slice ? slice : COAP_IO_NO_WAIT) < 0) {
            say(&s->config, "the network cannot be waited for");
            return false;
        }
        coap_ticks(&now);
    } while ((now - begin) * 1000 / COAP_TICKS_PER_SECOND < ms);
    return true;
}

// ---- start and end

static bool is_loopback(const coap_address_t *a) {
    if (a->addr.sa.sa_family == AF_INET) {
        return (ntohl(a->addr.sin.sin_addr.s_addr) >> 24) == 127;
    }
    static const uint8_t loopback[16] = {[15] = 1};
    return a->addr.sa.sa_family == AF_INET6 && memcmp(&a->addr.sin6.sin6_addr, loopback, sizeof loopback) == 0;
}

static bool parse_address(const char *text, uint16_t port, coap_address_t *a) {
    coap_address_init(a);
    if (inet_pton(AF_INET, text, &a->addr.sin.sin_addr) == 1) {
        a->addr.sin.sin_family = AF_INET;
        a->addr.sin.sin_port = htons(port);
        a->size = sizeof a->addr.sin;
        return true;
    }
    if (inet_pton(AF_INET6, text, &a->addr.sin6.sin6_addr) == 1) {
        a->addr.sin6.sin6_family = AF_INET6;
        a->addr.sin6.sin6_port = htons(port);
        a->size = sizeof a->addr.sin6;
        return true;
    }
    return false;
}

// Binds to one address. The port taken is in the endpoint's name, which is all that libcoap tells of it.
static bool bind_to(struct coapserver *s, const char *text, uint16_t port) {
    coap_address_t address;
    if (!parse_address(text, port, &address)) {
        say(&s->config, "%s is no IPv4 or IPv6 address", text);
        return false;
    }
    if (s->config.plain && !is_loopback(&address)) {
        say(&s->config, "CoAP without DTLS is for tests: loopback only, not %s", text);
        return false;
    }
    coap_endpoint_t *e = coap_new_endpoint(s->context, &address, s->config.plain ? COAP_PROTO_UDP : COAP_PROTO_DTLS);
    if (!e) {
        return false;
    }
    const char *colon = strrchr(coap_endpoint_str(e), ':');
    s->port = (uint16_t)(colon ? strtoul(colon + 1, NULL, 10) : port);
    return true;
}

static bool bind_all(struct coapserver *s) {
    const struct coapserver_config *c = &s->config;
    uint16_t port = c->port || c->any_port ? c->port : DEFAULT_PORT;
    // A socket of IPv6 takes IPv4 as well, where there is IPv6.
    if (c->address ? bind_to(s, c->address, port) : bind_to(s, "::", port) || bind_to(s, "0.0.0.0", port)) {
        return true;
    }
    say(c, "cannot listen on %s port %u; take another", c->address ? c->address : "any address", (unsigned)port);
    return false;
}

static bool set_key(struct coapserver *s) {
    const struct coapserver_config *c = &s->config;
    size_t n = c->identity ? strlen(c->identity) : 0;
    if (!c->key || !c->key_length || c->key_length > sizeof s->key || !n || n > sizeof s->identity) {
        say(c, "no key, or no identity; without them nobody can be let in");
        return false;
    }
    memcpy(s->identity, c->identity, n);
    memcpy(s->key, c->key, c->key_length);
    s->right = (coap_bin_const_t){.length = c->key_length, .s = s->key};
    s->wrong = (coap_bin_const_t){.length = c->key_length, .s = s->decoy};
    coap_dtls_spsk_t setup = {
        .version = COAP_DTLS_SPSK_SETUP_VERSION,
        .validate_id_call_back = key_of,
        .id_call_back_arg = s,
        .psk_info = {.hint = {.length = 0, .s = (const uint8_t *)""}, .key = s->right},
    };
    if (!coap_context_set_psk2(s->context, &setup)) {
        say(c, "DTLS does not take the key");
        return false;
    }
    return true;
}

static bool add_resources(struct coapserver *s) {
    for (int what = 0; what < WHATS; what++) {
        coap_resource_t *r;
        if (what == UNKNOWN) {
            r = coap_resource_unknown_init(handle);
        } else {
            const coap_str_const_t path = {.length = strlen(paths[what]), .s = (const uint8_t *)paths[what]};
            r = coap_resource_init((coap_str_const_t *)&path, // It makes a copy.
                                   what == POWER ? COAP_RESOURCE_FLAGS_NOTIFY_NON_ALWAYS : 0);
        }
        if (!r) {
            say(&s->config, "no memory for resources");
            return false;
        }
        s->resources[what] = (struct resource){.server = s, .what = (enum what)what};
        coap_resource_set_userdata(r, &s->resources[what]);
        for (int method = COAP_REQUEST_GET; method <= COAP_REQUEST_IPATCH; method++) {
            coap_register_request_handler(r, (coap_request_t)method, handle);
        }
        if (what == POWER) {
            coap_resource_set_get_observable(r, 1);
            s->power = r;
        }
        coap_add_resource(s->context, r);
    }
    return true;
}

struct coapserver *coapserver_new(const struct coapserver_config *config) {
    struct coapserver *s = calloc(1, sizeof *s);
    if (!s) {
        say(config, "no memory for the server");
        return NULL;
    }
    s->config = *config;
    struct coapserver_config *c = &s->config;
    c->max_observers = c->max_observers ? c->max_observers : DEFAULT_OBSERVERS;
    c->max_peers = c->max_peers ? c->max_peers : c->max_observers + SPARE_PEERS;
    c->requests_per_second = c->requests_per_second ? c->requests_per_second : DEFAULT_REQUESTS;
    c->confirm_every_ms = c->confirm_every_ms ? c->confirm_every_ms : DEFAULT_CONFIRM_MS;
    s->observers = calloc(c->max_observers, sizeof *s->observers);
    s->peers = calloc(c->max_peers, sizeof *s->peers);
    telemetry_ring_init(&s->ring, c->ring, c->ring_size, c->meter->boot_id);

    coap_startup();
    coap_set_log_level((coap_log_t)0); // What strangers send is not worth a line each; what matters is said here.
    coap_dtls_set_log_level((coap_log_t)0);
    s->context = s->observers && s->peers ? coap_new_context(NULL) : NULL;
    if (!s->context) {
        say(c, "no memory for the server");
        coapserver_free(s);
        return NULL;
    }
    coap_set_app_data(s->context, s);
    coap_register_event_handler(s->context, on_event);
    coap_context_set_max_idle_sessions(s->context, c->max_peers);
    // A hello with a spoofed address holds such a place for up to 30 s, so a flood of them keeps newcomers out, but neither who is there nor memory.
    coap_context_set_max_handshake_sessions(s->context, c->max_peers);
    coap_context_set_block_mode(s->context, 0); // Blocks are made here, without memory for each peer.
    s->confirmed_us = now_us(s);
    if ((!c->plain && !set_key(s)) || !add_resources(s) || !bind_all(s)) {
        coapserver_free(s);
        return NULL;
    }
    return s;
}

uint16_t coapserver_port(const struct coapserver *s) {
    return s->port;
}

uint32_t coapserver_observers(const struct coapserver *s) {
    return s->observer_count;
}

void coapserver_free(struct coapserver *s) {
    if (!s) {
        return;
    }
    if (s->context) {
        coap_register_event_handler(s->context, NULL);
        // Tells observers that the resource is gone, and peers that their sessions are closed.
        coap_free_context(s->context);
    }
    coap_cleanup();
    free(s->observers);
    free(s->peers);
    free(s);
}
