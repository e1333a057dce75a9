#include "transport/kv/device_kv_transport.h"

#include "transport/kv/hop_kv_transport.h"
#include "transport/kv/ipc_lane.h"
#include "transport/kv/nccl_lane.h"

namespace runahead {
namespace {

Result<void> needs_device(const KvTransportOptions& options, const std::string& name) {
  if (options.authenticate_pages)
    return fail(
        ErrorCode::kUnsupported,
        name +
            " authenticates no pages, which a GPU would have to compute: use --transport tcp or ucx, or leave out "
            "--authenticate-pages",
        "authenticate-pages");
  if (options.device) return {};
  return fail(ErrorCode::kUnsupported,
              name + " moves pages between GPUs: use it with --compute cuda, or another transport", "transport");
}

}  // namespace

Result<std::unique_ptr<KvTransport>> make_nccl_kv_transport(KvTransportOptions options, asio::any_io_executor executor,
                                                            Clock& clock) {
  TRY(needs_device(options, "nccl"));
  const NcclApi* api = TRY(open_nccl());
  HopWay way{
      .label = "nccl",
      .name = "nccl",
      .describe = [api](const std::string& place) { return "nccl " + nccl_version(*api) + " at " + place; },
      .register_memory = [](std::span<std::byte>) -> Result<void> { return {}; },
      .make_lane =
          [api, make_stream = options.device.make_stream](const LaneIntroduction* of_sender) {
            return std::make_unique<NcclLane>(*api, make_stream, of_sender);
          },
  };
  return HopKvTransport::create(std::move(way), std::move(options), std::move(executor), clock);
}

Result<std::unique_ptr<KvTransport>> make_ipc_kv_transport(KvTransportOptions options, asio::any_io_executor executor,
                                                           Clock& clock) {
  TRY(needs_device(options, "ipc"));
  const auto pool = std::make_shared<std::span<std::byte>>();  // shared with the lanes' maker
  HopWay way{
      .label = "ipc",
      .name = "ipc",
      .describe = [](const std::string& place) { return "ipc at " + place; },
      .register_memory = [pool](std::span<std::byte> all) -> Result<void> {
        *pool = all;
        return {};
      },
      .make_lane =
          [device = options.device, pool](const LaneIntroduction* of_sender) {
            return std::make_unique<IpcLane>(device, *pool, of_sender);
          },
  };
  return HopKvTransport::create(std::move(way), std::move(options), std::move(executor), clock);
}

}  // namespace runahead
