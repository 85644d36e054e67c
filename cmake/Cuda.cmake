# Whether the CUDA backend is built: sets MNEME_CUDA_ENABLED, and if so the compiler's settings and
# the target `flashinfer`, headers that it needs.
include(FlashInfer)
set(MNEME_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (where possible), ON, OFF")
set_property(CACHE MNEME_CUDA PROPERTY STRINGS AUTO ON OFF)

# Sets `reason` to why there cannot be a CUDA backend; empty if there can, and `flashinfer` to the
# folder of its headers.
function(mneme_find_cuda flashinfer reason)
  if(MNEME_ASAN OR MNEME_TSAN OR MNEME_FUZZ)
    set(${reason} "sanitizers and fuzz targets are built without it" PARENT_SCOPE)
    return()
  endif()
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(MNEME_NVCC nvcc HINTS /usr/local/cuda/bin)
    if(MNEME_NVCC)
      set(ENV{CUDACXX} "${MNEME_NVCC}")
    endif()
  endif()
  find_package(CUDAToolkit 13.0 QUIET)
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER OR NOT CUDAToolkit_FOUND)
    set(${reason} "no working nvcc of CUDA 13.0 or later; install it or set CUDACXX" PARENT_SCOPE)
    return()
  endif()
  mneme_find_flashinfer(headers missing)
  set(${flashinfer} "${headers}" PARENT_SCOPE)
  set(${reason} "${missing}" PARENT_SCOPE)
endfunction()

set(MNEME_CUDA_ENABLED OFF)
if(NOT MNEME_CUDA)
  message(STATUS "CUDA backend: not built (MNEME_CUDA=OFF)")
  return()
endif()
mneme_find_cuda(MNEME_FLASHINFER MNEME_CUDA_MISSING)
if(MNEME_CUDA_MISSING AND MNEME_CUDA STREQUAL "AUTO" AND CMAKE_CUDA_COMPILER)
  message(WARNING "CUDA backend: not built, although there is nvcc (${MNEME_CUDA_MISSING})")
  return()
elseif(MNEME_CUDA_MISSING AND MNEME_CUDA STREQUAL "AUTO")
  message(STATUS "CUDA backend: not built (${MNEME_CUDA_MISSING})")
  return()
elseif(MNEME_CUDA_MISSING)
  message(FATAL_ERROR "MNEME_CUDA=${MNEME_CUDA}, but: ${MNEME_CUDA_MISSING}")
endif()

# The H100 and H200, with the instructions that later devices do not have.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90a-real)
endif()
enable_language(CUDA)
find_package(CUDAToolkit 13.0 REQUIRED)

set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
if(CMAKE_VERSION VERSION_LESS 3.26)  # does not know nvcc's C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
endif()
# Device code is optimised whatever the build's type: without it, kernels spill and tests crawl.
foreach(type DEBUG RELEASE RELWITHDEBINFO MINSIZEREL)
  set(CMAKE_CUDA_FLAGS_${type} "-O3 -DNDEBUG -lineinfo")
endforeach()
add_library(flashinfer INTERFACE)
target_include_directories(flashinfer SYSTEM INTERFACE
  "${MNEME_FLASHINFER}/include" "${MNEME_FLASHINFER}/cutlass/include"
  "${CMAKE_BINARY_DIR}/generated/flashinfer")
mneme_mend_flashinfer("${MNEME_FLASHINFER}" "${CMAKE_BINARY_DIR}/generated/flashinfer")
set(MNEME_CUDA_ENABLED ON)
message(STATUS "CUDA backend: built (CUDA ${CUDAToolkit_VERSION}, "
               "architectures ${CMAKE_CUDA_ARCHITECTURES})")
