# Notes a test to be run on a 32-bit machine as well.
function(firmware_rv32_test name)
  set_property(GLOBAL APPEND PROPERTY firmware_rv32_tests ${name})
endfunction()

function(firmware_rv32_targets)
endfunction()
