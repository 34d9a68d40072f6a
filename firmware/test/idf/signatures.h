// Every function of ESP-IDF that the firmware calls, with its signature, and every field it sets or reads. signatures.c compiles this list as
// assertions, against stubs/ in every test run and against ESP-IDF's headers by check-idf, which also makes the table of ../../README.md of it.
// A line "// header.h, component" is where the ones after it are declared. MACRO names what is a macro or an inline function there and is only
// checked by compiling the firmware's sources.

// driver/i2c_master.h, esp_driver_i2c
FUNCTION(i2c_new_master_bus, esp_err_t, (const i2c_master_bus_config_t *, i2c_master_bus_handle_t *))
FUNCTION(i2c_master_bus_add_device, esp_err_t, (i2c_master_bus_handle_t, const i2c_device_config_t *, i2c_master_dev_handle_t *))
FUNCTION(i2c_master_transmit, esp_err_t, (i2c_master_dev_handle_t, const uint8_t *, size_t, int))
FUNCTION(i2c_master_transmit_receive, esp_err_t, (i2c_master_dev_handle_t, const uint8_t *, size_t, uint8_t *, size_t, int))
FUNCTION(i2c_master_bus_reset, esp_err_t, (i2c_master_bus_handle_t))
FIELD(i2c_master_bus_config_t, i2c_port, i2c_port_num_t)
FIELD(i2c_master_bus_config_t, sda_io_num, gpio_num_t)
FIELD(i2c_master_bus_config_t, scl_io_num, gpio_num_t)
FIELD(i2c_master_bus_config_t, clk_source, i2c_clock_source_t)
FIELD(i2c_master_bus_config_t, glitch_ignore_cnt, uint8_t)
FIELD(i2c_device_config_t, dev_addr_length, i2c_addr_bit_len_t)
FIELD(i2c_device_config_t, device_address, uint16_t)
FIELD(i2c_device_config_t, scl_speed_hz, uint32_t)

// esp_lcd_io_i2c.h, esp_lcd
#ifdef esp_lcd_new_panel_io_i2c // ESP-IDF 5.5 chooses by the type of bus
FUNCTION(esp_lcd_new_panel_io_i2c_v2, esp_err_t, (i2c_master_bus_handle_t, const esp_lcd_panel_io_i2c_config_t *, esp_lcd_panel_io_handle_t *))
#else
FUNCTION(esp_lcd_new_panel_io_i2c, esp_err_t, (i2c_master_bus_handle_t, const esp_lcd_panel_io_i2c_config_t *, esp_lcd_panel_io_handle_t *))
#endif
FIELD(esp_lcd_panel_io_i2c_config_t, dev_addr, uint32_t)
FIELD(esp_lcd_panel_io_i2c_config_t, scl_speed_hz, uint32_t)
FIELD(esp_lcd_panel_io_i2c_config_t, control_phase_bytes, size_t)
FIELD(esp_lcd_panel_io_i2c_config_t, lcd_cmd_bits, int)
FIELD(esp_lcd_panel_io_i2c_config_t, lcd_param_bits, int)

// esp_lcd_panel_ssd1306.h, esp_lcd
FUNCTION(esp_lcd_new_panel_ssd1306, esp_err_t, (const esp_lcd_panel_io_handle_t, const esp_lcd_panel_dev_config_t *, esp_lcd_panel_handle_t *))

// esp_lcd_panel_ops.h, esp_lcd
FUNCTION(esp_lcd_panel_reset, esp_err_t, (esp_lcd_panel_handle_t))
FUNCTION(esp_lcd_panel_init, esp_err_t, (esp_lcd_panel_handle_t))
FUNCTION(esp_lcd_panel_draw_bitmap, esp_err_t, (esp_lcd_panel_handle_t, int, int, int, int, const void *))
FUNCTION(esp_lcd_panel_mirror, esp_err_t, (esp_lcd_panel_handle_t, bool, bool))
FUNCTION(esp_lcd_panel_disp_on_off, esp_err_t, (esp_lcd_panel_handle_t, bool))

// driver/uart.h, esp_driver_uart
FUNCTION(uart_driver_install, esp_err_t, (uart_port_t, int, int, int, QueueHandle_t *, int))
FUNCTION(uart_read_bytes, int, (uart_port_t, void *, uint32_t, uint32_t))

