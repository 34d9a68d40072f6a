firmware_test(test_check SOURCES test_check.c RV32)
