// signatures.h as assertions: that functions and fields are declared as the list says. Nothing of it is code.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "freertos/FreeRTOS.h"
#include "freertos/queue.h"
#include "freertos/semphr.h"
#include "freertos/task.h"

#if __has_include("esp_idf_version.h")
#include "esp_idf_version.h"
#endif

#include "driver/i2c_master.h"
#include "driver/uart.h"
#include "esp_app_desc.h"
#include "esp_err.h"
#include "esp_event.h"
#include "esp_heap_caps.h"
#include "esp_lcd_panel_io.h"
#include "esp_lcd_panel_ops.h"
#include "esp_lcd_panel_ssd1306.h"
#include "esp_log.h"
#include "esp_mac.h"
#include "esp_netif.h"
#include "esp_netif_sntp.h"
#include "esp_ota_ops.h"
#include "esp_random.h"
#include "esp_system.h"
#include "esp_task_wdt.h"
#include "esp_timer.h"
#include "esp_wifi.h"
#include "mdns.h"
#include "nvs.h"
#include "nvs_flash.h"

#define FUNCTION(name, result, arguments) \
    _Static_assert(__builtin_types_compatible_p(__typeof__(name), __typeof__(result arguments)), #name " is declared otherwise");
#define FIELD(type, field, of) _Static_assert(__builtin_types_compatible_p(__typeof__(((type *)0)->field), of), #type "." #field " is declared otherwise");
#define MACRO(name)
#include "signatures.h"
