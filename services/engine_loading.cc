#include "services/engine_loading.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "base/log.h"
#include "services/kernel_timings.h"
#include "services/model_path.h"

namespace runahead {
namespace {

constexpr int kBarColumns = 30;

class LoadBar {
 public:
  explicit LoadBar(std::string what) : what_(std::move(what)), terminal_(isatty(STDERR_FILENO)) {}

  void show(uint64_t done, uint64_t total) {
    const int tenth = total > 0 ? static_cast<int>(10 * done / total) : 10;
    if (terminal_) {
      const int full = total > 0 ? static_cast<int>(kBarColumns * done / total) : kBarColumns;
      const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
      std::fprintf(stderr, "\rloading %s [%s%s] %.2f GB/s\033[K", what_.c_str(), std::string(full, '#').c_str(),
                   std::string(kBarColumns - full, '.').c_str(), elapsed > 0 ? done / elapsed * 1e-9 : 0);
      if (done >= total) std::fputs("\r\033[K", stderr);
    } else if (tenth > last_tenth_) {
      log::info("loading {}: {} %", what_, tenth * 10);
    }
    last_tenth_ = tenth;
  }

 private:
  std::string what_;
  bool terminal_;
  int last_tenth_ = 0;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace

Result<std::unique_ptr<Transformer>> open_engine(const std::string& model, const std::string& compute, int threads,
                                                 const std::string& packed_cache, bool show_progress,
                                                 const std::vector<std::string>& override_kv) {
  EngineOptions options{.threads = threads, .packed_cache = packed_cache_folder(packed_cache)};
  options.model = TRY(find_model(model));
  options.compute = TRY(parse_compute_option(compute));
  options.overrides = TRY(parse_kv_overrides(override_kv));
  prepare_kernels();
  LoadBar bar(options.model.filename().string());
  if (show_progress) options.progress = [&bar](uint64_t done, uint64_t total) { bar.show(done, total); };
  return Transformer::load(options);
}

std::string device_text(const Transformer& engine) {
  return fmt::format("cpu {} {}, {} thread{}", engine.ops().isa, engine.compute_name(), engine.threads(),
                     engine.threads() == 1 ? "" : "s");
}

}  // namespace runahead
