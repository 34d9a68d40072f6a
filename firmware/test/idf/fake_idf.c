#include "fake_idf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/uart.h"
#include "esp_app_desc.h"
#include "esp_heap_caps.h"
#include "esp_lcd_panel_ops.h"
#include "esp_lcd_panel_ssd1306.h"
#include "esp_log.h"
#include "esp_mac.h"
#include "esp_netif_sntp.h"
#include "esp_random.h"
#include "esp_system.h"
#include "esp_task_wdt.h"
#include "freertos/semphr.h"
#include "nvs.h"
#include "nvs_flash.h"

struct fake_idf idf;
esp_event_base_t const WIFI_EVENT = "WIFI_EVENT";
esp_event_base_t const IP_EVENT = "IP_EVENT";

void fake_idf_reset(void) {
    uint32_t random = idf.random;
    memset(&idf, 0, sizeof idf);
    idf.random = random;
    idf.end_us = INT64_MAX;
    idf.image = ESP_OTA_IMG_VALID;
}

// Of the linker, for the section.
extern uint8_t __start_rtc_noinit[] __attribute__((weak)), __stop_rtc_noinit[] __attribute__((weak));

uint8_t *fake_idf_rtc(size_t *size) {
    *size = (size_t)(__stop_rtc_noinit - __start_rtc_noinit);
    return __start_rtc_noinit;
}

void fake_idf_rtc_scramble(void) {
    size_t size;
    uint8_t *rtc = fake_idf_rtc(&size);
    esp_fill_random(rtc, size);
}

// ---- time. Asking for it takes a microsecond, so that a loop that waits for it ends.

int64_t esp_timer_get_time(void) {
    return idf.now_us++;
}

esp_err_t esp_timer_create(const esp_timer_create_args_t *create_args, esp_timer_handle_t *out_handle) {
    struct esp_timer *t = &idf.timer[idf.timers++];
    *t = (struct esp_timer){.arguments = *create_args};
    *out_handle = t;
    return ESP_OK;
}

static esp_err_t start(esp_timer_handle_t t, uint64_t us, uint64_t period) {
    if (t->active) {
        return ESP_ERR_INVALID_STATE;
    }
    t->active = true;
    t->at_us = (uint64_t)idf.now_us + us;
    t->period_us = period;
    return ESP_OK;
}

esp_err_t esp_timer_start_once(esp_timer_handle_t timer, uint64_t timeout_us) {
    return start(timer, timeout_us, 0);
}

esp_err_t esp_timer_start_periodic(esp_timer_handle_t timer, uint64_t period) {
    return start(timer, period, period);
}

esp_err_t esp_timer_stop(esp_timer_handle_t timer) {
    esp_err_t err = timer->active ? ESP_OK : ESP_ERR_INVALID_STATE;
    timer->active = false;
    return err;
}

void esp_timer_isr_dispatch_need_yield(void) {
}

int64_t fake_idf_alarm(void) {
    int64_t at = INT64_MAX;
    for (int i = 0; i < idf.timers; i++) {
        if (idf.timer[i].active && (int64_t)idf.timer[i].at_us < at) {
            at = (int64_t)idf.timer[i].at_us;
        }
    }
    return at;
}

void fake_idf_timers(void) {
    for (int i = 0; i < idf.timers; i++) {
        struct esp_timer *t = &idf.timer[i];
        if (t->active && (int64_t)t->at_us <= idf.now_us) {
            if (t->period_us != 0) {
                t->at_us += ((uint64_t)idf.now_us - t->at_us) / t->period_us * t->period_us + t->period_us;
            } else {
                t->active = false;
            }
            t->arguments.callback(t->arguments.arg);
        }
    }
}

void fake_idf_advance(uint64_t us) {
    int64_t until = idf.now_us + (int64_t)us;
    for (int64_t at; (at = fake_idf_alarm()) <= until;) {
        idf.now_us = at > idf.now_us ? at : idf.now_us;
        fake_idf_timers();
        fake_idf_events();
    }
    idf.now_us = until;
}

// ---- events

esp_err_t esp_event_loop_create_default(void) {
    return ESP_OK;
}

esp_err_t esp_event_handler_instance_register(esp_event_base_t event_base, int32_t event_id, esp_event_handler_t event_handler, void *event_handler_arg,
                                              esp_event_handler_instance_t *instance) {
    (void)instance;
    idf.handler[idf.handlers].base = event_base;
    idf.handler[idf.handlers].id = event_id;
    idf.handler[idf.handlers].handler = event_handler;
    idf.handler[idf.handlers++].argument = event_handler_arg;
    return ESP_OK;
}

