// Settings: each line and what it asks for, each mistake and what is said of it, the flash's records whole, cut, flipped and of another
// version.

#include "check.h"

#include "../../components/settings/valid.h"

static struct settings s;
static char error[200];

static enum settings_request line(const char *text) {
    return settings_line(&s, text, strlen(text), error, sizeof error);
}

// Two settings that pack to the same bytes are the same.
static bool same(const struct settings *a, const struct settings *b) {
    uint8_t x[SETTINGS_PACKED], y[SETTINGS_PACKED];
    size_t n = settings_pack(a, x, sizeof x), m = settings_pack(b, y, sizeof y);
    return n && n == m && memcmp(x, y, n) == 0;
}

// Says that a line is accepted and asks for something; error is empty then.
#define ASKS(text, request) (CHECK_EQ(line(text), request), CHECK_STR(error, ""))

// Says that a line is refused with a message, and that nothing changed.
static void refused(const char *text, const char *message, int at) {
    struct settings before;
    memcpy(&before, &s, sizeof s);
    check_eq_(line(text), SETTINGS_ERROR, __FILE__, at, text);
    check_strings(error, message, __FILE__, at, text);
    check_result(memcmp(&before, &s, sizeof s) == 0, __FILE__, at, "nothing changed");
}
#define REFUSED(text, message) refused(text, message, __LINE__)

static void test_defaults(void) {
    settings_default(&s);
    CHECK_STR(s.name, "wattlet");
    CHECK_STR(s.identity, "wattlet");
    CHECK_STR(s.ssid, "");
    CHECK_STR(s.passphrase, "");
    CHECK_STR(s.sntp, "pool.ntp.org");
    CHECK_EQ(s.key_length, 0);
    CHECK_EQ(s.rate, 500);
    CHECK_EQ(s.interval, 100);
    for (int i = 0; i < SETTINGS_CHANNELS; i++) {
        CHECK_STR(s.channel[i].name, "");
        CHECK_EQ(s.channel[i].calibration.shunt_uohm, 100000);
        CHECK_EQ(s.channel[i].calibration.gain_ppm, 0);
        CHECK_EQ(s.channel[i].calibration.offset_nv, 0);
    }
}

static void test_lines(void) {
    settings_default(&s);
    ASKS("name bench-1", SETTINGS_CHANGED);
    CHECK_STR(s.name, "bench-1");
    ASKS("name \"W\xc3\xa4rmebank 2\"", SETTINGS_CHANGED);
    CHECK_STR(s.name, "W\xc3\xa4rmebank 2");
    ASKS("  name\t bench-1 \t \r\n", SETTINGS_CHANGED);
    CHECK_STR(s.name, "bench-1");
    ASKS("wifi home eight888", SETTINGS_CHANGED);
    CHECK_STR(s.ssid, "home");
    CHECK_STR(s.passphrase, "eight888");
    ASKS("wifi \"my wifi\" \"a \\\"quoted\\\" back\\\\slash\"", SETTINGS_CHANGED);
    CHECK_STR(s.ssid, "my wifi");
    CHECK_STR(s.passphrase, "a \"quoted\" back\\slash");
    ASKS("wifi C:\\net with\\backslash", SETTINGS_CHANGED); // outside quotes a backslash is one
    CHECK_STR(s.ssid, "C:\\net");
    CHECK_STR(s.passphrase, "with\\backslash");
    ASKS("wifi caf\xc3\xa9 \"\"", SETTINGS_CHANGED);
    CHECK_STR(s.ssid, "caf\xc3\xa9");
    CHECK_STR(s.passphrase, "");
    ASKS("wifi \"\" \"\"", SETTINGS_CHANGED);
    CHECK_STR(s.ssid, "");
    ASKS("identity agent_1@rack.2", SETTINGS_CHANGED);
    CHECK_STR(s.identity, "agent_1@rack.2");

    ASKS("key 000102030405060708090a0B0C0D0E0Fff", SETTINGS_CHANGED);
    static const uint8_t key[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255};
    CHECK_EQ(s.key_length, 17);
    CHECK_MEM(s.key, key, sizeof key);
    ASKS("psk set wattlet q0OIl1B8rTz5S2Zv", SETTINGS_CHANGED);
    CHECK_STR(s.identity, "wattlet");
    CHECK_EQ(s.key_length, 16);
    CHECK_MEM(s.key, "q0OIl1B8rTz5S2Zv\0", 17); // and nothing is left of the longer one
    ASKS("key new", SETTINGS_NEW_KEY);
    CHECK_EQ(s.key_length, 16);

    ASKS("sntp 192.168.1.1", SETTINGS_CHANGED);
    ASKS("sntp 2001:db8::123", SETTINGS_CHANGED);
    CHECK_STR(s.sntp, "2001:db8::123");
    ASKS("sntp \"\"", SETTINGS_CHANGED);
    CHECK_STR(s.sntp, "");
    ASKS("rate 50", SETTINGS_CHANGED);
    CHECK_EQ(s.rate, 50);
    ASKS("rate 1200", SETTINGS_CHANGED);
    CHECK_EQ(s.rate, 1200);
    ASKS("interval 20", SETTINGS_CHANGED);
    CHECK_EQ(s.interval, 20);
    ASKS("interval 10000", SETTINGS_CHANGED);
    CHECK_EQ(s.interval, 10000);

    ASKS("channel 5 name raspberrypi", SETTINGS_CHANGED);
    CHECK_STR(s.channel[4].name, "raspberrypi");
    ASKS("channel 5 shunt 50000", SETTINGS_CHANGED);
    CHECK_EQ(s.channel[4].calibration.shunt_uohm, 50000);
    ASKS("channel 5 gain -1200", SETTINGS_CHANGED);
    CHECK_EQ(s.channel[4].calibration.gain_ppm, -1200);
    ASKS("channel 5 gain +1200", SETTINGS_CHANGED);
    CHECK_EQ(s.channel[4].calibration.gain_ppm, 1200);
    ASKS("channel 5 offset 8000", SETTINGS_CHANGED);
    CHECK_EQ(s.channel[4].calibration.offset_nv, 8000);
    ASKS("channel 5 name \"\"", SETTINGS_CHANGED);
    CHECK_STR(s.channel[4].name, "");
    CHECK_EQ(s.channel[3].calibration.shunt_uohm, 100000);

    ASKS("show", SETTINGS_SHOW);
    ASKS("show secrets", SETTINGS_SHOW_SECRETS);
    ASKS("save", SETTINGS_SAVE);
    ASKS("reset totals", SETTINGS_RESET_TOTALS);
    ASKS("reboot", SETTINGS_REBOOT);
    ASKS("help", SETTINGS_HELP);
    ASKS("", SETTINGS_NOTHING);
    ASKS("\r\n", SETTINGS_NOTHING);
    ASKS("   \t", SETTINGS_NOTHING);
    ASKS("# a remark with \"", SETTINGS_NOTHING);
    ASKS("  #", SETTINGS_NOTHING);
    ASKS("\"save\"", SETTINGS_SAVE);
}

