#include "services/engine/engine_loading.h"

#include <fmt/format.h>

#include "base/log.h"
#include "model/cuda_transformer/cuda_transformer.h"
#include "services/engine/cuda_library.h"
#include "services/engine/kernel_timings.h"
#include "services/engine/model_path.h"
#include "services/engine/progress_bar.h"

namespace runahead {
namespace {

void show_loading(ProgressBar& bar, uint64_t done, uint64_t total) {
  const double elapsed = bar.seconds();
  const double rate = elapsed > 0 ? static_cast<double>(done) / elapsed * 1e-9 : 0;
  bar.show(total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1, fmt::format("{:.2f} GB/s", rate));
  if (done >= total) bar.clear();
}

}  // namespace

Result<std::unique_ptr<Transformer>> open_engine(const EngineFlags& flags, bool show_progress) {
  EngineOptions options{.threads = flags.threads, .packed_cache = packed_cache_folder(flags.packed_cache)};
  options.model = TRY(find_model(flags.model.name));
  const ComputeOption compute = TRY(parse_compute_option(flags.compute));
  if (compute.cuda)
    return fail(ErrorCode::kUnsupported,
                "this command runs on the CPU; --compute cuda is for serve, run, prefill, decode and bench prefill "
                "and decode, not with --in-process",
                "compute");
  options.compute = compute.mode;
  options.compact_pages = compute.compact_pages;
  options.overrides = TRY(parse_kv_overrides(flags.model.override_kv));
  prepare_kernels();
  ProgressBar bar("loading " + options.model.filename().string(), show_progress);
  if (show_progress) options.progress = [&bar](uint64_t done, uint64_t total) { show_loading(bar, done, total); };
  return Transformer::load(options);
}

Result<WorkerEngine> open_worker_engine(const EngineFlags& flags, bool show_progress) {
  const ComputeOption compute = TRY(parse_compute_option(flags.compute));
  if (!compute.cuda) {
    std::unique_ptr<Transformer> engine = TRY(open_engine(flags, show_progress));
    WorkerEngine worker{.device = device_text(*engine),
                        .host_bytes = engine->packed_bytes(),
                        .host_bytes_shared = engine->weights_origin() != WeightsOrigin::kPacked};
    worker.engine = std::move(engine);
    return worker;
  }
  CudaEngineOptions options;
  options.model = TRY(find_model(flags.model.name));
  options.overrides = TRY(parse_kv_overrides(flags.model.override_kv));
  options.pages_of_bf16 = compute.mode.has_value();
  const cuda::CudaOps* ops = TRY(open_cuda(/*device=*/0));
  ProgressBar bar("loading " + options.model.filename().string(), show_progress);
  if (show_progress) options.progress = [&bar](uint64_t done, uint64_t total) { show_loading(bar, done, total); };
  WorkerEngine worker{.device = std::string("cuda ") + ops->device};
  worker.engine = TRY(CudaTransformer::load(*ops, options));
  worker.device_bytes_free = ops->free_bytes();
  log::info("{}: products: {}", worker.device, ops->gemm_text());
  return worker;
}

std::string device_text(const Transformer& engine) {
  return fmt::format("cpu {} {}, {} thread{}", engine.ops().isa, engine.compute_name(), engine.threads(),
                     engine.threads() == 1 ? "" : "s");
}

}  // namespace runahead
