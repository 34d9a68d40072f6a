function(firmware_xtensa_targets)
endfunction()