// esp_timer.h, esp_timer
FUNCTION(esp_timer_create, esp_err_t, (const esp_timer_create_args_t *, esp_timer_handle_t *))
FUNCTION(esp_timer_start_once, esp_err_t, (esp_timer_handle_t, uint64_t))
FUNCTION(esp_timer_start_periodic, esp_err_t, (esp_timer_handle_t, uint64_t))
FUNCTION(esp_timer_stop, esp_err_t, (esp_timer_handle_t))
FUNCTION(esp_timer_get_time, int64_t, (void))
FUNCTION(esp_timer_isr_dispatch_need_yield, void, (void))
FIELD(esp_timer_create_args_t, callback, esp_timer_cb_t)
FIELD(esp_timer_create_args_t, arg, void *)
FIELD(esp_timer_create_args_t, dispatch_method, esp_timer_dispatch_t)
FIELD(esp_timer_create_args_t, name, const char *)
FIELD(esp_timer_create_args_t, skip_unhandled_events, bool)

// nvs_flash.h, nvs_flash
FUNCTION(nvs_flash_init, esp_err_t, (void))
FUNCTION(nvs_flash_init_partition, esp_err_t, (const char *))
FUNCTION(nvs_flash_erase, esp_err_t, (void))
FUNCTION(nvs_flash_erase_partition, esp_err_t, (const char *))

// nvs.h, nvs_flash
FUNCTION(nvs_open_from_partition, esp_err_t, (const char *, const char *, nvs_open_mode_t, nvs_handle_t *))
FUNCTION(nvs_get_blob, esp_err_t, (nvs_handle_t, const char *, void *, size_t *))
FUNCTION(nvs_set_blob, esp_err_t, (nvs_handle_t, const char *, const void *, size_t))
FUNCTION(nvs_commit, esp_err_t, (nvs_handle_t))
FUNCTION(nvs_close, void, (nvs_handle_t))

// esp_ota_ops.h, app_update
FUNCTION(esp_ota_get_running_partition, const esp_partition_t *, (void))
FUNCTION(esp_ota_get_state_partition, esp_err_t, (const esp_partition_t *, esp_ota_img_states_t *))
FUNCTION(esp_ota_mark_app_valid_cancel_rollback, esp_err_t, (void))

// esp_app_desc.h, esp_app_format
FUNCTION(esp_app_get_description, const esp_app_desc_t *, (void))

// esp_system.h, esp_system
FUNCTION(esp_reset_reason, esp_reset_reason_t, (void))
MACRO(esp_restart)
FUNCTION(esp_get_free_heap_size, uint32_t, (void))
FUNCTION(esp_get_minimum_free_heap_size, uint32_t, (void))

// esp_task_wdt.h, esp_system
FUNCTION(esp_task_wdt_add, esp_err_t, (TaskHandle_t))
FUNCTION(esp_task_wdt_reset, esp_err_t, (void))

// esp_mac.h, esp_hw_support
FUNCTION(esp_efuse_mac_get_default, esp_err_t, (uint8_t *))

// esp_random.h, esp_hw_support
FUNCTION(esp_random, uint32_t, (void))
FUNCTION(esp_fill_random, void, (void *, size_t))

// esp_heap_caps.h, heap
FUNCTION(heap_caps_malloc, void *, (size_t, uint32_t))

// esp_err.h, esp_common
FUNCTION(esp_err_to_name, const char *, (esp_err_t))

// esp_log.h, log
FUNCTION(esp_log_level_set, void, (const char *, esp_log_level_t))
MACRO(ESP_LOGE)
MACRO(ESP_LOGW)
MACRO(ESP_LOGI)

// esp_event.h, esp_event
FUNCTION(esp_event_loop_create_default, esp_err_t, (void))
FUNCTION(esp_event_handler_instance_register, esp_err_t, (esp_event_base_t, int32_t, esp_event_handler_t, void *, esp_event_handler_instance_t *))
FUNCTION(esp_event_post, esp_err_t, (esp_event_base_t, int32_t, const void *, size_t, TickType_t))

