#include "model/engine.h"

namespace runahead {

Result<std::unique_ptr<KvPool>> make_kv_pool(Engine& engine, int64_t num_pages) {
  std::unique_ptr<DevicePages> device = TRY(engine.device_pages(num_pages));
  return std::make_unique<KvPool>(engine.page_bytes(), num_pages, std::move(device));
}

}  // namespace runahead
