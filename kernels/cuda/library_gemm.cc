#include "kernels/cuda/library_gemm.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/gemm_check.h"

namespace runahead::cuda {
namespace {

constexpr int kCandidates = 8;
constexpr uint32_t kAlignment = 16;  // bytes, of all operands: rows of any number may be the first ones

// A descriptor of the library's; nullptr, which it takes for an error, if it could not be made.
class Descriptor {
 public:
  template <class... Args>
  explicit Descriptor(CublasStatus (*destroy)(void*), CublasStatus (*create)(void**, Args...),
                      std::type_identity_t<Args>... args)
      : destroy_(destroy) {
    if (create(&made_, args...) != kCublasSuccess) made_ = nullptr;
  }
  ~Descriptor() {
    if (made_ != nullptr) destroy_(made_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  void* get() const { return made_; }

 private:
  void* made_ = nullptr;
  CublasStatus (*destroy_)(void*);
};

// Matrices of ours lie row after row. To the library, for which they lie column after column, they are transposed: it makes
// out^T [n, rows] of weights^T [k, n], transposed again by the product's descriptor, and a^T [k, rows].
struct Layouts {
  Layouts(const CublasLtApi& api, const GemmShape& shape, int rows, int out_stride)
      : weights(api.layout_destroy, api.layout_create, kCudaBf16, size(shape.k), size(shape.n), shape.k),
        a(api.layout_destroy, api.layout_create, kCudaBf16, size(shape.k), size(rows), shape.k),
        out(api.layout_destroy, api.layout_create, kCudaFloat, size(shape.n), size(rows), out_stride) {}
  static uint64_t size(int count) { return static_cast<uint64_t>(count); }
  Descriptor weights, a, out;
};

GemmShape shape_of(const GemmArgs& args) { return {args.n, args.k, args.epilogue}; }

std::string version_text(size_t version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

std::string hex(const LtAlgo& algo) {
  std::string text;
  char word[20];
  for (const uint64_t data : algo.data) {
    std::snprintf(word, sizeof word, "%016llx", static_cast<unsigned long long>(data));
    text += word;
  }
  return text;
}

std::string asked_for() {
  const char* said = std::getenv("RUNAHEAD_CUDA_GEMM");
  return said == nullptr ? "" : said;
}

}  // namespace

bool LibraryGemm::is_demanded() { return !asked_for().empty() && asked_for() != "own"; }

std::unique_ptr<LibraryGemm> LibraryGemm::open(const Device& device, std::string& why) {
  const std::string asked = asked_for();
  why = asked == "own" ? "RUNAHEAD_CUDA_GEMM says so" : "RUNAHEAD_CUDA_GEMM is own or cublaslt, not " + asked;
  if (!asked.empty() && asked != "cublaslt") return nullptr;
  const std::optional<CublasLtApi> api = open_cublaslt(why);
  if (!api) return nullptr;
  void *handle = nullptr, *product = nullptr;
  CublasStatus status = api->create(&handle);
  if (status == kCublasSuccess) status = api->product_create(&product, kCublasCompute32F, kCudaFloat);
  if (status == kCublasSuccess)
    status = api->product_set(product, kLtTransposeA, &kCublasTransposed, sizeof kCublasTransposed);
  if (status == kCublasSuccess) return std::unique_ptr<LibraryGemm>(new LibraryGemm(device, *api, handle, product));
  why = "cuBLASLt " + version_text(api->version) + " cannot be used: " + api->status_name(status);
  if (product != nullptr) api->product_destroy(product);
  if (handle != nullptr) api->destroy(handle);
  return nullptr;
}

LibraryGemm::LibraryGemm(const Device& device, const CublasLtApi& api, void* handle, void* product)
    : ops_(device.ops),
      stream_(device.stream),
      prefix_("cuBLASLt " + version_text(api.version) + " for " + std::to_string(device.multiprocessors) +
              " multiprocessors"),
      api_(api),
      handle_(handle),
      product_(product) {}

LibraryGemm::~LibraryGemm() {
  ops_.finish();
  for (const auto& [shape, way] : ways_)
    if (way.sums != nullptr) ops_.release_apart(way.sums);
  api_.product_destroy(product_);
  api_.destroy(handle_);
}

const std::string& LibraryGemm::choose(const GemmShape& shape) {
  const auto known = ways_.find(shape);
  if (known != ways_.end()) return known->second.name;
  return ways_.emplace(shape, find_way(shape)).first->second.name;
}

LibraryGemm::Way LibraryGemm::find_way(const GemmShape& shape) {
  const auto refuse = [&](const std::string& why) {
    refusals_ += "; not for [" + std::to_string(shape.n) + ", " + std::to_string(shape.k) + "]: " + why;
    return Way();
  };
  // Before the activation is applied, sums are stored.
  const GemmShape summed{shape.n, shape.k, shape.epilogue == Epilogue::kAdd ? Epilogue::kAdd : Epilogue::kStore};
  if (static_cast<uint32_t>(shape.n) * sizeof(float) % kAlignment != 0)
    return refuse("its rows of the output are not aligned");
  const GemmCheck check(ops_, summed);
  if (!check.has_room()) return refuse("there is no room to check it");
  std::string fault = "it has no algorithm that sums in one sequence without memory of its own";
  for (const LtAlgo& algo : ask(summed)) {
    fault = "there are numbers of rows that it does not take";
    if (!takes_all_rows(algo, summed)) continue;
    fault = check.fault_of([&](const GemmArgs& args) { return multiply_by(algo, args); });
    if (!fault.empty()) continue;
    Way way{.name = prefix_ + ", algorithm " + hex(algo), .algo = algo};
    if (shape.epilogue == Epilogue::kSiluMul)
      way.sums = static_cast<float*>(
          ops_.allocate_apart(sizeof(float) * static_cast<size_t>(kSiluRows) * static_cast<size_t>(shape.n)));
    if (shape.epilogue == Epilogue::kSiluMul && way.sums == nullptr) return refuse("there is no room for its sums");
    return way;
  }
  return refuse(fault);
}

// In the order of their estimated times.
std::vector<LtAlgo> LibraryGemm::ask(const GemmShape& shape) const {
  const Descriptor preference(api_.preference_destroy, api_.preference_create);
  const uint64_t no_workspace = 0;
  CublasStatus status = api_.preference_set(preference.get(), kLtWorkspaceMax, &no_workspace, sizeof no_workspace);
  status |= api_.preference_set(preference.get(), kLtReductionSchemes, &kLtNoReduction, sizeof kLtNoReduction);
  for (const int operand : kLtAlignment)
    status |= api_.preference_set(preference.get(), operand, &kAlignment, sizeof kAlignment);
  const Layouts layouts(api_, shape, GemmCheck::kMany, shape.n);
  LtHeuristic found[kCandidates] = {};
  int count = 0;
  if (status == kCublasSuccess)
    api_.heuristics(handle_, product_, layouts.weights.get(), layouts.a.get(), layouts.out.get(), layouts.out.get(),
                    preference.get(), kCandidates, found, &count);
  std::vector<LtAlgo> algos;
  for (int i = 0; i < count; ++i)
    if (sums_in_one_sequence(found[i])) algos.push_back(found[i].algo);
  return algos;
}

// It was asked for nothing else.
bool LibraryGemm::sums_in_one_sequence(const LtHeuristic& found) const {
  int32_t parts = 0;
  uint32_t reduction = 0;
  size_t written = 0;
  return found.state == kCublasSuccess && found.workspace_bytes == 0 &&
         api_.algo_get(&found.algo, kLtAlgoSplitK, &parts, sizeof parts, &written) == kCublasSuccess && parts <= 1 &&
         api_.algo_get(&found.algo, kLtAlgoReduction, &reduction, sizeof reduction, &written) == kCublasSuccess &&
         reduction == kLtNoReduction;
}

// As the library says, without trying. A product with more rows is made piece by piece.
bool LibraryGemm::takes_all_rows(const LtAlgo& algo, const GemmShape& shape) const {
  for (int rows = 1; rows <= GemmCheck::kMany; ++rows) {
    const Layouts layouts(api_, shape, rows, shape.n);
    LtHeuristic found{};
    if (api_.algo_check(handle_, product_, layouts.weights.get(), layouts.a.get(), layouts.out.get(), layouts.out.get(),
                        &algo, &found) != kCublasSuccess ||
        found.workspace_bytes != 0)
      return false;
  }
  return true;
}

bool LibraryGemm::makes(const GemmArgs& args) const {
  const auto known = args.as_chosen ? ways_.find(shape_of(args)) : ways_.end();
  return known != ways_.end() && !known->second.name.empty();
}

const char* LibraryGemm::multiply_by(const LtAlgo& algo, const GemmArgs& args) const {
  const Layouts layouts(api_, shape_of(args), args.rows, args.out_stride);
  const float one = 1, of_before = args.epilogue == Epilogue::kAdd ? 1 : 0;
  const CublasStatus status =
      api_.multiply(handle_, product_, &one, args.weights, layouts.weights.get(), args.a, layouts.a.get(), &of_before,
                    args.out, layouts.out.get(), args.out, layouts.out.get(), &algo, nullptr, 0, stream_);
  return status == kCublasSuccess ? nullptr : api_.status_name(status);
}

const char* LibraryGemm::multiply(const GemmArgs& args) const {
  const Way& way = ways_.at(shape_of(args));
  const bool activates = args.epilogue == Epilogue::kSiluMul;
  const int step = activates ? kSiluRows : GemmCheck::kMany;
  for (int row = 0; row < args.rows; row += step) {
    const int64_t out_at = static_cast<int64_t>(row) * args.out_stride;
    GemmArgs part = args;
    part.a += static_cast<int64_t>(row) * args.k;
    part.rows = std::min(step, args.rows - row);
    part.out = activates ? way.sums : static_cast<float*>(args.out) + out_at;
    if (activates) part.epilogue = Epilogue::kStore, part.out_stride = args.n;
    if (const char* failure = multiply_by(way.algo, part)) return failure;
    if (activates)
      ops_.silu_mul({.y = way.sums,
                     .rows = part.rows,
                     .cols = args.n / 2,
                     .out = static_cast<uint16_t*>(args.out) + out_at,
                     .out_stride = args.out_stride});
  }
  return nullptr;
}

std::string LibraryGemm::text() const { return prefix_ + refusals_; }

namespace {

// Of the process's table: plain functions know nothing else.
LibraryGemm* table_library = nullptr;  // until the process ends
void (*our_gemm)(const GemmArgs&) = nullptr;
void (*note_failure)(const char*) = nullptr;
std::string table_text;

}  // namespace

bool add_library_gemm(const LibraryGemm::Device& device, CudaOps& ops, void (*note)(const char*), std::string& why) {
  our_gemm = ops.gemm;
  note_failure = note;
  table_library = LibraryGemm::open(device, why).release();
  if (table_library == nullptr) {
    table_text = "ours (" + why + ")";
    ops.gemm_text = [] { return table_text.c_str(); };
    return !LibraryGemm::is_demanded();
  }
  ops.gemm = [](const GemmArgs& args) {
    if (!table_library->makes(args)) return our_gemm(args);
    if (const char* failure = table_library->multiply(args)) note_failure(failure);
  };
  ops.choose_gemm = [](const GemmShape& shape) { return table_library->choose(shape).c_str(); };
  ops.gemm_text = [] { return (table_text = table_library->text()).c_str(); };
  return true;
}

}  // namespace runahead::cuda
