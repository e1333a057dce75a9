#include "model/architecture.h"

#include <algorithm>
#include <string>

namespace runahead {
namespace {

constexpr Architecture kArchitectures[] = {
    {.name = "llama", .norm = NormKind::kRms, .rope_pairing = RopePairing::kInterleaved, .ffn = FfnKind::kSiluGated},
};

}  // namespace

Result<const Architecture*> find_architecture(std::string_view name) {
  const auto* found = std::ranges::find(kArchitectures, name, &Architecture::name);
  if (found != std::end(kArchitectures)) return found;
  std::string known;
  for (const Architecture& one : kArchitectures) known += (known.empty() ? "" : ", ") + std::string(one.name);
  return fail(ErrorCode::kUnsupported, "the model's architecture '" + std::string(name) +
                                           "' is not supported; choose a model of architecture " + known);
}

}  // namespace runahead