static void test_mistakes(void) {
    settings_default(&s);
    line("psk set wattlet 0123456789abcdefghij");
    line("wifi home eight888");

    REFUSED("naem bench-1", "there is no command \"naem\"; help lists them");
    REFUSED("NAME bench-1", "there is no command \"NAME\"; help lists them");
    REFUSED("\"\"", "there is no command \"\"; help lists them");
    REFUSED("q0OIl1B8rTz5S2Zvu7WgG6Nn9MmWw4Aa", "there is no such command; help lists them"); // a key, it may be
    REFUSED("name", "name: write name NAME, in quotes if it has blanks");
    REFUSED("name my meter", "name: write name NAME, in quotes if it has blanks");
    REFUSED("name \"\"", "name is empty: write 1 to 31 bytes, as bench-1");
    REFUSED("name abcdefghijklmnopqrstuvwxyz123456", "name has 32 bytes: write at most 31; letters beyond ASCII have two and more");
    REFUSED("name \xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4",
            "name has 32 bytes: write at most 31; letters beyond ASCII have two and more");

    REFUSED("wifi home", "wifi: write wifi SSID PASSPHRASE, in quotes what has blanks; \"\" as passphrase for an open network");
    REFUSED("wifi my wifi eight888", "wifi: write wifi SSID PASSPHRASE, in quotes what has blanks; \"\" as passphrase for an open network");
    REFUSED("wifi home seven77", "wifi: the passphrase has 7 characters: write 8 to 63, or \"\" for an open network");
    REFUSED("wifi home 0123456789012345678901234567890123456789012345678901234567890123",
            "wifi: the passphrase has 64 characters: write 8 to 63, or \"\" for an open network");
    REFUSED("wifi home p\xc3\xa4sswords", "wifi: a passphrase has ASCII characters only (IEEE 802.11): change it at the access point");
    REFUSED("wifi \"\" eight888", "wifi: the SSID is empty: write wifi SSID PASSPHRASE, or wifi \"\" \"\" for no Wi-Fi");
    REFUSED("wifi 012345678901234567890123456789012 eight888", "wifi: the SSID has 33 bytes; an SSID has at most 32");
    ASKS("wifi 01234567890123456789012345678901 012345678901234567890123456789012345678901234567890123456789012", SETTINGS_CHANGED);
    CHECK_EQ(strlen(s.ssid), 32);
    CHECK_EQ(strlen(s.passphrase), 63);

    REFUSED("identity \"my agent\"", "identity: write letters, digits, dot, dash and underscore, as wattlet");
    REFUSED("identity \"\"", "identity: write letters, digits, dot, dash and underscore, as wattlet");
    REFUSED("identity agent\xc3\xa4", "identity: write letters, digits, dot, dash and underscore, as wattlet");
    REFUSED("identity 0123456789012345678901234567890123456789012345678901234567890123", "identity has 64 characters: write at most 63");

    REFUSED("key", "key: write key new, or key HEX");
    REFUSED("key 00112233445566778899aabbccddeefg",
            "key: character 32 is not hexadecimal: write key HEX, key new, or psk set IDENTITY KEY for a key of letters");
    REFUSED("key 00112233445566778899aabbccddee", "key has 30 hexadecimal digits: write two for each byte, 32 to 128 in all");
    REFUSED("key 00112233445566778899aabbccddeeff0", "key has 33 hexadecimal digits: write two for each byte, 32 to 128 in all");
    char long_key[4 + 130 + 1] = "key ";
    memset(long_key + 4, 'a', 130);
    REFUSED(long_key, "key has 130 hexadecimal digits: write two for each byte, 32 to 128 in all");
    long_key[4 + 128] = 0;
    ASKS(long_key, SETTINGS_CHANGED);
    CHECK_EQ(s.key_length, 64);
    REFUSED("psk wattlet 0123456789abcdefghij", "psk: write psk set IDENTITY KEY, as wattctl meter provision prints it");
    REFUSED("psk get wattlet 0123456789abcdefghij", "psk: write psk set IDENTITY KEY, as wattctl meter provision prints it");
    REFUSED("psk set wattlet 0123456789abcde", "psk: the key has 15 bytes: write 16 to 64");
    REFUSED("psk set \"a b\" 0123456789abcdefghij", "identity: write letters, digits, dot, dash and underscore, as wattlet");
    REFUSED("psk set wattlet 01234567890123456789012345678901234567890123456789012345678901234", "psk: the key has 65 bytes: write 16 to 64");

    REFUSED("sntp pool_ntp", "sntp \"pool_ntp\": write a host name or an address, as pool.ntp.org, or \"\" for none");
    REFUSED("sntp a b", "sntp: write sntp HOST, or sntp \"\" for none");
    REFUSED("sntp 0123456789012345678901234567890123456789012345678901234567890123", "sntp: the host has 64 characters: write at most 63");
    REFUSED("rate 49", "rate \"49\": write sweeps per second, 50 to 1200, as 500");
    REFUSED("rate 1201", "rate \"1201\": write sweeps per second, 50 to 1200, as 500");
    REFUSED("rate 500Hz", "rate \"500Hz\": write sweeps per second, 50 to 1200, as 500");
    REFUSED("rate \"\"", "rate \"\": write sweeps per second, 50 to 1200, as 500");
    REFUSED("rate -", "rate \"-\": write sweeps per second, 50 to 1200, as 500");
    REFUSED("rate 4294967796", "rate \"4294967796\": write sweeps per second, 50 to 1200, as 500");
    REFUSED("rate 18446744073709552116", "rate \"18446744073709552116\": write sweeps per second, 50 to 1200, as 500");
    REFUSED("interval 19", "interval \"19\": write milliseconds, 20 to 10000, as 100");
    REFUSED("interval 10001", "interval \"10001\": write milliseconds, 20 to 10000, as 100");
    REFUSED("interval 0.1", "interval \"0.1\": write milliseconds, 20 to 10000, as 100");

    REFUSED("channel 7 name x", "channel \"7\": there are channels 1 to 6");
    REFUSED("channel 0 name x", "channel \"0\": there are channels 1 to 6");
    REFUSED("channel -1 name x", "channel \"-1\": there are channels 1 to 6");
    REFUSED("channel five name x", "channel \"five\": there are channels 1 to 6");
    REFUSED("channel 5", "channel: write channel NUMBER name NAME, or shunt UOHM, gain PPM, offset NV; in quotes what has blanks");
    REFUSED("channel 5 resistor 1", "channel 5 \"resistor\": a channel has name, shunt, gain and offset");
    REFUSED("channel 5 shunt 99", "shunt \"99\": write microohms, 100 to 10000000, as 50000 for 0.05 ohms");
    REFUSED("channel 5 shunt 10000001", "shunt \"10000001\": write microohms, 100 to 10000000, as 50000 for 0.05 ohms");
    REFUSED("channel 5 shunt 0.05", "shunt \"0.05\": write microohms, 100 to 10000000, as 50000 for 0.05 ohms");
    REFUSED("channel 5 gain 500001", "gain \"500001\": write millionths (ppm), -500000 to 500000, as -1200 for 0.12 % less");
    REFUSED("channel 5 gain 1%", "gain \"1%\": write millionths (ppm), -500000 to 500000, as -1200 for 0.12 % less");
    REFUSED("channel 5 offset -100000001", "offset \"-100000001\": write nanovolts, -100000000 to 100000000, as 8000 for 8 microvolts");
    REFUSED("channel 5 name 01234567890123456789012345678901",
            "channel's name has 32 bytes: write at most 31; letters beyond ASCII have two and more");

    REFUSED("reset", "reset: write reset totals");
    REFUSED("reset all", "reset \"all\": write reset totals");
    REFUSED("show all", "show \"all\": write show, or show secrets for passphrase and key too");
    REFUSED("save now", "save: write save");
    REFUSED("reboot now", "reboot: write reboot");

    REFUSED("name \"bench", "a quote is not closed: write \" at the end too, or \\\" within quotes for a quote itself");
    REFUSED("name \"bench\\", "in quotes, a backslash stands before a quote or a backslash: write \\\\ for one backslash");
    REFUSED("name \"a\\n\"", "in quotes, a backslash stands before a quote or a backslash: write \\\\ for one backslash");
    REFUSED("name \"a\"b", "a quote within a word: put the whole word into quotes, with \\\" for the quote itself");
    REFUSED("name a\"b\"", "a quote within a word: put the whole word into quotes, with \\\" for the quote itself");
    REFUSED("name a\x01", "character 7 is a control character: write text only");
    REFUSED("name a\x7f", "character 7 is a control character: write text only");
    // Not UTF-8: Latin-1, cut, too long, half of a pair, beyond Unicode, a control character of Latin-1, a lone continuation.
    static const char *const bad[] = {"name \xe4", "name a\xc3", "name \xc0\xaf", "name \xe0\x80\xaf", "name \xf0\x80\x80\xaf", "name \xed\xa0\x80",
                                      "name \xf4\x90\x80\x80", "name \xf8\x88\x80\x80\x80", "name \xc2\x85", "name \x80", "name \xe2\x82", "name \xff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        REFUSED(bad[i], "this is not UTF-8: set the terminal to UTF-8, or write plain letters");
    }
    // The longest of each length.
    ASKS("name \xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf\xee\x80\x80\xed\x9f\xbf", SETTINGS_CHANGED);

    // A zero ends no line.
    CHECK_EQ(settings_line(&s, "save\0x", 6, error, sizeof error), SETTINGS_ERROR);
    CHECK_STR(error, "character 5 is a control character: write text only");
    // A line that has no end in memory ends where its length says.
    CHECK_EQ(settings_line(&s, "rate 5001", 8, error, sizeof error), SETTINGS_CHANGED);
    CHECK_EQ(s.rate, 500);

    char longest[SETTINGS_LINE + 3];
    memset(longest, ' ', sizeof longest);
    memcpy(longest, "rate 600", 8);
    longest[sizeof longest - 2] = '\r';
    longest[sizeof longest - 1] = '\n';
    CHECK_EQ(settings_line(&s, longest, SETTINGS_LINE, error, sizeof error), SETTINGS_CHANGED);
    CHECK_EQ(settings_line(&s, longest, SETTINGS_LINE + 1, error, sizeof error), SETTINGS_ERROR);
    CHECK_STR(error, "a line has at most 200 characters; this one has 201");
    memmove(longest + SETTINGS_LINE, "\r\n", 2);
    CHECK_EQ(settings_line(&s, longest, SETTINGS_LINE + 2, error, sizeof error), SETTINGS_CHANGED);
}

