// transport/kv/nccl_api.h against the header of a release: compiled, not run, by tests/run.sh cuda.
#include <nccl.h>

#include <cstddef>
#include <type_traits>

#include "transport/kv/nccl_api.h"

namespace runahead {

static_assert(kNcclSuccess == ncclSuccess && kNcclInProgress == ncclInProgress && kNcclUint8 == ncclUint8);
static_assert(sizeof(NcclUniqueId) == sizeof(ncclUniqueId) && alignof(NcclUniqueId) == alignof(ncclUniqueId));
static_assert(sizeof(NcclComm) == sizeof(ncclComm_t) && sizeof(void*) == sizeof(cudaStream_t));

// Ours is the beginning of theirs.
static_assert(sizeof(NcclConfig) <= sizeof(ncclConfig_t));
#define SAME_PLACE(ours, theirs)                                                \
  static_assert(offsetof(NcclConfig, ours) == offsetof(ncclConfig_t, theirs) && \
                std::is_same_v<decltype(NcclConfig::ours), decltype(ncclConfig_t::theirs)>)
SAME_PLACE(size, size);
SAME_PLACE(magic, magic);
SAME_PLACE(version, version);
SAME_PLACE(blocking, blocking);
SAME_PLACE(cga_cluster_size, cgaClusterSize);
SAME_PLACE(min_ctas, minCTAs);
SAME_PLACE(max_ctas, maxCTAs);
SAME_PLACE(net_name, netName);
SAME_PLACE(split_share, splitShare);
static_assert(NcclConfig().magic == NCCL_API_MAGIC && NcclConfig().min_ctas == NCCL_CONFIG_UNDEF_INT);

// Enumerations are ints to the caller; handles are pointers.
template <class Ours, class Theirs>
constexpr bool same_call = false;
template <class... Ours, class... Theirs>
constexpr bool same_call<int (*)(Ours...), ncclResult_t(Theirs...)> = ((sizeof(Ours) == sizeof(Theirs)) && ...);
static_assert(same_call<decltype(NcclApi::get_version), decltype(ncclGetVersion)>);
static_assert(same_call<decltype(NcclApi::get_unique_id), decltype(ncclGetUniqueId)>);
static_assert(same_call<decltype(NcclApi::comm_init), decltype(ncclCommInitRankConfig)>);
static_assert(same_call<decltype(NcclApi::comm_state), decltype(ncclCommGetAsyncError)>);
static_assert(same_call<decltype(NcclApi::comm_abort), decltype(ncclCommAbort)>);
static_assert(same_call<decltype(NcclApi::send), decltype(ncclSend)>);
static_assert(same_call<decltype(NcclApi::receive), decltype(ncclRecv)>);

}  // namespace runahead
