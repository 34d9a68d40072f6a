#pragma once
// The level is an enumeration of ESP-IDF's; the macros are given a tag, a format and its arguments.
typedef enum { ESP_LOG_NONE, ESP_LOG_ERROR, ESP_LOG_WARN, ESP_LOG_INFO } esp_log_level_t;
void esp_log_level_set(const char *tag, esp_log_level_t level);
__attribute__((format(printf, 3, 4))) void stub_log(esp_log_level_t level, const char *tag, const char *format, ...);
#define ESP_LOGE(tag, ...) stub_log(ESP_LOG_ERROR, tag, __VA_ARGS__)
#define ESP_LOGW(tag, ...) stub_log(ESP_LOG_WARN, tag, __VA_ARGS__)
#define ESP_LOGI(tag, ...) stub_log(ESP_LOG_INFO, tag, __VA_ARGS__)