// Text that ends within a character, at the end of its memory.
static void test_cut_text(void) {
    const char two[] = {'a', '\xc3'}, three[] = {'\xe6', '\x9c'}, four[] = {'\xf0', '\x9f', '\x94'};
    CHECK(!settings_text(two, sizeof two));
    CHECK(!settings_text(three, sizeof three));
    CHECK(!settings_text(four, sizeof four));
    CHECK(settings_text(two, 1));
    CHECK(settings_text("", 0));
    CHECK_EQ(settings_length(two, sizeof two), 2);
}

// An error that does not fit is cut behind a character, and no room is none.
static void test_error_room(void) {
    settings_default(&s);
    for (size_t room = 0; room < 60; room++) {
        char small[64];
        memset(small, 'x', sizeof small);
        CHECK_EQ(settings_line(&s, "sn\xc3\xb6\xe6\x9c\xba" "e", 8, small, room), SETTINGS_ERROR);
        for (size_t i = room; i < sizeof small; i++) {
            CHECK_EQ(small[i], 'x');
        }
        static const char whole[] = "there is no command \"sn\xc3\xb6\xe6\x9c\xba" "e\"; help lists them";
        if (room) {
            size_t n = strlen(small);
            CHECK(memcmp(small, whole, n) == 0);
            CHECK(n == 0 || (whole[n] & 0xc0) != 0x80); // what is left out begins with a character
            CHECK(n + 4 > room || n == sizeof whole - 1);
        }
    }
    CHECK_EQ(settings_line(&s, "x", 1, NULL, 0), SETTINGS_ERROR);
}

