#include "transport/select_transport.h"

#include "base/log.h"
#include "transport/memory_kv_transport.h"
#include "transport/tcp_kv_transport.h"

namespace runahead {

Result<std::unique_ptr<KvTransport>> make_kv_transport(std::string_view name, KvTransportOptions options,
                                                       asio::any_io_executor executor, const Clock& clock) {
  if (options.incarnation == 0) return fail(ErrorCode::kInvalidArgument, "a KV transport needs an incarnation other than 0");
  if (name == "memory") return MemoryKvTransport::create(std::move(options), executor, clock);
  if (name == "tcp" || name == "auto") return TcpKvTransport::create(std::move(options), executor, clock);
  if (name == "ucx")
    return fail(ErrorCode::kUnsupported, "this build has no ucx transport: use --transport tcp, or build with libucx-dev",
                "transport");
  return fail(ErrorCode::kInvalidArgument,
              "'" + std::string(name.substr(0, 64)) + "' is no transport: choose auto, tcp, ucx or memory", "transport");
}

}  // namespace runahead