esp_err_t esp_event_post(esp_event_base_t event_base, int32_t event_id, const void *event_data, size_t event_data_size, TickType_t ticks_to_wait) {
    (void)ticks_to_wait;
    if (idf.event_queue_full || idf.events == 32) {
        return ESP_ERR_TIMEOUT;
    }
    struct fake_event *e = &idf.event[idf.events++];
    *e = (struct fake_event){.base = event_base, .id = event_id};
    if (event_data_size != 0) {
        memcpy(e->data, event_data, event_data_size);
    }
    return ESP_OK;
}

void fake_idf_post(esp_event_base_t base, int32_t id, const void *data, size_t size) {
    esp_event_post(base, id, data, size, 0);
    fake_idf_events();
}

void fake_idf_events(void) {
    while (idf.events > 0) {
        struct fake_event e = idf.event[0];
        memmove(&idf.event[0], &idf.event[1], sizeof e * (size_t)--idf.events);
        for (int i = 0; i < idf.handlers; i++) {
            if (idf.handler[i].base == e.base && (idf.handler[i].id == ESP_EVENT_ANY_ID || idf.handler[i].id == e.id)) {
                idf.handler[i].handler(idf.handler[i].argument, e.base, e.id, e.data);
            }
        }
    }
}

// ---- the log

void stub_log(esp_log_level_t level, const char *tag, const char *format, ...) {
    (void)level;
    va_list arguments;
    va_start(arguments, format);
    size_t room = sizeof idf.log - idf.log_length;
    int n = snprintf(idf.log + idf.log_length, room, "%s: ", tag);
    if (n > 0 && (size_t)n < room) {
        n += vsnprintf(idf.log + idf.log_length + n, room - (size_t)n, format, arguments);
    }
    if (n > 0 && (size_t)n + 1 < room) {
        idf.log_length += (size_t)n;
        idf.log[idf.log_length++] = '\n';
    }
    va_end(arguments);
}

void esp_log_level_set(const char *tag, esp_log_level_t level) {
    if (strcmp(tag, "i2c.master") == 0 && level == ESP_LOG_NONE) {
        idf.i2c_quiet = true;
    }
}

bool fake_idf_logged(const char *text) {
    return strstr(idf.log, text) != NULL;
}

const char *esp_err_to_name(esp_err_t code) {
    return code == ESP_OK ? "ESP_OK" : "ESP_ERR";
}

// ---- I2C

struct i2c_master_bus_t {
    int port;
};
struct i2c_master_dev_t {
    struct i2c_master_bus_t *bus;
    uint8_t address;
};
static struct i2c_master_bus_t buses[2];
static struct i2c_master_dev_t devices[8];

esp_err_t i2c_new_master_bus(const i2c_master_bus_config_t *bus_config, i2c_master_bus_handle_t *ret_bus_handle) {
    *ret_bus_handle = &buses[bus_config->i2c_port];
    buses[bus_config->i2c_port].port = bus_config->i2c_port;
    return idf.i2c_new_error;
}

esp_err_t i2c_master_bus_add_device(i2c_master_bus_handle_t bus_handle, const i2c_device_config_t *dev_config, i2c_master_dev_handle_t *ret_handle) {
    struct i2c_master_dev_t *d = &devices[dev_config->device_address % 8];
    *d = (struct i2c_master_dev_t){.bus = bus_handle, .address = (uint8_t)dev_config->device_address};
    idf.i2c_hz = dev_config->scl_speed_hz;
    *ret_handle = d;
    return ESP_OK;
}

// A transfer on the wire of the fakes, whose clock is brought to ours and ours to it.
static esp_err_t transfer(const struct i2c_master_dev_t *d, const uint8_t *write, size_t write_size, uint8_t *read, size_t read_size, int timeout_ms) {
    idf.i2c_transfers++;
    idf.i2c_timeout_ms = timeout_ms;
    if (idf.i2c_fail > 0) {
        idf.i2c_fail--;
        return idf.i2c_error;
    }
    if (idf.wire == NULL) {
        memset(read, 0, read_size);
        return ESP_OK;
    }
    fake_i2c_advance_to(idf.wire, (uint64_t)idf.now_us * 1000);
    struct ina3221_bus bus = fake_i2c_bus(idf.wire);
    int result = read != NULL ? bus.read(bus.context, d->address, write[0], read, read_size) : bus.write(bus.context, d->address, write, write_size);
    idf.now_us = (int64_t)((idf.wire->now_ns + 999) / 1000);
    return result == 0 ? ESP_OK : result == -1 ? ESP_ERR_INVALID_RESPONSE : ESP_ERR_TIMEOUT;
}

