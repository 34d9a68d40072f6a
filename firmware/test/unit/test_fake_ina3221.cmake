# The fake alone: it links no component, so it cannot lean on the driver that it is there to test.
firmware_test(test_fake_ina3221 SOURCES test_fake_ina3221.c ../fakes/fake_ina3221.c INCLUDES ${FIRMWARE_COMPONENTS}/ina3221/include RV32)
