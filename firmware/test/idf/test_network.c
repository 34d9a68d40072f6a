// The network, with ESP-IDF's functions faked: joining for ever, what is announced, what is not logged. It links without any function that
// waits (fake_tasks.c): nothing in the event task does.
#include "check.h"
#include "fake_idf.h"
#include "network.h"

#define SECOND 1000000

static struct network net;
static const char *const passphrase = "correct horse battery staple", *const ssid = "my private net";

static bool begin(const char *name, const char *network) {
    fake_idf_reset();
    const struct network_config config = {
        .ssid = network, .passphrase = passphrase, .name = name, .serial = "24:0a:c4:01:02:03", .firmware = "1.2.3", .channels = 6, .port = 5684,
        .sntp = "pool.ntp.org",
    };
    return network_start(&net, &config);
}

static void lost(uint8_t reason) {
    const wifi_event_sta_disconnected_t event = {.reason = reason};
    fake_idf_post(WIFI_EVENT, WIFI_EVENT_STA_DISCONNECTED, &event, sizeof event);
}

static void got_ip4(void) {
    ip_event_got_ip_t event = {0};
    memcpy(&event.ip_info.ip.addr, (const uint8_t[]){10, 0, 0, 5}, 4);
    fake_idf_post(IP_EVENT, IP_EVENT_STA_GOT_IP, &event, sizeof event);
}

static void got_ip6(uint8_t first, uint8_t second) {
    ip_event_got_ip6_t event = {0};
    uint8_t *p = (uint8_t *)event.ip6_info.ip.addr;
    p[0] = first, p[1] = second, p[15] = 1;
    fake_idf_post(IP_EVENT, IP_EVENT_GOT_IP6, &event, sizeof event);
}

static void joins(void) {
    CHECK(begin("bench-1", ssid));
    CHECK(idf.wifi_in_ram);
    CHECK_EQ(idf.wifi_connects, 0);
    fake_idf_events();
    CHECK_EQ(idf.wifi_connects, 1);
    CHECK(idf.wifi_power_save_off);
    CHECK_MEM(idf.wifi_config.sta.ssid, ssid, strlen(ssid));
    CHECK_MEM(idf.wifi_config.sta.password, passphrase, strlen(passphrase));
    CHECK_EQ(idf.wifi_config.sta.threshold.authmode, WIFI_AUTH_WPA2_PSK);
    CHECK_EQ(network_state(&net), NETWORK_CONNECTING);
    fake_idf_post(WIFI_EVENT, WIFI_EVENT_STA_CONNECTED, NULL, 0);
    CHECK_EQ(idf.linklocals, 1);
    CHECK_EQ(network_state(&net), NETWORK_CONNECTING);
    got_ip4();
    CHECK_EQ(network_state(&net), NETWORK_ONLINE);
    char address[46];
    network_address(&net, address);
    CHECK_STR(address, "10.0.0.5");
    // Nothing is due any more: a day passes without a further attempt.
    fake_idf_advance(86400ull * SECOND);
    CHECK_EQ(idf.wifi_connects, 1);
    CHECK_EQ(idf.wifi_disconnects, 0);
}

static void addresses(void) {
    char address[46];
    begin("bench-1", ssid);
    fake_idf_events();
    fake_idf_post(WIFI_EVENT, WIFI_EVENT_STA_CONNECTED, NULL, 0);
    got_ip6(0xfe, 0x80);
    CHECK_EQ(network_state(&net), NETWORK_ONLINE); // link-local is enough to be reached by
    network_address(&net, address);
    CHECK_STR(address, "fe80:0000:0000:0000:0000:0000:0000:0001");
    got_ip6(0x20, 0x01);
    network_address(&net, address);
    CHECK_STR(address, "2001:0000:0000:0000:0000:0000:0000:0001");
    got_ip6(0xfe, 0x80);
    network_address(&net, address);
    CHECK_STR(address, "2001:0000:0000:0000:0000:0000:0000:0001");
    got_ip4();
    network_address(&net, address);
    CHECK_STR(address, "10.0.0.5");
    fake_idf_post(IP_EVENT, IP_EVENT_STA_LOST_IP, NULL, 0);
    CHECK_EQ(network_state(&net), NETWORK_ONLINE);
    lost(8);
    CHECK_EQ(network_state(&net), NETWORK_CONNECTING);
    network_address(&net, address);
    CHECK_STR(address, "");
}