esp_err_t i2c_master_transmit(i2c_master_dev_handle_t i2c_dev, const uint8_t *write_buffer, size_t write_size, int xfer_timeout_ms) {
    return transfer(i2c_dev, write_buffer, write_size, NULL, 0, xfer_timeout_ms);
}

esp_err_t i2c_master_transmit_receive(i2c_master_dev_handle_t i2c_dev, const uint8_t *write_buffer, size_t write_size, uint8_t *read_buffer,
                                      size_t read_size, int xfer_timeout_ms) {
    return transfer(i2c_dev, write_buffer, write_size, read_buffer, read_size, xfer_timeout_ms);
}

esp_err_t i2c_master_bus_reset(i2c_master_bus_handle_t bus_handle) {
    (void)bus_handle;
    idf.i2c_resets++;
    return ESP_OK;
}

// ---- the display

struct esp_lcd_panel_io_t {
    int unused;
};
struct esp_lcd_panel_t {
    int unused;
};
static struct esp_lcd_panel_io_t panel_io;
static struct esp_lcd_panel_t panel;

esp_err_t esp_lcd_new_panel_io_i2c(i2c_master_bus_handle_t bus, const esp_lcd_panel_io_i2c_config_t *io_config, esp_lcd_panel_io_handle_t *ret_io) {
    (void)io_config;
    *ret_io = &panel_io;
    return bus->port == 1 ? ESP_OK : ESP_ERR_INVALID_ARG;
}

esp_err_t esp_lcd_new_panel_ssd1306(const esp_lcd_panel_io_handle_t io, const esp_lcd_panel_dev_config_t *panel_dev_config,
                                    esp_lcd_panel_handle_t *ret_panel) {
    (void)io;
    *ret_panel = &panel;
    return panel_dev_config->bits_per_pixel == 1 ? ESP_OK : ESP_ERR_INVALID_ARG;
}

static esp_err_t oled(void) {
    return idf.oled_missing ? ESP_ERR_INVALID_RESPONSE : ESP_OK;
}

esp_err_t esp_lcd_panel_reset(esp_lcd_panel_handle_t handle) {
    (void)handle;
    return ESP_OK;
}

esp_err_t esp_lcd_panel_init(esp_lcd_panel_handle_t handle) {
    (void)handle;
    idf.oled_inits++;
    return oled();
}

esp_err_t esp_lcd_panel_mirror(esp_lcd_panel_handle_t handle, bool mirror_x, bool mirror_y) {
    (void)handle, (void)mirror_x, (void)mirror_y;
    return oled();
}

esp_err_t esp_lcd_panel_disp_on_off(esp_lcd_panel_handle_t handle, bool on_off) {
    (void)handle, (void)on_off;
    return oled();
}

esp_err_t esp_lcd_panel_draw_bitmap(esp_lcd_panel_handle_t handle, int x_start, int y_start, int x_end, int y_end, const void *color_data) {
    (void)handle;
    if (oled() == ESP_OK && x_start == 0 && y_start == 0 && x_end == 128 && y_end == 64) {
        memcpy(idf.oled, color_data, sizeof idf.oled);
        idf.oled_draws++;
    }
    return oled();
}

// ---- the flash

static const char *open_partition;

esp_err_t nvs_flash_init(void) {
    return idf.nvs_init_error;
}

esp_err_t nvs_flash_init_partition(const char *partition_label) {
    return strcmp(partition_label, "totals") == 0 ? idf.totals_init_error : ESP_FAIL;
}

static void erase(const char *partition) {
    int n = 0;
    for (int i = 0; i < idf.blobs; i++) {
        if (strcmp(idf.blob[i].partition, partition) != 0) {
            idf.blob[n++] = idf.blob[i];
        }
    }
    idf.blobs = n;
    idf.nvs_erased++;
    snprintf(idf.nvs_erased_partition, sizeof idf.nvs_erased_partition, "%s", partition);
}

esp_err_t nvs_flash_erase(void) {
    idf.nvs_init_error = ESP_OK;
    erase("nvs");
    return ESP_OK;
}

esp_err_t nvs_flash_erase_partition(const char *part_name) {
    idf.totals_init_error = ESP_OK;
    erase(part_name);
    return ESP_OK;
}

esp_err_t nvs_open_from_partition(const char *part_name, const char *namespace_name, nvs_open_mode_t open_mode, nvs_handle_t *out_handle) {
    (void)open_mode;
    *out_handle = 1;
    open_partition = part_name;
    return strlen(namespace_name) <= 15 && strlen(part_name) <= 15 ? ESP_OK : ESP_FAIL;
}

