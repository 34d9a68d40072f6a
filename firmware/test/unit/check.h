// Checks of the firmware's unit tests. A test is a program: main runs its cases and returns check_end(), which is not 0 if a check failed
// or if there was none. It needs printf and string.h, so that the same tests run on rv32 with picolibc.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static long check_passed, check_failed;
static const char *check_case = "";

// Counts one check and prints those that fail; after 50 of them only counts, since one fault in a loop says enough.
static inline int check_result(int good, const char *file, int line, const char *what) {
    if (good) {
        check_passed++;
    } else if (++check_failed <= 50) {
        printf("%s:%d: %s%s%s\n", file, line, check_case, *check_case ? ": " : "", what);
    }
    return good;
}

static inline int check_integers(int good, long long a, long long b, const char *file, int line, const char *what) {
    if (!check_result(good, file, line, what) && check_failed <= 50) {
        printf("    left %lld, right %lld\n", a, b);
    }
    return good;
}

static inline int check_near(long long a, long long b, long long tolerance, const char *file, int line, const char *what) {
    return check_integers((a > b ? a - b : b - a) <= tolerance, a, b, file, line, what);
}

static inline int check_strings(const char *a, const char *b, const char *file, int line, const char *what) {
    int good = strcmp(a, b) == 0;
    if (!check_result(good, file, line, what) && check_failed <= 50) {
        printf("    left  \"%s\"\n    right \"%s\"\n", a, b);
    }
    return good;
}

static inline int check_bytes(const void *a, const void *b, size_t n, const char *file, int line, const char *what) {
    int good = memcmp(a, b, n) == 0;
    if (!check_result(good, file, line, what) && check_failed <= 50) {
        const uint8_t *p = a, *q = b;
        size_t i = 0;
        while (p[i] == q[i]) {
            i++;
        }
        printf("    byte %lu of %lu: left %02x, right %02x\n", (unsigned long)i, (unsigned long)n, p[i], q[i]);
    }
    return good;
}

static inline int check_end(void) {
    printf("%ld passed, %ld failed\n", check_passed, check_failed);
    return check_failed || !check_passed;
}

// All of them are expressions that say whether the check passed.
#define CHECK(condition) check_result((condition) ? 1 : 0, __FILE__, __LINE__, #condition)
// Integers of up to 64 bits; unsigned ones beyond 2^63 are printed as negative.
#define CHECK_EQ(a, b) check_eq_((long long)(a), (long long)(b), __FILE__, __LINE__, #a " == " #b)
#define CHECK_NEAR(a, b, tolerance) check_near((long long)(a), (long long)(b), (long long)(tolerance), __FILE__, __LINE__, #a " is " #b " within " #tolerance)
#define CHECK_STR(a, b) check_strings(a, b, __FILE__, __LINE__, #a " is " #b)
#define CHECK_MEM(a, b, n) check_bytes(a, b, n, __FILE__, __LINE__, #a " is " #b)
// Runs a case, a function without arguments; failures tell its name.
#define RUN(function) (check_case = #function, function(), check_case = "")

static inline int check_eq_(long long a, long long b, const char *file, int line, const char *what) {
    return check_integers(a == b, a, b, file, line, what);
}
