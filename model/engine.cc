#include "model/engine.h"

namespace runahead {

Result<std::unique_ptr<KvPool>> make_kv_pool(Engine& engine, int64_t num_pages, KvPlace place) {
  std::unique_ptr<DevicePages> device = TRY(engine.device_pages(num_pages));
  if (place == KvPlace::kDevice) {
    if (!device || !device->can_travel())
      return fail(ErrorCode::kUnsupported,
                  "this transport moves pages between GPUs, and those of --compute " + engine.compute_name() +
                      " are not a GPU's: use it with --compute cuda, or another transport",
                  "transport");
    return std::make_unique<KvPool>(num_pages, std::move(device));
  }
  return std::make_unique<KvPool>(engine.page_bytes(), num_pages, std::move(device));
}

}  // namespace runahead