static void joins_for_ever(void) {
    begin("bench-1", ssid);
    fake_idf_events();
    uint64_t shortest = UINT64_MAX, longest = 0;
    for (int i = 0; i < 1000; i++) {
        int connects = idf.wifi_connects;
        lost(201);
        CHECK_EQ(idf.wifi_connects, connects); // not from within the event of the failure
        uint64_t waited = 0;
        while (idf.wifi_connects == connects && waited < 100 * SECOND) {
            fake_idf_advance(1000);
            waited += 1000;
        }
        shortest = waited < shortest ? waited : shortest;
        longest = waited > longest ? waited : longest;
        CHECK(waited <= 30 * SECOND + 1000);
        CHECK(i < 8 || waited >= 22 * SECOND);
    }
    CHECK_EQ(idf.wifi_connects, 1001);
    CHECK(shortest >= 375000 && shortest <= 501000);
    CHECK(longest > 29 * SECOND); // waits differ: up to a quarter shorter
    // Said once, not a thousand times.
    int said = 0;
    for (const char *p = idf.log; (p = strstr(p, "reason 201")) != NULL; p++) {
        said++;
    }
    CHECK_EQ(said, 1);
    // After an address, waits are short again.
    fake_idf_post(WIFI_EVENT, WIFI_EVENT_STA_CONNECTED, NULL, 0);
    got_ip4();
    int connects = idf.wifi_connects;
    lost(8);
    fake_idf_advance(501000);
    CHECK_EQ(idf.wifi_connects, connects + 1);
}

static void attempts_that_never_end(void) {
    begin("bench-1", ssid);
    fake_idf_events();
    // Neither success nor failure is ever told.
    fake_idf_advance(3600ull * SECOND);
    CHECK(idf.wifi_connects > 70 && idf.wifi_connects < 200);
    CHECK(idf.wifi_disconnects >= idf.wifi_connects - 1);
    // What the disconnect then reports does not put off the attempt that is waited for.
    int connects = idf.wifi_connects, disconnects = idf.wifi_disconnects;
    while (idf.wifi_disconnects == disconnects) {
        fake_idf_advance(100000);
    }
    connects = idf.wifi_connects;
    for (int i = 0; i < 31; i++) {
        lost(8);
        fake_idf_advance(SECOND);
    }
    CHECK(idf.wifi_connects > connects);
}

static void connect_that_is_refused(void) {
    begin("bench-1", ssid);
    idf.wifi_connect_error = ESP_FAIL;
    fake_idf_events();
    fake_idf_advance(60ull * SECOND);
    CHECK(idf.wifi_connects >= 4);
    idf.wifi_connect_error = ESP_OK;
    int connects = idf.wifi_connects;
    fake_idf_advance(31ull * SECOND);
    CHECK_EQ(idf.wifi_connects, connects + 1);
}

static void event_queue_that_is_full(void) {
    begin("bench-1", ssid);
    fake_idf_events();
    lost(201);
    idf.event_queue_full = true;
    fake_idf_advance(5ull * SECOND);
    CHECK_EQ(idf.wifi_connects, 1);
    idf.event_queue_full = false;
    fake_idf_advance(200000);
    CHECK_EQ(idf.wifi_connects, 2);
}

static void announces(void) {
    // What internal/dnssd takes for a meter.
    CHECK(begin("Bench 1 (left)", ssid));
    CHECK_STR(idf.mdns_service, "_coaps");
    CHECK_STR(idf.mdns_protocol, "_udp");
    CHECK_EQ(idf.mdns_port, 5684);
    CHECK_STR(idf.mdns_instance, "Bench 1 (left)");
    CHECK_STR(idf.mdns_host, "bench-1--left");
    static const char *const want[4][2] = {{"txtvers", "1"}, {"id", "24:0a:c4:01:02:03"}, {"fw", "1.2.3"}, {"ch", "6"}};
    CHECK_EQ(idf.mdns_items, 4);
    for (int i = 0; i < 4; i++) {
        CHECK_STR(idf.mdns_txt[i][0], want[i][0]);
        CHECK_STR(idf.mdns_txt[i][1], want[i][1]);
    }
    CHECK_STR(idf.sntp, "pool.ntp.org");
}

