#include "transport/select_transport.h"

#include "base/log.h"
#include "transport/memory_kv_transport.h"
#include "transport/tcp_kv_transport.h"
#if RUNAHEAD_HAVE_UCX
#include "transport/ucx_kv_transport.h"
#endif

namespace runahead {

Result<std::unique_ptr<KvTransport>> make_kv_transport(std::string_view name, KvTransportOptions options,
                                                       asio::any_io_executor executor, const Clock& clock) {
  if (options.incarnation == 0)
    return fail(ErrorCode::kInvalidArgument, "a KV transport needs an incarnation other than 0");
  if (name == "memory") return MemoryKvTransport::create(std::move(options), executor, clock);
  if (name == "tcp") return TcpKvTransport::create(std::move(options), executor, clock);
#if RUNAHEAD_HAVE_UCX
  if (name == "ucx") return UcxKvTransport::create(std::move(options), executor, clock);
  if (name == "auto") {
    auto ucx = UcxKvTransport::create(options, executor, clock);
    if (ucx || ucx.error().code != ErrorCode::kUnavailable) return ucx;
    log::warn("pages travel over tcp: {}", ucx.error().message);
  }
#else
  if (name == "ucx")
    return fail(ErrorCode::kUnsupported,
                "this build has no ucx transport: use --transport tcp, or build with libucx-dev", "transport");
#endif
  if (name == "auto") return TcpKvTransport::create(std::move(options), executor, clock);
  return fail(ErrorCode::kInvalidArgument,
              "'" + std::string(name.substr(0, 64)) + "' is no transport: choose auto, tcp, ucx or memory",
              "transport");
}

}  // namespace runahead