static struct fake_blob *find(const char *key) {
    for (int i = 0; i < idf.blobs; i++) {
        if (strcmp(idf.blob[i].partition, open_partition) == 0 && strcmp(idf.blob[i].key, key) == 0) {
            return &idf.blob[i];
        }
    }
    return NULL;
}

esp_err_t nvs_get_blob(nvs_handle_t handle, const char *key, void *out_value, size_t *length) {
    (void)handle;
    const struct fake_blob *b = find(key);
    if (b == NULL) {
        return ESP_ERR_NVS_NOT_FOUND;
    }
    if (*length < b->length) {
        return ESP_FAIL;
    }
    memcpy(out_value, b->bytes, b->length);
    *length = b->length;
    return ESP_OK;
}

esp_err_t nvs_set_blob(nvs_handle_t handle, const char *key, const void *value, size_t length) {
    (void)handle;
    if (idf.nvs_set_error != ESP_OK || strlen(key) > 15) {
        return ESP_FAIL;
    }
    struct fake_blob *b = find(key);
    if (b == NULL) {
        b = &idf.blob[idf.blobs++];
        snprintf(b->partition, sizeof b->partition, "%s", open_partition);
        snprintf(b->key, sizeof b->key, "%s", key);
    }
    memcpy(b->bytes, value, length);
    b->length = length;
    idf.nvs_writes++;
    return ESP_OK;
}

esp_err_t nvs_commit(nvs_handle_t handle) {
    (void)handle;
    idf.nvs_commits++;
    return ESP_OK;
}

void nvs_close(nvs_handle_t handle) {
    (void)handle;
}

// ---- the chip

uint32_t esp_random(void) {
    idf.randoms++;
    return idf.random = idf.random * 1664525 + 1013904223; // Numerical Recipes' generator; 0 comes up too
}

void esp_fill_random(void *buf, size_t len) {
    for (size_t i = 0; i < len; i++) {
        ((uint8_t *)buf)[i] = (uint8_t)(esp_random() >> 24);
    }
}

esp_err_t esp_efuse_mac_get_default(uint8_t *mac) {
    memcpy(mac, "\x24\x0a\xc4\x01\x02\x03", 6);
    return ESP_OK;
}

const esp_app_desc_t *esp_app_get_description(void) {
    static const esp_app_desc_t description = {.version = "1.2.3"};
    return &description;
}

esp_reset_reason_t esp_reset_reason(void) {
    return ESP_RST_POWERON;
}

uint32_t esp_get_free_heap_size(void) {
    return 100000;
}

uint32_t esp_get_minimum_free_heap_size(void) {
    return 90000;
}

void *heap_caps_malloc(size_t size, uint32_t caps) {
    (void)caps;
    static uint8_t memory[1 << 17];
    return size <= sizeof memory ? memory : NULL;
}

esp_err_t esp_task_wdt_add(TaskHandle_t task_handle) {
    (void)task_handle;
    idf.watched++;
    return ESP_OK;
}

esp_err_t esp_task_wdt_reset(void) {
    idf.alive++;
    return ESP_OK;
}

const esp_partition_t *esp_ota_get_running_partition(void) {
    return NULL;
}

esp_err_t esp_ota_get_state_partition(const esp_partition_t *partition, esp_ota_img_states_t *ota_state) {
    (void)partition;
    *ota_state = idf.image;
    return ESP_OK;
}

esp_err_t esp_ota_mark_app_valid_cancel_rollback(void) {
    idf.confirmed = true;
    return ESP_OK;
}

esp_err_t uart_driver_install(uart_port_t uart_num, int rx_buffer_size, int tx_buffer_size, int queue_size, QueueHandle_t *uart_queue,
                              int intr_alloc_flags) {
    (void)uart_num, (void)rx_buffer_size, (void)tx_buffer_size, (void)queue_size, (void)uart_queue, (void)intr_alloc_flags;
    return ESP_OK;
}

// ---- the network

struct esp_netif_obj {
    int unused;
};

esp_err_t esp_netif_init(void) {
    return ESP_OK;
}

esp_netif_t *esp_netif_create_default_wifi_sta(void) {
    static struct esp_netif_obj netif;
    return &netif;
}

esp_err_t esp_netif_set_hostname(esp_netif_t *esp_netif, const char *hostname) {
    (void)esp_netif, (void)hostname;
    return ESP_OK;
}

esp_err_t esp_netif_create_ip6_linklocal(esp_netif_t *esp_netif) {
    (void)esp_netif;
    idf.linklocals++;
    return ESP_OK;
}