// No error repeats a passphrase or a key, whatever is wrong with the line.
static void test_errors_keep_secrets(void) {
    settings_default(&s);
    static const char *const lines[] = {
        "wifi home SECRET7", "wifi SECRETSECRET", "wifi home is SECRETSECRET", "wifi \"\" SECRETSECRET", "wifi home \"SECRETSECRET", "wifi home SECRET\xc3\xa4SECRET",
        "wifi 012345678901234567890123456789012 SECRETSECRET", "key SECRETSECRETSECRET", "key new SECRETSECRETSECRET", "psk set wattlet SECRET", "psk wattlet SECRETSECRET",
        "psk set \"SECRET SECRETSECRET\" wattlet", "psk set wattlet key SECRETSECRET", "identity \"SECRET SECRET\"", "SECRETSECRETSECRET", "\"SECRET SECRETSECRET\" SECRET",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        CHECK_EQ(line(lines[i]), SETTINGS_ERROR);
        CHECK(strstr(error, "SECRET") == NULL);
    }
}

static void test_show(void) {
    char out[SETTINGS_SHOWN];
    settings_default(&s);
    line("name \"bench 1\"");
    line("channel 2 name pynq");
    line("channel 2 gain -3");
    size_t n = settings_show(&s, false, out, sizeof out);
    CHECK_EQ(n, strlen(out));
    CHECK_STR(out, "name \"bench 1\"\nwifi \"\" \"\"\nidentity wattlet\n# no key yet: key new, or psk set IDENTITY KEY\nsntp pool.ntp.org\nrate 500\ninterval 100\n"
                   "channel 1 name \"\"\nchannel 1 shunt 100000\nchannel 1 gain 0\nchannel 1 offset 0\n"
                   "channel 2 name pynq\nchannel 2 shunt 100000\nchannel 2 gain -3\nchannel 2 offset 0\n"
                   "channel 3 name \"\"\nchannel 3 shunt 100000\nchannel 3 gain 0\nchannel 3 offset 0\n"
                   "channel 4 name \"\"\nchannel 4 shunt 100000\nchannel 4 gain 0\nchannel 4 offset 0\n"
                   "channel 5 name \"\"\nchannel 5 shunt 100000\nchannel 5 gain 0\nchannel 5 offset 0\n"
                   "channel 6 name \"\"\nchannel 6 shunt 100000\nchannel 6 gain 0\nchannel 6 offset 0\n");

    // Secrets are shown to those who ask.
    line("wifi \"my wifi\" PASSPHRASE");
    line("psk set wattlet KEYKEYKEYKEYKEYKEY");
    CHECK(settings_show(&s, false, out, sizeof out));
    CHECK(!strstr(out, "PASSPHRASE") && !strstr(out, "KEYKEY"));
    CHECK(strstr(out, "\n# wifi \"my wifi\", passphrase not shown: show secrets\n") != NULL);
    CHECK(strstr(out, "\n# key of 18 bytes, not shown: show secrets\n") != NULL);
    CHECK(settings_show(&s, true, out, sizeof out));
    CHECK(strstr(out, "\nwifi \"my wifi\" PASSPHRASE\n") != NULL);
    CHECK(strstr(out, "\npsk set wattlet KEYKEYKEYKEYKEYKEY\n") != NULL);
    line("key 00112233445566778899aabbccddeeff");
    CHECK(settings_show(&s, false, out, sizeof out));
    CHECK(!strstr(out, "00112233"));
    CHECK(settings_show(&s, true, out, sizeof out));
    CHECK(strstr(out, "\nkey 00112233445566778899aabbccddeeff\n") != NULL);
    line("wifi cafe \"\"");
    CHECK(settings_show(&s, false, out, sizeof out));
    CHECK(strstr(out, "\nwifi cafe \"\"\n") != NULL);

    // What does not fit is not shown in part.
    n = settings_show(&s, true, out, sizeof out);
    for (size_t size = 0; size <= n; size++) {
        memset(out, 'x', sizeof out);
        CHECK_EQ(settings_show(&s, true, out, size), 0);
        CHECK(size == 0 || out[0] == 0);
        CHECK_EQ(out[size], 'x');
    }
    CHECK_EQ(settings_show(&s, true, out, n + 1), n);
}

