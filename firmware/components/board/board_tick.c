#include "board.h"

#include "esp_attr.h"
#include "esp_log.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"

#define SPIN_US 1500 // a tick of FreeRTOS, and half of one

uint64_t board_now_us(void *context) {
    (void)context;
    return (uint64_t)esp_timer_get_time();
}

// In the timer's interrupt, on core 1 (sdkconfig.defaults), so that no task of the other core stands between the tick and the sweep. In IRAM,
// since ESP-IDF calls it while the flash is being written as well. The woken task cannot run until that is over: it finds itself late, and
// the time is unmeasured.
static void IRAM_ATTR tick(void *argument) {
    struct board_tick *t = argument;
    BaseType_t woken = pdFALSE;
    vTaskNotifyGiveFromISR((TaskHandle_t)t->task, &woken);
    if (woken == pdTRUE) {
        esp_timer_isr_dispatch_need_yield();
    }
}

bool board_tick_start(struct board_tick *t, uint32_t period_us) {
    *t = (struct board_tick){.task = xTaskGetCurrentTaskHandle()};
    const esp_timer_create_args_t arguments = {
        .callback = tick,
        .arg = t,
        .dispatch_method = ESP_TIMER_ISR,
        .name = "sweep",
        .skip_unhandled_events = true,
    };
    esp_timer_handle_t timer;
    esp_err_t err = esp_timer_create(&arguments, &timer);
    if (err == ESP_OK) {
        t->timer = timer;
        // The timer counts from when it is started. So that is done on the grid, and never before it: alarms are late by the few us it takes.
        uint64_t now = board_now_us(NULL), grid = (now / period_us + 1) * period_us;
        while (grid - now > SPIN_US) {
            vTaskDelay(1);
            now = board_now_us(NULL);
            grid = (now / period_us + 1) * period_us;
        }
        while (board_now_us(NULL) < grid) {
        }
        err = esp_timer_start_periodic(timer, period_us);
    }
    if (err != ESP_OK) {
        ESP_LOGE("board", "tick of %u us: %s", (unsigned)period_us, esp_err_to_name(err));
    }
    return err == ESP_OK;
}

void board_tick_wait(uint64_t until_us) {
    // A notification may be of an alarm that came while the sweep before still ran. If there is none, the wait ends by itself a little later.
    for (uint64_t now; (now = board_now_us(NULL)) < until_us;) {
        ulTaskNotifyTake(pdTRUE, pdMS_TO_TICKS((until_us - now) / 1000 + 2));
    }
}