// esp_netif.h, esp_netif
FUNCTION(esp_netif_init, esp_err_t, (void))
FUNCTION(esp_netif_set_hostname, esp_err_t, (esp_netif_t *, const char *))
FUNCTION(esp_netif_create_ip6_linklocal, esp_err_t, (esp_netif_t *))
FUNCTION(esp_ip4addr_ntoa, char *, (const esp_ip4_addr_t *, char *, int))
FIELD(ip_event_got_ip_t, ip_info, esp_netif_ip_info_t)
FIELD(ip_event_got_ip6_t, ip6_info, esp_netif_ip6_info_t)

// esp_netif_ip_addr.h, esp_netif
#if ESP_IDF_VERSION_MAJOR >= 6 // const since then
FUNCTION(esp_netif_ip6_get_addr_type, esp_ip6_addr_type_t, (const esp_ip6_addr_t *))
#else
FUNCTION(esp_netif_ip6_get_addr_type, esp_ip6_addr_type_t, (esp_ip6_addr_t *))
#endif
MACRO(IPV6STR)
MACRO(IPV62STR)

// esp_netif_sntp.h, esp_netif
FUNCTION(esp_netif_sntp_init, esp_err_t, (const esp_sntp_config_t *))
MACRO(ESP_NETIF_SNTP_DEFAULT_CONFIG)
FIELD(esp_sntp_config_t, wait_for_sync, bool)

// esp_wifi_default.h, esp_wifi
FUNCTION(esp_netif_create_default_wifi_sta, esp_netif_t *, (void))

// esp_wifi.h, esp_wifi
FUNCTION(esp_wifi_init, esp_err_t, (const wifi_init_config_t *))
MACRO(WIFI_INIT_CONFIG_DEFAULT)
FUNCTION(esp_wifi_set_storage, esp_err_t, (wifi_storage_t))
FUNCTION(esp_wifi_set_mode, esp_err_t, (wifi_mode_t))
FUNCTION(esp_wifi_set_config, esp_err_t, (wifi_interface_t, wifi_config_t *))
FUNCTION(esp_wifi_set_ps, esp_err_t, (wifi_ps_type_t))
FUNCTION(esp_wifi_start, esp_err_t, (void))
FUNCTION(esp_wifi_connect, esp_err_t, (void))
FUNCTION(esp_wifi_disconnect, esp_err_t, (void))
FIELD(wifi_config_t, sta, wifi_sta_config_t)
FIELD(wifi_sta_config_t, ssid, uint8_t[32])
FIELD(wifi_sta_config_t, password, uint8_t[64])
FIELD(wifi_sta_config_t, scan_method, wifi_scan_method_t)
FIELD(wifi_sta_config_t, sort_method, wifi_sort_method_t)
FIELD(wifi_sta_config_t, threshold.authmode, wifi_auth_mode_t)
FIELD(wifi_sta_config_t, sae_pwe_h2e, wifi_sae_pwe_method_t)
FIELD(wifi_event_sta_disconnected_t, reason, uint8_t)

// mdns.h, espressif/mdns
FUNCTION(mdns_init, esp_err_t, (void))
FUNCTION(mdns_hostname_set, esp_err_t, (const char *))
FUNCTION(mdns_service_add, esp_err_t, (const char *, const char *, const char *, uint16_t, mdns_txt_item_t *, size_t))
FIELD(mdns_txt_item_t, key, const char *)
FIELD(mdns_txt_item_t, value, const char *)

// freertos/task.h, freertos
FUNCTION(xTaskCreateStaticPinnedToCore, TaskHandle_t, (TaskFunction_t, const char *, uint32_t, void *, UBaseType_t, StackType_t *, StaticTask_t *, BaseType_t))
FUNCTION(vTaskDelete, void, (TaskHandle_t))
FUNCTION(vTaskDelay, void, (TickType_t))
FUNCTION(xTaskGetCurrentTaskHandle, TaskHandle_t, (void))
FUNCTION(uxTaskGetStackHighWaterMark, UBaseType_t, (TaskHandle_t))
MACRO(ulTaskNotifyTake)
MACRO(vTaskNotifyGiveFromISR)
MACRO(xTaskNotify)
MACRO(xTaskNotifyWait)

// freertos/semphr.h, freertos
MACRO(xSemaphoreCreateMutexStatic)
MACRO(xSemaphoreTake)
MACRO(xSemaphoreGive)