// Help has every command, and every command in it is one.
static void test_help(void) {
    static const char *const commands[] = {"name", "wifi", "psk", "identity", "key", "channel", "sntp", "rate", "interval", "show", "save", "reset", "reboot"};
    const char *help = settings_help();
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        size_t n = strlen(commands[i]);
        const char *at = help;
        while (at && !(strncmp(at, commands[i], n) == 0 && (at[n] == ' ' || at[n] == '\n'))) {
            at = strchr(at, '\n');
            at = at ? at + 1 : NULL;
        }
        CHECK(at != NULL);
        settings_default(&s);
        line(commands[i]);
        CHECK(strstr(error, "there is no") == NULL);
    }
}

// ---- random settings

static uint64_t state = 0x853c49e6748fea9b;
static uint64_t next(void) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1d;
}

// A text of at most so many bytes that is hard to quote.
static void random_text(char *out, size_t size, bool ascii, size_t min) {
    static const char *const parts[] = {" ", "\"", "\\", "#", "a", "Z", "9", "~", "!", "-", "\xc3\xa4", "\xe6\x9c\xba", "\xf0\x9f\x94\x8c"};
    memset(out, 0, size);
    size_t n = 0, most = min + (size_t)(next() % (size - min));
    while (n < most) {
        const char *part = parts[next() % (ascii ? 10 : 13)];
        if (n + strlen(part) >= size) {
            part = "x";
        }
        memcpy(out + n, part, strlen(part));
        n += strlen(part);
    }
}

static void random_settings(void) {
    static const uint16_t lengths[] = {0, 16, 32, 63, 64};
    memset(&s, 0, sizeof s);
    random_text(s.name, sizeof s.name, false, 1);
    random_text(s.ssid, sizeof s.ssid, false, 0);
    if (s.ssid[0] && next() % 4) {
        random_text(s.passphrase, sizeof s.passphrase, true, 8);
    }
    size_t n = 1 + (size_t)(next() % 63);
    for (size_t i = 0; i < n; i++) {
        s.identity[i] = "abcXYZ019._-@#"[next() % 14];
    }
    n = (size_t)(next() % 64);
    for (size_t i = 0; i < n; i++) {
        s.sntp[i] = "abcXYZ019.-:"[next() % 12];
    }
    s.key_length = (uint8_t)lengths[next() % 5];
    bool typed = next() & 1;
    for (size_t i = 0; i < s.key_length; i++) {
        s.key[i] = typed ? (uint8_t)"abcXYZ019#"[next() % 10] : (uint8_t)next();
    }
    s.rate = (uint16_t)(50 + next() % 1151);
    s.interval = (uint16_t)(20 + next() % 9981);
    for (int i = 0; i < SETTINGS_CHANNELS; i++) {
        random_text(s.channel[i].name, sizeof s.channel[i].name, false, 0);
        s.channel[i].calibration = (struct metering_calibration){
            .shunt_uohm = (uint32_t)(100 + next() % 9999901), .gain_ppm = (int32_t)(next() % 1000001) - 500000, .offset_nv = (int32_t)(next() % 200000001) - 100000000};
    }
}

// All that settings can be survives the flash, and being shown and typed again, each line within the limit.
static void test_round_trips(void) {
    size_t longest_line = 0, longest_record = 0, longest_show = 0;
    for (int i = 0; i < 1500; i++) {
        random_settings();
        if (i == 0) { // as long as settings get
            memset(s.name, '"', 31);
            memset(s.ssid, '"', 32);
            memset(s.passphrase, '"', 63);
            memset(s.identity, 'i', 63);
            memset(s.sntp, 's', 63);
            memset(s.key, 0xee, 64);
            s.key_length = 64;
            s.rate = 1200;
            s.interval = 10000;
            for (int c = 0; c < SETTINGS_CHANNELS; c++) {
                memset(s.channel[c].name, '"', 31);
                s.channel[c].calibration = (struct metering_calibration){.shunt_uohm = 10000000, .gain_ppm = -500000, .offset_nv = -100000000};
            }
        }
        uint8_t packed[SETTINGS_PACKED];
        memset(packed, 0x5a, sizeof packed);
        size_t n = settings_pack(&s, packed, sizeof packed);
        struct settings again;
        memset(&again, 0xff, sizeof again);
        CHECK(n && settings_unpack(&again, packed, n));
        CHECK(same(&s, &again));
        memset(&again, 0xff, sizeof again);
        CHECK(settings_unpack(&again, packed, sizeof packed)); // what is behind the record is not looked at
        CHECK(same(&s, &again));
        longest_record = n > longest_record ? n : longest_record;

        static char shown[SETTINGS_SHOWN];
        size_t length = settings_show(&s, true, shown, sizeof shown);
        CHECK(length && length == strlen(shown));
        longest_show = length > longest_show ? length : longest_show;
        settings_default(&again);
        for (char *at = shown; *at;) {
            size_t l = strcspn(at, "\n");
            longest_line = l > longest_line ? l : longest_line;
            enum settings_request r = settings_line(&again, at, l, error, sizeof error);
            if (!CHECK(r == SETTINGS_CHANGED || r == SETTINGS_NOTHING)) {
                printf("    %.*s: %s\n", (int)l, at, error);
            }
            at += l + 1;
        }
        CHECK(same(&s, &again));
    }
    CHECK_EQ(longest_line, SETTINGS_LINE);
    printf("longest line %lu, shown %lu of %d, record %lu of %d\n", (unsigned long)longest_line, (unsigned long)longest_show, SETTINGS_SHOWN,
           (unsigned long)longest_record, SETTINGS_PACKED);
}

