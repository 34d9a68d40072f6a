// How a run ends, by case; the expected status of each is where the cases are declared.
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "../unit/check.h"

int main(void) {
    volatile int one = 1;
    switch (CASE) {
    case 0: // the machine is what it should be
        CHECK_EQ(sizeof(long), 4);
        CHECK_EQ(sizeof(void *), 4);
        CHECK_EQ(sizeof(int64_t), 8);
        CHECK_EQ((INT64_MAX / one) % 1000000007, 291172003);
        return check_end();
    case 1:
        exit(3);
    case 2: // undefined behaviour
        one += INT_MAX;
        return one;
    case 3: // no memory there
        return *(volatile int *)(uintptr_t)(0x100 * one) ? 0 : 1;
    default: // a failed check
        CHECK_EQ(one, 2);
        return check_end();
    }
}
