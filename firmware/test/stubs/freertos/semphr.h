#pragma once
#include "freertos/queue.h"
typedef QueueHandle_t SemaphoreHandle_t;
// Macros in FreeRTOS.
SemaphoreHandle_t xSemaphoreCreateMutexStatic(StaticSemaphore_t *pxMutexBuffer);
BaseType_t xSemaphoreTake(SemaphoreHandle_t xSemaphore, TickType_t xBlockTime);
BaseType_t xSemaphoreGive(SemaphoreHandle_t xSemaphore);
