// Opens a model for a command or a worker: finds it, loads it, and shows a progress bar on a terminal (one line per 10 %
// elsewhere) while the weights are packed. packed_cache: as packed_cache_folder takes it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/transformer/transformer.h"

namespace runahead {

Result<std::unique_ptr<Transformer>> open_engine(const std::string& model, const std::string& compute, int threads,
                                                 const std::string& packed_cache, bool show_progress,
                                                 const std::vector<std::string>& override_kv = {});

// "cpu avx512 bf16, 2 threads": for reports.
std::string device_text(const Transformer& engine);

}  // namespace runahead
