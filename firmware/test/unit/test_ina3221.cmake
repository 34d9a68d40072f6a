firmware_test(test_ina3221 SOURCES test_ina3221.c ../fakes/fake_ina3221.c COMPONENTS ina3221 RV32)
