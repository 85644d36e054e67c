# FlashInfer's attention headers and the CUTLASS headers that they were written against, for the
# CUDA backend: the target `flashinfer`. Fetched once, when configuring, from the wheel of the one
# version that kernels/cuda/attention_fa*.cu call (its C++ functions are no promised interface).
set(MNEME_FLASHINFER_VERSION 0.6.18)
set(MNEME_FLASHINFER_URL "https://files.pythonhosted.org/packages/31/7d/3dae45fc293cd5f16cefe4dcf59683d964ca8faf2303ed7fff54f4bca490/flashinfer_python-${MNEME_FLASHINFER_VERSION}-py3-none-any.whl"
  CACHE STRING "Where FlashInfer's wheel is downloaded from, such as a mirror")
set(MNEME_FLASHINFER_SHA256 d5d26edb48f8def0bf28b2c94415aef7f0754e2cd9e3cb3d6e7081262d068aad)
set(MNEME_FLASHINFER_DIR "" CACHE PATH
  "Unpacked FlashInfer ${MNEME_FLASHINFER_VERSION}, to build without a network: the folder that \
holds include/flashinfer and cutlass/include (flashinfer/data in the wheel)")
set(MNEME_DOWNLOAD_DIR "${CMAKE_BINARY_DIR}/downloads" CACHE PATH "Where downloads are kept")

# Sets `out` to the wheel of the expected content, downloading it unless it is there.
function(mneme_flashinfer_wheel out)
  set(wheel "${MNEME_DOWNLOAD_DIR}/flashinfer_python-${MNEME_FLASHINFER_VERSION}-py3-none-any.whl")
  set(${out} "${wheel}" PARENT_SCOPE)
  if(EXISTS "${wheel}")
    file(SHA256 "${wheel}" have)
    if(have STREQUAL MNEME_FLASHINFER_SHA256)
      return()
    endif()
  endif()
  message(STATUS "Downloading FlashInfer ${MNEME_FLASHINFER_VERSION} (18 MB)")
  file(DOWNLOAD "${MNEME_FLASHINFER_URL}" "${wheel}" STATUS status INACTIVITY_TIMEOUT 60)
  list(GET status 0 code)
  if(code EQUAL 0)
    file(SHA256 "${wheel}" have)
  else()  # Another route to the same file, which knows of mirrors and proxies set for Python.
    execute_process(
      COMMAND python3 -m pip download --quiet --no-deps --dest "${MNEME_DOWNLOAD_DIR}"
              "flashinfer-python==${MNEME_FLASHINFER_VERSION}"
      RESULT_VARIABLE pip_code ERROR_VARIABLE pip_error)
    set(have "")
    if(pip_code EQUAL 0 AND EXISTS "${wheel}")
      file(SHA256 "${wheel}" have)
    endif()
  endif()
  if(NOT have STREQUAL MNEME_FLASHINFER_SHA256)
    file(REMOVE "${wheel}")
    message(FATAL_ERROR "FlashInfer ${MNEME_FLASHINFER_VERSION} could not be downloaded from "
      "${MNEME_FLASHINFER_URL} (${status}; SHA-256 '${have}', expected ${MNEME_FLASHINFER_SHA256}). "
      "${pip_error}\nWithout a network: unpack the wheel elsewhere and pass "
      "-DMNEME_FLASHINFER_DIR=<its folder flashinfer/data>, or put the wheel at ${wheel}; "
      "or build without the CUDA backend (-DMNEME_CUDA=OFF).")
  endif()
endfunction()

if(MNEME_FLASHINFER_DIR)
  set(mneme_flashinfer "${MNEME_FLASHINFER_DIR}")
else()
  set(mneme_flashinfer_root "${MNEME_DOWNLOAD_DIR}/flashinfer-${MNEME_FLASHINFER_VERSION}")
  set(mneme_flashinfer "${mneme_flashinfer_root}/flashinfer/data")
  if(NOT EXISTS "${mneme_flashinfer_root}/complete")
    mneme_flashinfer_wheel(mneme_wheel)
    file(ARCHIVE_EXTRACT INPUT "${mneme_wheel}" DESTINATION "${mneme_flashinfer_root}"
      PATTERNS "flashinfer/data/include/*" "flashinfer/data/cutlass/include/*" "*/licenses/*")
    file(TOUCH "${mneme_flashinfer_root}/complete")
  endif()
endif()
foreach(header include/flashinfer/attention/prefill.cuh cutlass/include/cutlass/cutlass.h)
  if(NOT EXISTS "${mneme_flashinfer}/${header}")
    message(FATAL_ERROR "MNEME_FLASHINFER_DIR: ${mneme_flashinfer} holds no ${header}; it must be "
      "the folder flashinfer/data of FlashInfer ${MNEME_FLASHINFER_VERSION}'s wheel")
  endif()
endforeach()

add_library(flashinfer INTERFACE)
target_include_directories(flashinfer SYSTEM INTERFACE
  "${mneme_flashinfer}/include" "${mneme_flashinfer}/cutlass/include")
