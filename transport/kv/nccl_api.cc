#include "transport/kv/nccl_api.h"

#include <dlfcn.h>

#include <cstdlib>

namespace runahead {
namespace {

constexpr int kOldest = 21800;  // the first with NcclConfig as it is here

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

Error no_nccl(const std::string& why) {
  return {ErrorCode::kUnavailable,
          "NCCL cannot be used: " + why + "; name the library with RUNAHEAD_NCCL_LIBRARY, or choose another transport",
          "transport"};
}

Result<NcclApi> open_library() {
  const char* said = std::getenv("RUNAHEAD_NCCL_LIBRARY");
  const char* name = said != nullptr ? said : "libnccl.so.2";
  void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return std::unexpected(no_nccl(dlerror()));
  NcclApi api;
  const bool all = find(library, "ncclGetVersion", api.get_version) &&
                   find(library, "ncclGetUniqueId", api.get_unique_id) &&
                   find(library, "ncclCommInitRankConfig", api.comm_init) &&
                   find(library, "ncclCommGetAsyncError", api.comm_state) &&
                   find(library, "ncclCommAbort", api.comm_abort) && find(library, "ncclSend", api.send) &&
                   find(library, "ncclRecv", api.receive) && find(library, "ncclGetErrorString", api.error_text);
  if (!all || api.get_version(&api.version) != kNcclSuccess)
    return std::unexpected(no_nccl(std::string(name) + " is no NCCL, or an old one"));
  if (api.version < kOldest)
    return std::unexpected(
        no_nccl(std::string(name) + " is version " + nccl_version(api) + ", and 2.18 is the oldest"));
  return api;
}

}  // namespace

Result<const NcclApi*> open_nccl() {
  static const Result<NcclApi> api = open_library();
  if (!api) return std::unexpected(api.error());
  return &*api;
}

std::string nccl_version(const NcclApi& api) {
  return std::to_string(api.version / 10000) + "." + std::to_string(api.version / 100 % 100) + "." +
         std::to_string(api.version % 100);
}

}  // namespace runahead
