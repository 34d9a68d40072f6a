#pragma once
#include <stdint.h>
#include "esp_err.h"
#include "esp_event.h"
typedef struct esp_netif_obj esp_netif_t;
typedef struct {
    uint32_t addr;
} esp_ip4_addr_t;
typedef struct {
    uint32_t addr[4]; // in the order of the network
    uint8_t zone;
} esp_ip6_addr_t;
typedef enum { ESP_IP6_ADDR_IS_UNKNOWN, ESP_IP6_ADDR_IS_GLOBAL, ESP_IP6_ADDR_IS_LINK_LOCAL } esp_ip6_addr_type_t;
typedef struct {
    esp_ip4_addr_t ip, netmask, gw;
} esp_netif_ip_info_t;
typedef struct {
    esp_ip6_addr_t ip;
} esp_netif_ip6_info_t;
typedef struct {
    esp_netif_t *esp_netif;
    esp_netif_ip_info_t ip_info;
} ip_event_got_ip_t;
typedef struct {
    esp_netif_t *esp_netif;
    esp_netif_ip6_info_t ip6_info;
} ip_event_got_ip6_t;
typedef enum { IP_EVENT_STA_GOT_IP, IP_EVENT_STA_LOST_IP, IP_EVENT_GOT_IP6 } ip_event_t;
ESP_EVENT_DECLARE_BASE(IP_EVENT);
// Eight groups of 16 bits, as in ESP-IDF, for printf.
#define IPV6STR "%04x:%04x:%04x:%04x:%04x:%04x:%04x:%04x"
#define STUB_IP6_GROUP(ip, i) (unsigned)(((const uint8_t *)(ip).addr)[2 * (i)] << 8 | ((const uint8_t *)(ip).addr)[2 * (i) + 1])
#define IPV62STR(ip) \
    STUB_IP6_GROUP(ip, 0), STUB_IP6_GROUP(ip, 1), STUB_IP6_GROUP(ip, 2), STUB_IP6_GROUP(ip, 3), STUB_IP6_GROUP(ip, 4), STUB_IP6_GROUP(ip, 5), \
        STUB_IP6_GROUP(ip, 6), STUB_IP6_GROUP(ip, 7)
esp_err_t esp_netif_init(void);
esp_err_t esp_netif_set_hostname(esp_netif_t *esp_netif, const char *hostname);
esp_err_t esp_netif_create_ip6_linklocal(esp_netif_t *esp_netif);
char *esp_ip4addr_ntoa(const esp_ip4_addr_t *addr, char *buf, int buflen);
esp_ip6_addr_type_t esp_netif_ip6_get_addr_type(esp_ip6_addr_t *ip6_addr);
