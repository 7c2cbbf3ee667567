// NCCL's numbers and structs as we declare them against its own header; scripts/headers.mjs adds the functions.
#include <nccl.h>

#include "nccl/api.h"
#include "test/headers.h"

using namespace lomo;

SAME(sizeof(nccl::UniqueId), sizeof(ncclUniqueId));
SAME(alignof(nccl::UniqueId), alignof(ncclUniqueId));
SAME(sizeof(nccl::Result), sizeof(ncclResult_t));
SAME(sizeof(nccl::DataType), sizeof(ncclDataType_t));
SAME(sizeof(nccl::Operation), sizeof(ncclRedOp_t));
SAME(nccl::success, ncclSuccess);
SAME(nccl::unhandled_cuda_error, ncclUnhandledCudaError);
SAME(nccl::system_error, ncclSystemError);
SAME(nccl::internal_error, ncclInternalError);
SAME(nccl::invalid_argument, ncclInvalidArgument);
SAME(nccl::invalid_usage, ncclInvalidUsage);
SAME(nccl::remote_error, ncclRemoteError);
SAME(nccl::in_progress, ncclInProgress);
SAME(nccl::type_u8, ncclUint8);
SAME(nccl::type_i32, ncclInt32);
SAME(nccl::type_f16, ncclFloat16);
SAME(nccl::type_f32, ncclFloat32);
SAME(nccl::type_bf16, ncclBfloat16);
SAME(nccl::sum, ncclSum);
SAME(nccl::max, ncclMax);
SAME(nccl::undefined, NCCL_CONFIG_UNDEF_INT);
SAME(nccl::oldest, NCCL_VERSION(2, 18, 0));

// The head of the configuration, field by field; later fields are read only by who says it has them.
SAME(offsetof(nccl::Config, size), offsetof(ncclConfig_t, size));
SAME(offsetof(nccl::Config, magic), offsetof(ncclConfig_t, magic));
SAME(offsetof(nccl::Config, version), offsetof(ncclConfig_t, version));
SAME(offsetof(nccl::Config, blocking), offsetof(ncclConfig_t, blocking));
SAME(offsetof(nccl::Config, cga_cluster_size), offsetof(ncclConfig_t, cgaClusterSize));
SAME(offsetof(nccl::Config, least_blocks), offsetof(ncclConfig_t, minCTAs));
SAME(offsetof(nccl::Config, most_blocks), offsetof(ncclConfig_t, maxCTAs));
SAME(offsetof(nccl::Config, net_name), offsetof(ncclConfig_t, netName));
SAME(offsetof(nccl::Config, split_share), offsetof(ncclConfig_t, splitShare));
SAME(offsetof(nccl::Config, traffic_class), offsetof(ncclConfig_t, trafficClass));
SAME(sizeof(nccl::Config), offsetof(ncclConfig_t, trafficClass) + sizeof(int));
constexpr ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;
SAME(nccl::config_magic, theirs.magic);
SAME(nccl::config.cga_cluster_size, theirs.cgaClusterSize);
SAME(nccl::config.least_blocks, theirs.minCTAs);
SAME(nccl::config.most_blocks, theirs.maxCTAs);
SAME(nccl::config.split_share, theirs.splitShare);
SAME(nccl::config.traffic_class, theirs.trafficClass);