char *esp_ip4addr_ntoa(const esp_ip4_addr_t *addr, char *buf, int buflen) {
    const uint8_t *p = (const uint8_t *)&addr->addr;
    snprintf(buf, (size_t)buflen, "%u.%u.%u.%u", p[0], p[1], p[2], p[3]);
    return buf;
}

esp_ip6_addr_type_t esp_netif_ip6_get_addr_type(esp_ip6_addr_t *ip6_addr) {
    const uint8_t *p = (const uint8_t *)ip6_addr->addr;
    return p[0] == 0xfe && (p[1] & 0xc0) == 0x80 ? ESP_IP6_ADDR_IS_LINK_LOCAL : ESP_IP6_ADDR_IS_GLOBAL;
}

esp_err_t esp_netif_sntp_init(const esp_sntp_config_t *config) {
    snprintf(idf.sntp, sizeof idf.sntp, "%s", config->servers[0]);
    return config->start && !config->wait_for_sync ? ESP_OK : ESP_FAIL;
}

esp_err_t esp_wifi_init(const wifi_init_config_t *config) {
    (void)config;
    return ESP_OK;
}

esp_err_t esp_wifi_set_storage(wifi_storage_t storage) {
    idf.wifi_in_ram = storage == WIFI_STORAGE_RAM;
    return ESP_OK;
}

esp_err_t esp_wifi_set_mode(wifi_mode_t mode) {
    return mode == WIFI_MODE_STA ? ESP_OK : ESP_FAIL;
}

esp_err_t esp_wifi_set_config(wifi_interface_t interface, wifi_config_t *conf) {
    (void)interface;
    idf.wifi_config = *conf;
    return ESP_OK;
}

esp_err_t esp_wifi_set_ps(wifi_ps_type_t type) {
    idf.wifi_power_save_off = type == WIFI_PS_NONE;
    return idf.wifi_started ? ESP_OK : ESP_FAIL;
}

esp_err_t esp_wifi_start(void) {
    idf.wifi_started = idf.wifi_start_error == ESP_OK;
    if (idf.wifi_started) {
        esp_event_post(WIFI_EVENT, WIFI_EVENT_STA_START, NULL, 0, 0);
    }
    return idf.wifi_start_error;
}

esp_err_t esp_wifi_connect(void) {
    idf.wifi_connects++;
    return idf.wifi_connect_error;
}

esp_err_t esp_wifi_disconnect(void) {
    idf.wifi_disconnects++;
    return ESP_OK;
}

esp_err_t mdns_init(void) {
    return idf.wifi_started ? ESP_FAIL : ESP_OK; // it would miss the first events
}

esp_err_t mdns_hostname_set(const char *hostname) {
    snprintf(idf.mdns_host, sizeof idf.mdns_host, "%s", hostname);
    return ESP_OK;
}

esp_err_t mdns_service_add(const char *instance_name, const char *service_type, const char *proto, uint16_t port, mdns_txt_item_t txt[],
                           size_t num_items) {
    snprintf(idf.mdns_instance, sizeof idf.mdns_instance, "%s", instance_name);
    snprintf(idf.mdns_service, sizeof idf.mdns_service, "%s", service_type);
    snprintf(idf.mdns_protocol, sizeof idf.mdns_protocol, "%s", proto);
    idf.mdns_port = port;
    for (size_t i = 0; i < num_items && i < 8; i++) {
        snprintf(idf.mdns_txt[i][0], 64, "%s", txt[i].key);
        snprintf(idf.mdns_txt[i][1], 64, "%s", txt[i].value);
    }
    idf.mdns_items = num_items;
    return ESP_OK;
}

// ---- a lock, of which nobody but its holder asks

SemaphoreHandle_t xSemaphoreCreateMutexStatic(StaticSemaphore_t *pxMutexBuffer) {
    pxMutexBuffer->opaque[0] = 0;
    return (SemaphoreHandle_t)pxMutexBuffer;
}

BaseType_t xSemaphoreTake(SemaphoreHandle_t xSemaphore, TickType_t xBlockTime) {
    (void)xBlockTime;
    if (((StaticSemaphore_t *)xSemaphore)->opaque[0]++ != 0) {
        fprintf(stderr, "a lock is taken that its holder has\n");
        abort();
    }
    return pdTRUE;
}

BaseType_t xSemaphoreGive(SemaphoreHandle_t xSemaphore) {
    if (--((StaticSemaphore_t *)xSemaphore)->opaque[0] != 0) {
        fprintf(stderr, "a lock is given that was not taken\n");
        abort();
    }
    return pdTRUE;
}