// metering takes every calibration that settings take, and not one step more.
static void test_calibration_limits(void) {
    struct metering m;
    settings_default(&s);
    static const char *const good[] = {"channel 1 shunt 100", "channel 2 shunt 10000000", "channel 3 gain -500000", "channel 4 gain 500000", "channel 5 offset -100000000", "channel 6 offset 100000000"};
    static const struct metering_calibration bad[] = {
        {.shunt_uohm = 99}, {.shunt_uohm = 10000001}, {.shunt_uohm = 100000, .gain_ppm = -500001}, {.shunt_uohm = 100000, .gain_ppm = 500001},
        {.shunt_uohm = 100000, .offset_nv = -100000001}, {.shunt_uohm = 100000, .offset_nv = 100000001}};
    for (int i = 0; i < SETTINGS_CHANNELS; i++) {
        CHECK_EQ(line(good[i]), SETTINGS_CHANGED);
        CHECK(metering_init(&m, &s.channel[i].calibration, 1));
        CHECK(!metering_init(&m, &bad[i], 1));
        struct settings wrong = s;
        wrong.channel[i].calibration = bad[i];
        uint8_t packed[SETTINGS_PACKED];
        CHECK_EQ(settings_pack(&wrong, packed, sizeof packed), 0);
    }
}

// ---- records

static uint32_t crc(const uint8_t *bytes, size_t n) {
    uint32_t c = 0xffffffff;
    for (size_t i = 0; i < 8 * n; i++) {
        uint32_t bit = (bytes[i / 8] >> i % 8 & 1) ^ (c & 1);
        c = c >> 1 ^ (bit ? 0xedb88320 : 0);
    }
    return ~c;
}

// Makes the checksum of a changed record right.
static void seal(uint8_t *record, size_t n) {
    uint32_t c = crc(record, n - 4);
    for (size_t i = 0; i < 4; i++) {
        record[n - 4 + i] = (uint8_t)(c >> 8 * i);
    }
}

static void put_length(uint8_t *record, size_t n) {
    record[6] = (uint8_t)n;
    record[7] = (uint8_t)(n >> 8);
}

static bool refuses(const uint8_t *record, size_t n) {
    struct settings before;
    memcpy(&before, &s, sizeof s);
    return !settings_unpack(&s, record, n) && memcmp(&before, &s, sizeof s) == 0;
}

static void test_crc(void) {
    CHECK_EQ(crc((const uint8_t *)"123456789", 9), 0xcbf43926); // the check value of CRC-32
}

static void test_broken_records(void) {
    settings_default(&s);
    line("wifi \"my wifi\" passphrase");
    line("psk set wattlet q0OIl1B8rTz5S2Zvu7WgG6Nn9MmWw4Aa");
    line("channel 5 name raspberrypi");
    uint8_t good[SETTINGS_PACKED], bad[SETTINGS_PACKED];
    size_t n = settings_pack(&s, good, sizeof good);
    CHECK(n > 0);
    settings_default(&s);
    for (size_t i = 0; i < n; i++) {
        CHECK(refuses(good, i)); // cut
    }
    for (size_t bit = 0; bit < 8 * n; bit++) {
        memcpy(bad, good, n);
        bad[bit / 8] = (uint8_t)(bad[bit / 8] ^ 1u << bit % 8);
        CHECK(refuses(bad, n));
    }
    for (int i = 0; i < 3000; i++) { // bursts
        memcpy(bad, good, n);
        size_t at = (size_t)(next() % (n - 3));
        for (size_t k = 0; k < 4; k++) {
            bad[at + k] = (uint8_t)next();
        }
        CHECK(memcmp(bad, good, n) == 0 || refuses(bad, n));
    }
    // Flash that was erased, or never written; and nothing.
    memset(bad, 0xff, sizeof bad);
    CHECK(refuses(bad, sizeof bad));
    memset(bad, 0, sizeof bad);
    CHECK(refuses(bad, sizeof bad));
    CHECK(refuses(bad, 0));

    // Of another version, older or newer, with more at its end, its checksum right.
    for (unsigned version = 0; version < 65536; version += version < 4 ? 1 : 251) {
        if (version == 1) {
            continue;
        }
        memcpy(bad, good, n);
        memset(bad + n - 4, 7, 20);
        bad[4] = (uint8_t)version;
        bad[5] = (uint8_t)(version >> 8);
        put_length(bad, n + 16);
        seal(bad, n + 16);
        CHECK(refuses(bad, n + 16));
    }
    // Of this version, with more or less than belongs into it.
    memcpy(bad, good, n);
    memset(bad + n - 4, 0, 20);
    put_length(bad, n + 16);
    seal(bad, n + 16);
    CHECK(refuses(bad, n + 16));
    for (size_t less = 12; less < n; less++) {
        memcpy(bad, good, n);
        put_length(bad, less);
        seal(bad, less);
        CHECK(refuses(bad, n));
    }
    // A record of totals is none of settings.
    struct settings_totals totals = {.sequence = 1};
    size_t m = settings_totals_pack(&totals, bad, sizeof bad);
    CHECK(m && refuses(bad, m));

    // What no line would make: each byte of the contents changed in turn, checksum right. It is refused, or it is settings that pack to it.
    for (size_t i = 8; i < n - 4; i++) {
        for (int k = 0; k < 12; k++) {
            memcpy(bad, good, n);
            bad[i] = (uint8_t)(k < 4 ? "\0\x01\x80\xff"[k] : (int)next());
            seal(bad, n);
            struct settings before = s, other = s;
            bool taken = settings_unpack(&other, bad, n);
            uint8_t packed[SETTINGS_PACKED];
            CHECK(taken ? settings_pack(&other, packed, sizeof packed) == n && memcmp(packed, bad, n) == 0 : memcmp(&other, &before, sizeof other) == 0);
        }
    }
    // The record itself is good still.
    CHECK(settings_unpack(&s, good, n));
    CHECK_STR(s.ssid, "my wifi");
}

