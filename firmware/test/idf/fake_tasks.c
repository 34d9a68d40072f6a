// The functions that wait. Waiting lets virtual time pass; beyond idf.end_us it ends the run.
#include <setjmp.h>
#include <string.h>

#include "driver/uart.h"
#include "esp_system.h"
#include "fake_idf.h"
#include "freertos/semphr.h"

void fake_idf_run(TaskFunction_t body, void *argument, int64_t until_us) {
    idf.end_us = until_us;
    if (setjmp(idf.end) == 0) {
        body(argument);
    }
    idf.end_us = INT64_MAX;
}

static void pass(int64_t until_us) {
    if (until_us > idf.end_us) {
        longjmp(idf.end, 1);
    }
    if (until_us > idf.now_us) {
        idf.now_us = until_us;
    }
    fake_idf_timers();
}

void vTaskDelay(const TickType_t xTicksToDelay) {
    pass(idf.now_us + (int64_t)xTicksToDelay * 1000);
}

void vTaskDelete(TaskHandle_t xTaskToDelete) {
    (void)xTaskToDelete;
    longjmp(idf.end, 1);
}

void esp_restart(void) {
    idf.restarted = true;
    longjmp(idf.end, 1);
}

uint32_t ulTaskNotifyTake(BaseType_t xClearCountOnExit, TickType_t xTicksToWait) {
    (void)xClearCountOnExit;
    fake_idf_timers();
    if (idf.gives == 0) {
        int64_t give_up = xTicksToWait == portMAX_DELAY ? INT64_MAX : idf.now_us + (int64_t)xTicksToWait * 1000, alarm = fake_idf_alarm();
        pass(alarm < give_up ? alarm : give_up);
    }
    uint32_t gives = idf.gives;
    idf.gives = 0;
    return gives;
}

void vTaskNotifyGiveFromISR(TaskHandle_t xTaskToNotify, BaseType_t *pxHigherPriorityTaskWoken) {
    (void)xTaskToNotify;
    idf.gives++;
    *pxHigherPriorityTaskWoken = pdTRUE;
}

BaseType_t xTaskNotify(TaskHandle_t xTaskToNotify, uint32_t ulValue, eNotifyAction eAction) {
    (void)xTaskToNotify, (void)eAction;
    idf.notified |= ulValue;
    idf.notifies++;
    return pdTRUE;
}

BaseType_t xTaskNotifyWait(uint32_t ulBitsToClearOnEntry, uint32_t ulBitsToClearOnExit, uint32_t *pulNotificationValue, TickType_t xTicksToWait) {
    (void)ulBitsToClearOnEntry, (void)ulBitsToClearOnExit;
    int64_t until = idf.now_us + (int64_t)xTicksToWait * 1000;
    if (idf.request_next < idf.requests && idf.request[idf.request_next].at_us <= until) {
        pass(idf.request[idf.request_next].at_us);
        *pulNotificationValue = idf.request[idf.request_next++].bits;
        return pdTRUE;
    }
    pass(until);
    return pdFALSE;
}

TaskHandle_t xTaskGetCurrentTaskHandle(void) {
    return NULL;
}

UBaseType_t uxTaskGetStackHighWaterMark(TaskHandle_t xTask) {
    (void)xTask;
    return 1000;
}

TaskHandle_t xTaskCreateStaticPinnedToCore(TaskFunction_t pxTaskCode, const char *const pcName, const uint32_t ulStackDepth, void *const pvParameters,
                                           UBaseType_t uxPriority, StackType_t *const pxStackBuffer, StaticTask_t *const pxTaskBuffer,
                                           const BaseType_t xCoreID) {
    (void)pxStackBuffer;
    idf.task[idf.tasks++] = (struct fake_task){
        .name = pcName, .body = pxTaskCode, .argument = pvParameters, .stack = ulStackDepth, .priority = uxPriority, .core = xCoreID,
    };
    return (TaskHandle_t)pxTaskBuffer;
}

int uart_read_bytes(uart_port_t uart_num, void *buf, uint32_t length, uint32_t ticks_to_wait) {
    (void)uart_num;
    size_t n = idf.typed != NULL ? strlen(idf.typed) : 0;
    if (n == 0) {
        pass(idf.now_us + (int64_t)ticks_to_wait * 1000);
        return 0;
    }
    n = n < length ? n : length;
    memcpy(buf, idf.typed, n);
    idf.typed += n;
    return (int)n;
}
