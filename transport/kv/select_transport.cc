#include "transport/kv/select_transport.h"

#include "base/log.h"
#include "transport/kv/any_kv_transport.h"
#include "transport/kv/memory_kv_transport.h"
#include "transport/kv/tcp_kv_transport.h"
#if RUNAHEAD_HAVE_UCX
#include "transport/kv/ucx_kv_transport.h"
#endif

namespace runahead {
namespace {

// UCX opens ports of its own choice: where the data port is fixed, a firewall or a policy expects that one alone.
Result<std::unique_ptr<KvTransport>> make_any(KvTransportOptions options, asio::any_io_executor executor,
                                              const Clock& clock) {
  std::vector<std::unique_ptr<KvTransport>> members;
#if RUNAHEAD_HAVE_UCX
  if (options.listen.port == 0) {
    auto ucx = UcxKvTransport::create(options, executor, clock);
    if (ucx) {
      members.push_back(std::move(*ucx));
    } else if (ucx.error().code == ErrorCode::kUnavailable) {
      log::info("K/V pages can travel over tcp alone: {}", ucx.error().message);
    } else {
      return ucx;
    }
  }
#endif
  members.push_back(TRY(TcpKvTransport::create(std::move(options), executor, clock)));
  return std::make_unique<AnyKvTransport>(std::move(members));
}

}  // namespace

Result<std::unique_ptr<KvTransport>> make_kv_transport(std::string_view name, KvTransportOptions options,
                                                       asio::any_io_executor executor, const Clock& clock) {
  if (options.incarnation == 0)
    return fail(ErrorCode::kInvalidArgument, "a KV transport needs an incarnation other than 0");
  if (name == "memory") return MemoryKvTransport::create(std::move(options), executor, clock);
  if (name == "tcp") return TcpKvTransport::create(std::move(options), executor, clock);
#if RUNAHEAD_HAVE_UCX
  if (name == "ucx") return UcxKvTransport::create(std::move(options), executor, clock);
#else
  if (name == "ucx")
    return fail(ErrorCode::kUnsupported,
                "this build has no ucx transport: use --transport tcp, or build with libucx-dev", "transport");
#endif
  if (name == "auto") return make_any(std::move(options), executor, clock);
  return fail(ErrorCode::kInvalidArgument,
              "'" + std::string(name.substr(0, 64)) + "' is no transport: choose auto, tcp, ucx or memory",
              "transport");
}

}  // namespace runahead