// Version 1 as it is in the flash of meters: what is written must stay, or the version must change.
static void test_record_of_version_1(void) {
    static const uint8_t record[] = {
        'W', 'T', 'L', 'S', 1, 0, 0x7e, 0,                                    // magic, version, length
        3, 'l', 'a', 'b', 2, 'i', 'd', 2, 0xc3, 0xa4, 0, 0,                   // name, identity, SSID, passphrase, NTP server
        16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255,            // key
        0xb0, 4, 0x10, 0x27, 6,                                               // rate 1200, interval 10000, six channels
        2, 'p', 'i', 0x50, 0xc3, 0, 0, 0x50, 0xfb, 0xff, 0xff, 0x40, 0x1f, 0, 0, // 50000, -1200, 8000
        0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0x80, 0x96, 0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0,                       // 10000000
        0, 0xa0, 0x86, 1, 0, 0x20, 0xa1, 7, 0, 0, 0, 0, 0,                    // gain 500000
        0, 0xa0, 0x86, 1, 0, 0, 0, 0, 0, 0, 0x1f, 0x0a, 0xfa,                 // offset -100000000
        0, 0xa0, 0x86, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0};
    uint8_t sealed[sizeof record], packed[SETTINGS_PACKED];
    memcpy(sealed, record, sizeof record);
    seal(sealed, sizeof record);
    CHECK_EQ(sizeof record, 0x7e);
    settings_default(&s);
    line("name lab");
    line("identity id");
    line("wifi \xc3\xa4 \"\"");
    line("sntp \"\"");
    line("key 000102030405060708090a0b0c0d0eff");
    line("rate 1200");
    line("interval 10000");
    line("channel 1 name pi");
    line("channel 1 shunt 50000");
    line("channel 1 gain -1200");
    line("channel 1 offset 8000");
    line("channel 2 shunt 100");
    line("channel 3 shunt 10000000");
    line("channel 4 gain 500000");
    line("channel 5 offset -100000000");
    CHECK_EQ(settings_pack(&s, packed, sizeof packed), sizeof record);
    CHECK_MEM(packed, sealed, sizeof record);
    struct settings other;
    settings_default(&other);
    CHECK(settings_unpack(&other, sealed, sizeof sealed));
    CHECK(same(&s, &other));
}

static void test_pack_room(void) {
    uint8_t packed[SETTINGS_PACKED];
    settings_default(&s);
    size_t n = settings_pack(&s, packed, sizeof packed);
    for (size_t size = 0; size < n; size++) {
        memset(packed, 0x5a, sizeof packed);
        CHECK_EQ(settings_pack(&s, packed, size), 0);
        CHECK_EQ(packed[size], 0x5a);
    }
    CHECK_EQ(settings_pack(&s, packed, n), n);
    // Settings that no line would make are not written.
    struct settings bad = s;
    bad.rate = 0;
    CHECK_EQ(settings_pack(&bad, packed, sizeof packed), 0);
    bad = s;
    memset(bad.name, 'x', sizeof bad.name); // no end
    CHECK_EQ(settings_pack(&bad, packed, sizeof packed), 0);
    bad = s;
    bad.key_length = 15;
    CHECK_EQ(settings_pack(&bad, packed, sizeof packed), 0);
    bad = s;
    memset(bad.passphrase, 'x', 10); // without an SSID
    CHECK_EQ(settings_pack(&bad, packed, sizeof packed), 0);
}

