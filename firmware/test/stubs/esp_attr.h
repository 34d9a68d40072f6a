#pragma once
#define IRAM_ATTR
// A section of its own here too, so that tests can do to it what a power-on does.
#define RTC_NOINIT_ATTR __attribute__((section("rtc_noinit")))
