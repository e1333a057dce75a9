// Opens a model for a command or a worker: finds it, loads it, and shows a progress bar on a terminal (one line per 10 %
// elsewhere) while the weights are packed.
#pragma once

#include <memory>
#include <string>

#include "model/transformer/transformer.h"
#include "services/engine/engine_flags.h"

namespace runahead {

Result<std::unique_ptr<Transformer>> open_engine(const EngineFlags& flags, bool show_progress);

// "cpu avx512 bf16, 2 threads": for reports.
std::string device_text(const Transformer& engine);

}  // namespace runahead
