// What the pictures in golden/ show. A picture is text that C can include: 64 strings of 128 characters, # a lit pixel.
#pragma once

#include "display.h"

struct scene {
    const char *name;
    const char *golden;
    struct display_view view;
    int screen;
};

// A board of six: one idle, one that draws nothing, one that is wired the wrong way round, one saturated, one away.
#define CLUSTER \
    { \
        {.number = 1, .name = "coral", .measured = true, .power_uw = 2815400, .voltage_uv = 5102000, .current_ua = 551800, .energy_uj = 1234567890}, \
        {.number = 2, .name = "pynq-z1", .measured = true, .power_uw = -1900, .voltage_uv = 5112000, .current_ua = -370, .energy_uj = -52000}, \
        {.number = 3, .name = "odroid-xu4-a", .measured = true, .saturated = true, .power_uw = 8201700, .voltage_uv = 5008000, .current_ua = 1637700, \
         .energy_uj = 9876543210987}, \
        {.number = 4, .name = "odroid-xu4-b", .measured = false, .energy_uj = 44444444444}, \
        {.number = 5, .name = "raspberrypi", .measured = true, .power_uw = 3217600, .voltage_uv = 5080000, .current_ua = 633400, .energy_uj = 36004000}, \
        {.number = 6, .name = "jetson-nano", .measured = true, .power_uw = 12345600, .voltage_uv = 5016000, .current_ua = 2461200, .energy_uj = 2500000000}, \
    }

#define EXTREME(number_, name_, value) \
    {.number = number_, .name = name_, .measured = true, .saturated = true, .power_uw = value, .voltage_uv = value, .current_ua = value, .energy_uj = value}

static const struct scene scenes[] = {
    {"channel", (
#include "golden/channel.txt"
     ), {.channels = 6, .channel = CLUSTER, .network = DISPLAY_ONLINE}, 4},
    {"channel-negative", (
#include "golden/channel-negative.txt"
     ), {.channels = 6, .channel = CLUSTER, .network = DISPLAY_CONNECTING}, 1},
    {"channel-saturated", (
#include "golden/channel-saturated.txt"
     ), {.channels = 6, .channel = CLUSTER, .network = DISPLAY_OBSERVED}, 2},
    {"channel-no-sensor", (
#include "golden/channel-no-sensor.txt"
     ), {.channels = 6, .channel = CLUSTER, .network = DISPLAY_OFFLINE}, 3},
    {"channel-large", (
#include "golden/channel-large.txt"
     ), {.channels = 12, .network = DISPLAY_OBSERVED,
         .channel = {[11] = {.number = 12, .name = "r\xc3\xa4um 3/\xe6\x9c\xba rack power supply", .measured = true, .power_uw = 98765432100, .voltage_uv = 23904000,
                             .current_ua = 41317800, .energy_uj = 9999999999999999}}}, 11},
    {"channel-most", (
#include "golden/channel-most.txt"
     ), {.channels = 1, .channel = {EXTREME(255, "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM", INT64_MAX)}, .network = DISPLAY_OBSERVED}, 0},
    {"channel-least", (
#include "golden/channel-least.txt"
     ), {.channels = 1, .channel = {EXTREME(0, "", INT64_MIN)}, .network = DISPLAY_OBSERVED}, 0},
    {"sum", (
#include "golden/sum.txt"
     ), {.channels = 6, .channel = CLUSTER, .network = DISPLAY_OBSERVED, .address = "192.168.178.123", .clock_known = true, .hour = 9, .minute = 41}, 6},
    {"sum-address-6", (
#include "golden/sum-address-6.txt"
     ), {.channels = 6, .channel = CLUSTER, .network = DISPLAY_ONLINE, .address = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", .clock_known = true, .hour = 23, .minute = 59}, 6},
    {"sum-connecting", (
#include "golden/sum-connecting.txt"
     ), {.channels = 1, .channel = CLUSTER, .network = DISPLAY_CONNECTING}, 1},
    {"sum-no-sensor", (
#include "golden/sum-no-sensor.txt"
     ), {.channels = 2, .channel = {{.number = 1, .energy_uj = 3600000}, {.number = 2}}, .network = DISPLAY_ONLINE, .address = "fe80::1234:56ff:fe78:9abc"}, 2},
    {"sum-nothing", (
#include "golden/sum-nothing.txt"
     ), {.channels = 0, .network = DISPLAY_OFFLINE}, 0},
    {"message", (
#include "golden/message.txt"
     ), {.channels = 6, .channel = CLUSTER, .message = "no key yet: key new"}, 0},
    {"message-key", (
#include "golden/message-key.txt"
     ), {.message = "write down the key\nq0OIl1B8rTz5S2Zvu7WgG6Nn9MmWw4Aa"}, 0},
    {"message-words", (
#include "golden/message-words.txt"
     ), {.message = "No Wi-Fi yet. On the serial console: wifi SSID PASSPHRASE, save"}, 0},
    {"font-1", (
#include "golden/font-1.txt"
     ), {.message = "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^"}, 0},
    {"font-2", (
#include "golden/font-2.txt"
     ), {.message = "_`abcdefghijklmnopqrstuvwxyz{|}~ \xc2\xb5 \xce\xa9 \xce\xa3 \xe2\x80\xa6 \xe6\x9c\xba \xc3\x84\xc3\xb6\xc3\x9f\xc3\xa9"}, 0},
};

#define SCENES (sizeof scenes / sizeof *scenes)
