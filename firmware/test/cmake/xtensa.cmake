# The other compiler: the plain components as GCC for Xtensa sees them. It is the lx106's, of the ESP8266, so this checks types and generates code
# but makes nothing that an ESP32 runs. Debian: gcc-xtensa-lx106 picolibc-xtensa-lx106-elf.
#
#   cmake --build .cache/firmware --target xtensa-check

find_program(XTENSA_CC xtensa-lx106-elf-gcc)
mark_as_advanced(XTENSA_CC)

function(firmware_xtensa_targets)
  if(NOT XTENSA_CC)
    message(NOTICE "no check with the Xtensa compiler: gcc-xtensa-lx106 and picolibc-xtensa-lx106-elf not installed")
    return()
  endif()
  set(objects)
  foreach(component IN LISTS FIRMWARE_PLAIN)
    if(EXISTS ${FIRMWARE_COMPONENTS}/${component}/CMakeLists.txt)
      firmware_component(${component} sources includes)
      list(TRANSFORM includes PREPEND -I)
      file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/xtensa/${component})
      foreach(source IN LISTS sources)
        get_filename_component(base ${source} NAME_WE)
        set(object ${CMAKE_BINARY_DIR}/xtensa/${component}/${base}.o)
        add_custom_command(OUTPUT ${object}
                           COMMAND ${XTENSA_CC} -std=c11 -mlongcalls -Os ${FIRMWARE_WARNINGS} ${includes} -MD -MF ${object}.d -c ${source} -o ${object}
                           DEPENDS ${source} DEPFILE ${object}.d COMMENT "Checking for Xtensa ${component}/${base}.c" VERBATIM)
        list(APPEND objects ${object})
      endforeach()
    endif()
  endforeach()
  add_custom_target(xtensa-check ALL DEPENDS ${objects})
endfunction()
