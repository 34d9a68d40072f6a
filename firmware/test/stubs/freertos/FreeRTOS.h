#pragma once
#include <stdint.h>
#include "sdkconfig.h"
typedef int BaseType_t;
typedef unsigned int UBaseType_t;
typedef uint32_t TickType_t;
typedef uint8_t StackType_t;
// Opaque; as large as they are about on the ESP32, see README.md.
typedef struct {
    uint32_t opaque[88];
} StaticTask_t;
typedef struct {
    uint32_t opaque[22];
} StaticSemaphore_t;
#define pdTRUE ((BaseType_t)1)
#define pdFALSE ((BaseType_t)0)
#define portMAX_DELAY ((TickType_t)0xffffffff)
#define pdMS_TO_TICKS(ms) ((TickType_t)((uint64_t)(ms) * CONFIG_FREERTOS_HZ / 1000))
