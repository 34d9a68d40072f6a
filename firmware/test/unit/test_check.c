// The checks themselves: a failed one must count, print and end in a bad status.
#include "check.h"

int main(void) {
    CHECK(1);
    CHECK_EQ((uint64_t)1 << 40, 1099511627776);
    CHECK_EQ(-1, -1);
    CHECK_NEAR(5, 7, 2);
    CHECK_NEAR(7, 5, 2);
    CHECK_STR("a", "a");
    CHECK_MEM("ab", "ab", 2);
    if (check_passed != 7 || check_failed != 0 || check_end() != 0) {
        return 1;
    }
    printf("7 lines of failures follow, as they must\n");
    CHECK(0);
    CHECK_EQ(1, (int64_t)1 << 32 | 1);
    CHECK_NEAR(5, 8, 2);
    CHECK_NEAR(8, 5, 2);
    CHECK_STR("a", "b");
    CHECK_MEM("ab", "ac", 2);
    CHECK(check_passed == 8);
    if (check_passed != 7 || check_failed != 7 || check_end() == 0) {
        return 1;
    }
    check_passed = check_failed = 0;
    return check_end() == 0; // no check at all is a failure
}
