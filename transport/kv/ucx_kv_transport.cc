#include "transport/kv/ucx_kv_transport.h"

#include <boost/asio/ip/address.hpp>

#include "transport/kv/hop_kv_transport.h"
#include "transport/kv/ucx_context.h"
#include "transport/kv/ucx_lane.h"

namespace runahead {

Result<std::unique_ptr<KvTransport>> make_ucx_kv_transport(KvTransportOptions options, asio::any_io_executor executor,
                                                           Clock& clock) {
  boost::system::error_code no_literal;
  const bool v6 = asio::ip::make_address(options.listen.host, no_literal).is_v6() && !no_literal;
  if (v6 && !is_wildcard(options.listen.host))
    return fail(ErrorCode::kUnavailable, "UCX carries no pages over IPv6: use --transport tcp or auto", "transport");
  const std::shared_ptr<UcxContext> context = TRY(UcxContext::open(options.allow_remote));
  HopWay way{
      .label = "ucx",
      .name = ucx_transport_name(),
      .has_ipv6 = false,
      .describe =
          [context](const std::string& place) {
            return "ucx at " + place + " over " + (context->lanes.empty() ? "lanes not chosen yet" : context->lanes);
          },
      .register_memory = [context](std::span<std::byte> pool) { return context->register_memory(pool); },
      .make_lane =
          [context, executor](const LaneIntroduction* of_sender) {
            return std::make_unique<UcxLane>(context, executor, of_sender);
          },
  };
  return HopKvTransport::create(std::move(way), std::move(options), executor, clock);
}

}  // namespace runahead
