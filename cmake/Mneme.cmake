# Settings shared by every target, and the functions that make targets.
enable_testing()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

option(MNEME_ASAN "Build with AddressSanitizer and UndefinedBehaviorSanitizer" OFF)
option(MNEME_TSAN "Build with ThreadSanitizer" OFF)
option(MNEME_FUZZ "Build the fuzz targets (needs clang)" OFF)
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER "${CCACHE}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE}")
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE}")
endif()

find_package(Threads REQUIRED)
find_package(absl CONFIG REQUIRED)

# Include paths are written from the root of the repository.
include_directories("${CMAKE_SOURCE_DIR}")

# Options for the host's compiler alone: nvcc knows other ones (Cuda.cmake).
function(mneme_host_options)
  add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:${ARGN}>")
endfunction()
mneme_host_options(-Wall -Wextra -Wshadow -Wconversion -Werror)
# Designated initialisers may leave defaults alone.
mneme_host_options(-Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  mneme_host_options(-Wno-restrict)  # false positives of GCC 12
else()
  mneme_host_options(-Wno-sign-conversion)  # GCC's -Wconversion does not imply it, clang's does
endif()

# The compiler instruments, and links the run time of, the sanitizers given.
function(mneme_sanitize sanitizers)
  add_compile_options(-fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${sanitizers})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    mneme_host_options(-Wno-maybe-uninitialized)  # false positives in instrumented std::variant
  endif()
endfunction()
if(MNEME_ASAN OR MNEME_FUZZ)
  mneme_sanitize(address,undefined)
endif()
if(MNEME_TSAN)
  mneme_sanitize(thread)
endif()
if(MNEME_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# mneme_library(NAME SOURCES a.cc… [DEPS target…]): a static library of one room.
function(mneme_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_link_libraries(${name} PUBLIC ${arg_DEPS})
endfunction()

# mneme_binary(NAME SOURCES a.cc… [DEPS target…]): a program, placed in <build>/bin.
function(mneme_binary name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
endfunction()

# mneme_test(NAME SOURCES a.cc… [DEPS target…] [LABELS unit|slow|soak|e2e…] [TIMEOUT seconds]):
# a GoogleTest program. Label `unit` (the default) is what `./dev unit` runs. Tests run in the
# root of the repository, so that fixtures are named `tests/…` and `models/…`.
function(mneme_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_DEPS} GTest::gmock GTest::gtest_main)
  # Libraries that programs load themselves lie beside the programs.
  set_target_properties(${name} PROPERTIES
    BUILD_RPATH "${CMAKE_BINARY_DIR}/bin" BUILD_RPATH_USE_ORIGIN ON)
  mneme_add_test(${name} COMMAND ${name} LABELS ${arg_LABELS} TIMEOUT ${arg_TIMEOUT})
endfunction()

# mneme_add_test(NAME COMMAND program [argument…] [LABELS …] [TIMEOUT seconds]): registers a
# program that is built elsewhere. Each test also carries its room (tests/<room>) as a label.
function(mneme_add_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "COMMAND;LABELS" ${ARGN})
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  file(RELATIVE_PATH room "${CMAKE_SOURCE_DIR}/tests" "${CMAKE_CURRENT_SOURCE_DIR}")
  string(REGEX REPLACE "/.*" "" room "${room}")
  add_test(NAME ${name} COMMAND ${arg_COMMAND} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS};${room}" TIMEOUT ${arg_TIMEOUT})
endfunction()
