#include "network.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "esp_event.h"
#include "esp_log.h"
#include "esp_netif.h"
#include "esp_netif_sntp.h"
#include "esp_random.h"
#include "esp_timer.h"
#include "esp_wifi.h"
#include "mdns.h"
#include "sdkconfig.h"

static const char *const tag = "network";

ESP_EVENT_DEFINE_BASE(NETWORK_EVENT);
enum { NETWORK_EVENT_TIMER };

// In the timer's task: only says so in the event task, where all else happens. If its queue is full the time is over a little later.
static void timer_over(void *argument) {
    struct network *n = argument;
    if (esp_event_post(NETWORK_EVENT, NETWORK_EVENT_TIMER, NULL, 0, 0) != ESP_OK) {
        esp_timer_start_once(n->timer, 100000);
    }
}

static void show_state(struct network *n) {
    enum network_state state = NETWORK_OFF;
    if (n->link.state == NETWORK_LINK_UP) {
        state = NETWORK_ONLINE;
    } else if (n->link.state != NETWORK_LINK_OFF) {
        state = NETWORK_CONNECTING;
    }
    n->state = state;
}

static void on(struct network *n, enum network_link_event event) {
    struct network_link_action action = network_link_on(&n->link, event, esp_random());
    if (action.timer_ms != NETWORK_LINK_KEEP) {
        esp_timer_stop(n->timer); // ESP_ERR_INVALID_STATE if it does not run
    }
    if (action.disconnect) {
        esp_wifi_disconnect();
    }
    if (action.connect) {
        esp_err_t err = esp_wifi_connect(); // does not wait: the result is an event
        if (err != ESP_OK) {
            ESP_LOGW(tag, "connect: %s", esp_err_to_name(err));
            action = network_link_on(&n->link, NETWORK_LINK_LOST, esp_random());
        }
    }
    if (action.timer_ms != NETWORK_LINK_KEEP && action.timer_ms != 0) {
        esp_timer_start_once(n->timer, (uint64_t)action.timer_ms * 1000);
    }
    show_state(n);
}

static void set_address(struct network *n, const char *address) {
    xSemaphoreTake(n->lock, portMAX_DELAY);
    snprintf(n->address, sizeof n->address, "%s", address);
    xSemaphoreGive(n->lock);
    if (address[0] != 0) {
        ESP_LOGI(tag, "address %s", address);
    }
}

static void on_wifi(void *argument, esp_event_base_t base, int32_t id, void *data) {
    struct network *n = argument;
    (void)base;
    switch (id) {
    case WIFI_EVENT_STA_START:
        if (n->config.ssid[0] != 0) {
            on(n, NETWORK_LINK_START);
        }
        break;
    case WIFI_EVENT_STA_CONNECTED:
        n->reason = 0;
        // The link-local address; with it SLAAC begins (CONFIG_LWIP_IPV6_AUTOCONFIG).
        esp_netif_create_ip6_linklocal(n->netif);
        on(n, NETWORK_LINK_JOIN);
        break;
    case WIFI_EVENT_STA_DISCONNECTED: {
        const wifi_event_sta_disconnected_t *event = data;
        if (event->reason != n->reason) {
            n->reason = event->reason;
            ESP_LOGW(tag, "not connected, reason %u", (unsigned)event->reason); // wifi_err_reason_t; 15, 202 and 204: the passphrase
        }
        n->has_ip4 = n->has_ip6 = n->global_ip6 = false;
        set_address(n, "");
        on(n, NETWORK_LINK_LOST);
        break;
    }
    }
}

