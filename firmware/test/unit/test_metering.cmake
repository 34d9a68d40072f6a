firmware_test(test_metering SOURCES test_metering.c COMPONENTS metering INCLUDES ${FIRMWARE_TEST}/golden RV32)
