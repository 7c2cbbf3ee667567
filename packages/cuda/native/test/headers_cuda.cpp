// The driver's numbers as we declare them against its own header; scripts/headers.mjs adds the functions.
#include <cuda.h>

#include "driver/api.h"
#include "test/headers.h"

using namespace lomo;

SAME(sizeof(cu::Result), sizeof(CUresult));
SAME(sizeof(cu::Address), sizeof(CUdeviceptr));
SAME(sizeof(cu::Device), sizeof(CUdevice));
SAME(cu::success, CUDA_SUCCESS);
SAME(cu::invalid_value, CUDA_ERROR_INVALID_VALUE);
SAME(cu::out_of_memory, CUDA_ERROR_OUT_OF_MEMORY);
SAME(cu::not_initialized, CUDA_ERROR_NOT_INITIALIZED);
SAME(cu::device_unavailable, CUDA_ERROR_DEVICE_UNAVAILABLE);
SAME(cu::no_device, CUDA_ERROR_NO_DEVICE);
SAME(cu::invalid_device, CUDA_ERROR_INVALID_DEVICE);
SAME(cu::invalid_image, CUDA_ERROR_INVALID_IMAGE);
SAME(cu::invalid_context, CUDA_ERROR_INVALID_CONTEXT);
SAME(cu::no_binary_for_gpu, CUDA_ERROR_NO_BINARY_FOR_GPU);
SAME(cu::unsupported_ptx, CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
SAME(cu::not_found, CUDA_ERROR_NOT_FOUND);
SAME(cu::not_ready, CUDA_ERROR_NOT_READY);
SAME(cu::illegal_address, CUDA_ERROR_ILLEGAL_ADDRESS);
SAME(cu::launch_failed, CUDA_ERROR_LAUNCH_FAILED);
SAME(cu::system_driver_mismatch, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
SAME(cu::multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME(cu::capability_major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME(cu::capability_minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME(cu::shared_optin, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
SAME(cu::stream_non_blocking, CU_STREAM_NON_BLOCKING);
SAME(cu::event_blocking_sync, CU_EVENT_BLOCKING_SYNC);
SAME(cu::event_no_timing, CU_EVENT_DISABLE_TIMING);
SAME(cu::host_portable, CU_MEMHOSTALLOC_PORTABLE);
SAME(cu::function_max_dynamic_shared, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