static void on_ip(void *argument, esp_event_base_t base, int32_t id, void *data) {
    struct network *n = argument;
    (void)base;
    char text[46];
    switch (id) {
    case IP_EVENT_STA_GOT_IP: {
        const ip_event_got_ip_t *event = data;
        n->has_ip4 = true;
        esp_ip4addr_ntoa(&event->ip_info.ip, text, sizeof text);
        set_address(n, text);
        on(n, NETWORK_LINK_ADDRESS);
        break;
    }
    case IP_EVENT_GOT_IP6: {
        ip_event_got_ip6_t *event = data;
        bool global = esp_netif_ip6_get_addr_type(&event->ip6_info.ip) != ESP_IP6_ADDR_IS_LINK_LOCAL;
        if (!n->has_ip4 && (global || !n->global_ip6)) {
            snprintf(text, sizeof text, IPV6STR, IPV62STR(event->ip6_info.ip));
            set_address(n, text);
        }
        n->has_ip6 = true;
        n->global_ip6 = n->global_ip6 || global;
        on(n, NETWORK_LINK_ADDRESS);
        break;
    }
    case IP_EVENT_STA_LOST_IP:
        n->has_ip4 = false;
        if (!n->has_ip6) {
            set_address(n, "");
            on(n, NETWORK_LINK_ADDRESS_LOST);
        }
        break;
    }
}

static void on_timer(void *argument, esp_event_base_t base, int32_t id, void *data) {
    (void)base, (void)id, (void)data;
    on(argument, NETWORK_LINK_TIMER);
}

void network_host(const char *name, char host[64]) {
    size_t length = 0;
    for (; *name != 0 && length < 63; name++) {
        char c = *name;
        if (c >= 'A' && c <= 'Z') {
            c = (char)(c - 'A' + 'a');
        } else if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9')) {
            c = '-';
        }
        if (c != '-' || length > 0) {
            host[length++] = c;
        }
    }
    while (length > 0 && host[length - 1] == '-') {
        length--;
    }
    host[length] = 0;
    if (length == 0) {
        strcpy(host, "meter");
    }
}

static esp_err_t announce(struct network *n) {
    char channels[12];
    snprintf(channels, sizeof channels, "%d", n->config.channels);
    // RFC 6763, 6.7: txtvers comes first. The library copies all of it.
    mdns_txt_item_t txt[] = {{"txtvers", "1"}, {"id", n->config.serial}, {"fw", n->config.firmware}, {"ch", channels}};
    esp_err_t err = mdns_init();
    if (err == ESP_OK) {
        err = mdns_hostname_set(n->host);
    }
    if (err == ESP_OK) {
        err = mdns_service_add(n->config.name[0] != 0 ? n->config.name : n->host, "_coaps", "_udp", n->config.port, txt, sizeof txt / sizeof *txt);
    }
    return err;
}

static esp_err_t start_clock(const char *server) {
    esp_sntp_config_t config = ESP_NETIF_SNTP_DEFAULT_CONFIG(server);
    config.wait_for_sync = false; // nobody waits: the clock is right once it is past 2024
    return esp_netif_sntp_init(&config);
}

static esp_err_t set_credentials(const struct network_config *c) {
    wifi_config_t config = {0};
    // Neither field needs a zero at its end when it is full.
    memcpy(config.sta.ssid, c->ssid, strnlen(c->ssid, sizeof config.sta.ssid));
    memcpy(config.sta.password, c->passphrase, strnlen(c->passphrase, sizeof config.sta.password));
    // Nothing weaker than WPA2 where there is a passphrase; WPA3 by either way of making its element.
    config.sta.threshold.authmode = c->passphrase[0] != 0 ? WIFI_AUTH_WPA2_PSK : WIFI_AUTH_OPEN;
    config.sta.sae_pwe_h2e = WPA3_SAE_PWE_BOTH;
    config.sta.scan_method = WIFI_ALL_CHANNEL_SCAN; // the strongest of access points with one name
    config.sta.sort_method = WIFI_CONNECT_AP_BY_SIGNAL;
    esp_err_t err = esp_wifi_set_config(WIFI_IF_STA, &config);
    memset(&config, 0, sizeof config);
    return err;
}

