// What settings may be, whether they come from a line or from the flash. Of this component.
#pragma once

#include "settings.h"

#define SETTINGS_RATE_MIN 50
#define SETTINGS_RATE_MAX 1200
#define SETTINGS_INTERVAL_MIN 20
#define SETTINGS_INTERVAL_MAX 10000
#define SETTINGS_PASSPHRASE_MIN 8
#define SETTINGS_PASSPHRASE_MAX 63
// As metering has them.
#define SETTINGS_SHUNT_MIN 100
#define SETTINGS_SHUNT_MAX 10000000
#define SETTINGS_GAIN_MAX 500000
#define SETTINGS_OFFSET_MAX 100000000

// Whether n bytes are UTF-8 (RFC 3629) without control characters, those of Latin-1 among them.
bool settings_text(const char *text, size_t n);
// Whether n bytes are printable ASCII, blanks among them.
bool settings_ascii(const char *text, size_t n);
// Whether n bytes may be a key's identity: printable ASCII without blanks, quotes and backslashes.
bool settings_identity(const char *text, size_t n);
// Whether n bytes look like a host name or an address.
bool settings_host(const char *text, size_t n);
// The length of a text in an array of so many bytes; size if it has no end.
size_t settings_length(const char *text, size_t size);
// Whether all of it is as lines would have made it.
bool settings_valid(const struct settings *s);
