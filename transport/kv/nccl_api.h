// NCCL, as far as K/V pages need it: its functions by address, from a library that is opened when it is asked for, so that a
// build needs none of it. Types and numbers are those of nccl.h, whose ABI only grows; tests/transport/nccl_abi.cu holds them
// against the header of a release. Every function is non-blocking on communicators of ours (NcclConfig::blocking).
//   threads  a communicator is its lane's only (nccl_lane.h).
#pragma once

#include <climits>
#include <cstddef>
#include <string>

#include "base/result.h"

namespace runahead {

inline constexpr int kNcclSuccess = 0;
inline constexpr int kNcclInProgress = 7;
inline constexpr int kNcclUint8 = 1;  // ncclDataType_t

struct NcclUniqueId {
  char internal[128];
};

// The members since 2.18, of which the library is told by `version`: it takes the rest for not given.
struct NcclConfig {
  size_t size = sizeof(NcclConfig);
  unsigned magic = 0xcafebeef;
  unsigned version = 21800;
  int blocking = 0;
  int cga_cluster_size = INT_MIN;  // not given, like those below
  int min_ctas = INT_MIN;
  int max_ctas = INT_MIN;
  const char* net_name = nullptr;
  int split_share = INT_MIN;
};

using NcclComm = void*;

struct NcclApi {
  int version = 0;  // 23203 is 2.32.3
  int (*get_version)(int*) = nullptr;
  int (*get_unique_id)(NcclUniqueId*) = nullptr;
  int (*comm_init)(NcclComm*, int ranks, NcclUniqueId, int rank, NcclConfig*) = nullptr;
  int (*comm_state)(NcclComm, int* state) = nullptr;  // ncclCommGetAsyncError
  int (*comm_abort)(NcclComm) = nullptr;
  int (*send)(const void*, size_t count, int type, int peer, NcclComm, void* stream) = nullptr;
  int (*receive)(void*, size_t count, int type, int peer, NcclComm, void* stream) = nullptr;
  const char* (*error_text)(int) = nullptr;
};

// libnccl.so.2, or what $RUNAHEAD_NCCL_LIBRARY names; it stays open. kUnavailable with one sentence that says what is missing.
Result<const NcclApi*> open_nccl();
std::string nccl_version(const NcclApi& api);  // "2.32.3"

}  // namespace runahead