static esp_err_t start_radio(struct network *n) {
    const wifi_init_config_t init = WIFI_INIT_CONFIG_DEFAULT();
    esp_err_t err = esp_wifi_init(&init);
    // The settings are the meter's; the driver keeps no second copy of the passphrase in the flash.
    err = err == ESP_OK ? esp_wifi_set_storage(WIFI_STORAGE_RAM) : err;
    err = err == ESP_OK ? esp_wifi_set_mode(WIFI_MODE_STA) : err;
    err = err == ESP_OK ? set_credentials(&n->config) : err;
    err = err == ESP_OK ? esp_wifi_start() : err;
    // With power save, what agents send waits for the next beacon they are told of: 100 ms and more.
    err = err == ESP_OK ? esp_wifi_set_ps(WIFI_PS_NONE) : err;
    return err;
}

static esp_err_t listen(struct network *n) {
    esp_err_t err = esp_event_handler_instance_register(WIFI_EVENT, ESP_EVENT_ANY_ID, on_wifi, n, NULL);
    err = err == ESP_OK ? esp_event_handler_instance_register(IP_EVENT, ESP_EVENT_ANY_ID, on_ip, n, NULL) : err;
    err = err == ESP_OK ? esp_event_handler_instance_register(NETWORK_EVENT, NETWORK_EVENT_TIMER, on_timer, n, NULL) : err;
    return err;
}

static void warn(const char *what, esp_err_t err) {
    if (err != ESP_OK) {
        ESP_LOGE(tag, "%s: %s", what, esp_err_to_name(err));
    }
}

bool network_start(struct network *n, const struct network_config *config) {
    *n = (struct network){
        .config = *config,
        .link = {
            .backoff_min_ms = CONFIG_NETWORK_BACKOFF_MIN_MS,
            .backoff_max_ms = CONFIG_NETWORK_BACKOFF_MAX_MS,
            .attempt_ms = CONFIG_NETWORK_CONNECT_TIMEOUT_MS,
        },
    };
    n->lock = xSemaphoreCreateMutexStatic(&n->lock_memory);
    network_host(config->name, n->host);
    esp_log_level_set("wifi", ESP_LOG_WARN); // at the level below it writes the network's name

    const esp_timer_create_args_t arguments = {.callback = timer_over, .arg = n, .dispatch_method = ESP_TIMER_TASK, .name = "network"};
    esp_timer_handle_t timer = NULL;
    esp_err_t err = esp_timer_create(&arguments, &timer);
    n->timer = timer;
    err = err == ESP_OK ? esp_netif_init() : err;
    err = err == ESP_OK ? esp_event_loop_create_default() : err;
    if (err == ESP_OK) {
        n->netif = esp_netif_create_default_wifi_sta();
        esp_netif_set_hostname(n->netif, n->host);
        err = listen(n);
        // Before the radio, so that they see its first events. A meter without these is as good but for being found, and for the time on
        // its display.
        warn("mDNS", announce(n));
        warn("clock", config->sntp[0] != 0 ? start_clock(config->sntp) : ESP_OK);
    }
    err = err == ESP_OK ? start_radio(n) : err;
    warn("radio", err);
    return err == ESP_OK;
}

enum network_state network_state(const struct network *n) {
    return (enum network_state)n->state;
}

void network_address(struct network *n, char address[46]) {
    address[0] = 0;
    if (n->lock != NULL) {
        xSemaphoreTake(n->lock, portMAX_DELAY);
        memcpy(address, n->address, sizeof n->address);
        xSemaphoreGive(n->lock);
    }
}

bool network_clock(uint8_t *hour, uint8_t *minute) {
    time_t now = time(NULL);
    struct tm utc;
    if (now < 1704067200 || gmtime_r(&now, &utc) == NULL) { // 2024-01-01: before that nobody has set it
        return false;
    }
    *hour = (uint8_t)utc.tm_hour;
    *minute = (uint8_t)utc.tm_min;
    return true;
}
