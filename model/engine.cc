#include "model/engine.h"

namespace runahead {

Result<std::unique_ptr<KvPool>> make_kv_pool(Engine& engine, int64_t num_pages) {
  const size_t page_bytes = KvPool::rounded_up(engine.page_bytes());
  std::unique_ptr<DevicePages> device = TRY(engine.device_pages(page_bytes * static_cast<size_t>(num_pages)));
  return std::make_unique<KvPool>(page_bytes, num_pages, std::move(device));
}

}  // namespace runahead