static void test_totals(void) {
    struct settings_totals t, again, before;
    uint8_t good[SETTINGS_TOTALS_PACKED], bad[SETTINGS_TOTALS_PACKED];
    for (int i = 0; i < 2000; i++) {
        memset(&t, 0, sizeof t);
        t.sequence = (uint32_t)next();
        for (int c = 0; c < SETTINGS_CHANNELS; c++) {
            t.channel[c].energy_uj = i == 0 ? INT64_MIN : i == 1 ? INT64_MAX : (int64_t)next() >> next() % 64;
            t.channel[c].charge_uc = i == 0 ? INT64_MAX : i == 1 ? -1 : (int64_t)next() >> next() % 64;
        }
        size_t n = settings_totals_pack(&t, good, sizeof good);
        CHECK_EQ(n, 112);
        memset(&again, 0xff, sizeof again);
        CHECK(settings_totals_unpack(&again, good, n));
        CHECK_EQ(again.sequence, t.sequence);
        CHECK_MEM(again.channel, t.channel, sizeof t.channel);
        CHECK(settings_totals_unpack(&again, good, sizeof good));
    }
    CHECK_EQ(good[8] | good[9] << 8 | (long long)good[10] << 16 | (long long)good[11] << 24, t.sequence);

    memset(&again, 0x5a, sizeof again);
    memcpy(&before, &again, sizeof again);
    for (size_t i = 0; i < 112; i++) {
        CHECK(!settings_totals_unpack(&again, good, i));
    }
    for (size_t bit = 0; bit < 8 * 112; bit++) {
        memcpy(bad, good, sizeof good);
        bad[bit / 8] = (uint8_t)(bad[bit / 8] ^ 1u << bit % 8);
        CHECK(!settings_totals_unpack(&again, bad, sizeof bad));
    }
    // A power failure in the middle of writing: the rest is erased flash, or what was there before.
    for (size_t i = 0; i < 112; i++) {
        memset(bad, 0xff, sizeof bad);
        memcpy(bad, good, i);
        CHECK(!settings_totals_unpack(&again, bad, sizeof bad) || memcmp(bad, good, 112) == 0);
    }
    memcpy(bad, good, sizeof good);
    bad[4] = 2;
    seal(bad, 112);
    CHECK(!settings_totals_unpack(&again, bad, sizeof bad));
    memcpy(bad, good, sizeof good);
    put_length(bad, 120);
    seal(bad, 120);
    CHECK(!settings_totals_unpack(&again, bad, sizeof bad));
    memcpy(bad, good, sizeof good);
    put_length(bad, 104);
    seal(bad, 104);
    CHECK(!settings_totals_unpack(&again, bad, sizeof bad));
    bad[3] = 'S';
    seal(bad, 104);
    CHECK(!settings_totals_unpack(&again, bad, sizeof bad));
    CHECK_MEM(&again, &before, sizeof again);
    for (size_t size = 0; size < 112; size++) {
        CHECK_EQ(settings_totals_pack(&t, bad, size), 0);
    }
}

static bool newer(uint32_t a, uint32_t b) {
    struct settings_totals x = {.sequence = a}, y = {.sequence = b};
    return settings_totals_newer(&x, &y);
}

static void test_sequence(void) {
    CHECK(newer(1, 0));
    CHECK(!newer(0, 1));
    CHECK(!newer(7, 7));
    CHECK(newer(0, UINT32_MAX)); // goes round
    CHECK(!newer(UINT32_MAX, 0));
    CHECK(newer(5, UINT32_MAX - 5));
    CHECK(newer(0x80000000, 1));
    CHECK(!newer(0x80000001, 0)); // half way round is the past
    CHECK(!newer(0x80000000, 0) && !newer(0, 0x80000000)); // neither
    // Two slots in turn, through the wrap-around: the newer is always the one written last.
    uint32_t slot[2] = {UINT32_MAX - 9, 0};
    for (uint32_t i = 1; i < 30; i++) {
        uint32_t sequence = UINT32_MAX - 9 + i;
        slot[i % 2] = sequence;
        CHECK(newer(slot[i % 2], slot[1 - i % 2]));
        CHECK(!newer(slot[1 - i % 2], slot[i % 2]));
    }
}

static void test_make_key(void) {
    uint8_t random[128];
    settings_default(&s);
    line("key 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
    struct settings before = s;
    memset(random, 0xff, sizeof random); // a byte that would favour some letters is not used
    CHECK(!settings_make_key(&s, random, sizeof random));
    CHECK(same(&before, &s));
    memset(random, 248, sizeof random);
    CHECK(!settings_make_key(&s, random, sizeof random));
    memset(random, 247, sizeof random);
    CHECK(!settings_make_key(&s, random, SETTINGS_KEY_NEW - 1));
    CHECK(settings_make_key(&s, random, SETTINGS_KEY_NEW));
    CHECK_EQ(s.key_length, SETTINGS_KEY_NEW);
    CHECK_MEM(s.key, "99999999999999999999999999999999\0", 33);

    // All letters come equally often.
    static int seen[256];
    enum { KEYS = 4000 };
    for (int i = 0; i < KEYS; i++) {
        for (size_t k = 0; k < sizeof random; k++) {
            random[k] = (uint8_t)(next() >> 40);
        }
        CHECK(settings_make_key(&s, random, sizeof random));
        for (int k = 0; k < s.key_length; k++) {
            seen[s.key[k]]++;
        }
    }
    int letters = 0;
    for (int c = 0; c < 256; c++) {
        bool alphanumeric = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (alphanumeric) { // expected 2065, standard deviation 45
            letters++;
            CHECK_NEAR(seen[c], KEYS * SETTINGS_KEY_NEW / 62, 230);
        } else {
            CHECK_EQ(seen[c], 0);
        }
    }
    CHECK_EQ(letters, 62);
    char typed[80] = "psk set wattlet ";
    memcpy(typed + 16, s.key, s.key_length);
    before = s;
    CHECK_EQ(line(typed), SETTINGS_CHANGED);
    CHECK(same(&before, &s));
}

int main(void) {
    RUN(test_defaults);
    RUN(test_lines);
    RUN(test_mistakes);
    RUN(test_cut_text);
    RUN(test_error_room);
    RUN(test_errors_keep_secrets);
    RUN(test_show);
    RUN(test_help);
    RUN(test_round_trips);
    RUN(test_calibration_limits);
    RUN(test_crc);
    RUN(test_broken_records);
    RUN(test_record_of_version_1);
    RUN(test_pack_room);
    RUN(test_totals);
    RUN(test_sequence);
    RUN(test_make_key);
    return check_end();
}
