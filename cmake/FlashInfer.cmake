# FlashInfer's attention headers and the CUTLASS headers that they were written against, for the
# CUDA backend. Fetched once, when configuring, from the wheel of the one version that
# kernels/cuda/attention_fa*.cu call (its C++ functions are no promised interface): by pip, which
# knows the package index and the mirrors that this machine uses.
set(MNEME_FLASHINFER_VERSION 0.6.18)
set(MNEME_FLASHINFER_URL "" CACHE STRING
  "Where FlashInfer's wheel is downloaded from instead of by pip")
set(MNEME_FLASHINFER_SHA256 d5d26edb48f8def0bf28b2c94415aef7f0754e2cd9e3cb3d6e7081262d068aad)
set(MNEME_FLASHINFER_DIR "" CACHE PATH
  "Unpacked FlashInfer ${MNEME_FLASHINFER_VERSION}, to build without a network: the folder that \
holds include/flashinfer and cutlass/include (flashinfer/data in the wheel)")
set(MNEME_DOWNLOAD_DIR "${CMAKE_BINARY_DIR}/downloads" CACHE PATH "Where downloads are kept")

# Sets `reason` to why the wheel of the expected content cannot be at `wheel`; empty if it is there,
# downloaded if need be.
function(mneme_download_flashinfer wheel reason)
  set(${reason} "" PARENT_SCOPE)
  set(have "")
  if(EXISTS "${wheel}")
    file(SHA256 "${wheel}" have)
  endif()
  if(have STREQUAL MNEME_FLASHINFER_SHA256)
    return()
  endif()
  message(STATUS "Downloading FlashInfer ${MNEME_FLASHINFER_VERSION} (18 MB)")
  if(MNEME_FLASHINFER_URL)
    file(DOWNLOAD "${MNEME_FLASHINFER_URL}" "${wheel}" STATUS status INACTIVITY_TIMEOUT 60)
  else()
    set(wanted "${MNEME_DOWNLOAD_DIR}/flashinfer.txt")
    file(WRITE "${wanted}" "flashinfer-python==${MNEME_FLASHINFER_VERSION} \
--hash=sha256:${MNEME_FLASHINFER_SHA256}\n")
    execute_process(
      COMMAND python3 -m pip download --quiet --no-deps --only-binary :all: --require-hashes
              --retries 1 --dest "${MNEME_DOWNLOAD_DIR}" --requirement "${wanted}"
      RESULT_VARIABLE code OUTPUT_QUIET ERROR_VARIABLE error)
    string(STRIP "python3 -m pip: ${code} ${error}" status)
  endif()
  set(have "nothing")
  if(EXISTS "${wheel}")
    file(SHA256 "${wheel}" have)
  endif()
  if(NOT have STREQUAL MNEME_FLASHINFER_SHA256)
    file(REMOVE "${wheel}")
    set(${reason} "FlashInfer ${MNEME_FLASHINFER_VERSION} could not be downloaded (${status}; \
SHA-256 ${have}, expected ${MNEME_FLASHINFER_SHA256}). Install python3-pip, or without a network put the wheel at ${wheel}, or unpack it and pass \
-DMNEME_FLASHINFER_DIR=<its folder flashinfer/data>" PARENT_SCOPE)
  endif()
endfunction()

# Sets `dir` to the folder with the headers, and `reason` to why there is none; empty if there is.
function(mneme_find_flashinfer dir reason)
  set(found "${MNEME_FLASHINFER_DIR}")
  if(NOT found)
    set(root "${MNEME_DOWNLOAD_DIR}/flashinfer-${MNEME_FLASHINFER_VERSION}")
    set(found "${root}/flashinfer/data")
    if(NOT EXISTS "${root}/complete")
      set(wheel "${MNEME_DOWNLOAD_DIR}/flashinfer_python-${MNEME_FLASHINFER_VERSION}-py3-none-any.whl")
      mneme_download_flashinfer("${wheel}" missing)
      if(missing)
        set(${reason} "${missing}" PARENT_SCOPE)
        return()
      endif()
      file(ARCHIVE_EXTRACT INPUT "${wheel}" DESTINATION "${root}"
        PATTERNS "flashinfer/data/include/*" "flashinfer/data/cutlass/include/*" "*/licenses/*")
      file(TOUCH "${root}/complete")
    endif()
  endif()
  set(${dir} "${found}" PARENT_SCOPE)
  set(${reason} "" PARENT_SCOPE)
  foreach(header include/flashinfer/attention/prefill.cuh cutlass/include/cutlass/cutlass.h)
    if(NOT EXISTS "${found}/${header}")
      set(${reason} "${found} (MNEME_FLASHINFER_DIR) holds no ${header}; it must be the folder \
flashinfer/data of FlashInfer ${MNEME_FLASHINFER_VERSION}'s wheel" PARENT_SCOPE)
    endif()
  endforeach()
endfunction()

# Writes flashinfer_mended/epilogue.cuh below `to`: the epilogue of FlashInfer's FA3 kernels from
# `dir`, less a call. There all threads arrive at the barrier behind which the output in shared
# memory is read, and then wait at it, so that each counts twice: half of them pass while others
# still write, and rows of other heads or of keys come out now and then. It must be included before
# FlashInfer's header, whose place its include guard takes.
function(mneme_mend_flashinfer dir to)
  set(original "${dir}/include/flashinfer/attention/hopper/epilogue.cuh")
  file(READ "${original}" text)
  string(REGEX REPLACE "cutlass::arch::NamedBarrier::arrive\\(NUM_MMA_THREADS,[^;]*EpilogueBarrier\\);"
    "" mended "${text}")
  if(mended STREQUAL text)
    message(FATAL_ERROR "${original} has no arrival at EpilogueBarrier: see whether "
      "mneme_mend_flashinfer is still needed")
  endif()
  string(REPLACE "#include \"../../" "#include \"flashinfer/" mended "${mended}")
  foreach(header named_barrier utils)
    string(REPLACE "#include \"${header}.cuh\"" "#include \"flashinfer/attention/hopper/${header}.cuh\""
      mended "${mended}")
  endforeach()
  file(CONFIGURE OUTPUT "${to}/flashinfer_mended/epilogue.cuh" CONTENT "${mended}" @ONLY)
endfunction()
