// Opens a model for a command or a worker: finds it, loads it, and shows a progress bar on a terminal (one line per 10 %
// elsewhere) while the weights are packed.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "model/transformer/transformer.h"
#include "services/engine/engine_flags.h"

namespace runahead {

// On the CPU: for commands that measure or compare its kernels. kUnsupported for --compute cuda.
Result<std::unique_ptr<Transformer>> open_engine(const EngineFlags& flags, bool show_progress);

// Of a worker, on the CPU or on a GPU.
struct WorkerEngine {
  std::unique_ptr<Engine> engine;
  std::string device;  // "cpu avx512 bf16, 2 threads": for reports
  uint64_t host_bytes = 0;  // of weights
  bool host_bytes_shared = false;  // with the other workers of this machine
  std::optional<size_t> device_bytes_free;  // beside the weights, of a GPU
};
Result<WorkerEngine> open_worker_engine(const EngineFlags& flags, bool show_progress);

// "cpu avx512 bf16, 2 threads": for reports.
std::string device_text(const Transformer& engine);

}  // namespace runahead