static void hosts(void) {
    static const char *const cases[][2] = {
        {"bench-1", "bench-1"}, {"BENCH", "bench"}, {"--a--", "a"}, {"caf\xc3\xa9", "caf"}, {"", "meter"}, {"...", "meter"},
        {"123456789012345678901234567890123456789012345678901234567890abcdef", "123456789012345678901234567890123456789012345678901234567890abc"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char host[64];
        network_host(cases[i][0], host);
        CHECK_STR(host, cases[i][1]);
    }
}

static void without_a_network(void) {
    // The radio runs for its randomness, and joins nothing.
    CHECK(begin("bench-1", ""));
    fake_idf_events();
    fake_idf_advance(60ull * SECOND);
    CHECK(idf.wifi_started);
    CHECK_EQ(idf.wifi_connects, 0);
    CHECK_EQ(network_state(&net), NETWORK_OFF);
}

static void without_a_radio(void) {
    fake_idf_reset();
    struct network_config config = {.ssid = ssid, .passphrase = passphrase, .name = "a", .serial = "s", .firmware = "f", .channels = 6, .port = 1, .sntp = ""};
    idf.wifi_start_error = ESP_FAIL;
    CHECK(!network_start(&net, &config));
    CHECK(fake_idf_logged("radio: "));
    CHECK_EQ(network_state(&net), NETWORK_OFF);
    char address[46];
    network_address(&net, address);
    CHECK_STR(address, "");
    CHECK_STR(idf.sntp, "");
}

static void credentials_are_not_logged(void) {
    joins();
    CHECK(!fake_idf_logged(ssid) && !fake_idf_logged(passphrase));
    joins_for_ever();
    CHECK(idf.log_length > 0);
    CHECK(!fake_idf_logged(ssid) && !fake_idf_logged(passphrase));
    // A network's name and a passphrase that fill their fields have no zero at the end.
    fake_idf_reset();
    const struct network_config config = {
        .ssid = "12345678901234567890123456789012", .passphrase = "123456789012345678901234567890123456789012345678901234567890123", .name = "a",
        .serial = "s", .firmware = "f", .channels = 6, .port = 1, .sntp = "",
    };
    CHECK(network_start(&net, &config));
    CHECK_MEM(idf.wifi_config.sta.ssid, config.ssid, 32);
    CHECK_MEM(idf.wifi_config.sta.password, config.passphrase, 64);
}

// Any events in any order: waiting and connecting always have a timer, so that there is always a next attempt; no wait is beyond the longest.
static void any_events(void) {
    struct network_link l = {.backoff_min_ms = 500, .backoff_max_ms = 30000, .attempt_ms = 20000};
    uint32_t random = 1;
    bool timer = false;
    long connects = 0, up = 0, bad = 0;
    for (int i = 0; i < 3000000; i++) {
        random = random * 1664525 + 1013904223;
        enum network_link_event event = (enum network_link_event)(random >> 20) % 6;
        if (event == NETWORK_LINK_START && i != 0 && random >> 8 & 0xff) {
            continue;
        }
        struct network_link_action a = network_link_on(&l, i == 0 ? NETWORK_LINK_START : event, random >> 3);
        timer = a.timer_ms == NETWORK_LINK_KEEP ? timer && event != NETWORK_LINK_TIMER : a.timer_ms != 0;
        connects += a.connect;
        up += l.state == NETWORK_LINK_UP;
        bad += (l.state == NETWORK_LINK_WAITING || l.state == NETWORK_LINK_CONNECTING) && !timer;
        bad += a.timer_ms != NETWORK_LINK_KEEP && a.timer_ms > 30000;
        bad += l.state == NETWORK_LINK_WAITING && a.timer_ms != NETWORK_LINK_KEEP && a.timer_ms < 375;
        bad += l.state == NETWORK_LINK_OFF;
    }
    CHECK_EQ(bad, 0);
    CHECK(connects > 1000 && up > 1000);
    l.failures = UINT32_MAX; // decades
    l.state = NETWORK_LINK_CONNECTING;
    CHECK_EQ(network_link_on(&l, NETWORK_LINK_LOST, 0).timer_ms, 30000);
}

int main(void) {
    RUN(joins);
    RUN(addresses);
    RUN(joins_for_ever);
    RUN(attempts_that_never_end);
    RUN(connect_that_is_refused);
    RUN(event_queue_that_is_full);
    RUN(announces);
    RUN(hosts);
    RUN(without_a_network);
    RUN(without_a_radio);
    RUN(credentials_are_not_logged);
    RUN(any_events);
    return check_end();
}
