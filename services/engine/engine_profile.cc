#include "services/engine/engine_profile.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "model/kv_pages.h"

namespace runahead {
namespace {

constexpr int32_t kChunkTokens = 4 * kPageTokens;  // enough rows for the kernels' full tiles
constexpr int32_t kPrefixTokens = 16 * kPageTokens;
constexpr int kRepetitions = 3;                    // the fastest counts: others were disturbed

}  // namespace

Result<EngineProfile> measure_engine(Engine& engine, const Clock& clock) {
  const ModelShape& shape = engine.shape();
  const int32_t chunk_tokens = std::min(kChunkTokens, shape.context_len / kPageTokens * kPageTokens);
  const int32_t prefix_tokens = std::min(kPrefixTokens, shape.context_len / kPageTokens * kPageTokens - chunk_tokens);
  const TokenRange chunk{prefix_tokens, prefix_tokens + chunk_tokens};
  const auto pool = TRY(make_kv_pool(engine, chunk.end_page()));
  const auto kv = pool->lease(1, chunk.end);
  const RowRange rows{0, chunk_tokens};
  const std::vector<TokenId> tokens(static_cast<size_t>(chunk_tokens), 0);
  double linear = std::numeric_limits<double>::max(), prefix = linear;
  for (int i = 0; i < kRepetitions; ++i) {
    const auto done = [&] {
      engine.wait();
      return clock.now();
    };
    const auto x = engine.embed(tokens);
    const Time begin = done();
    engine.project_qkv(0, *x, **kv, chunk, rows);
    const Time projected = done();
    engine.attend(0, *x, **kv, chunk, {0, chunk.first_page()}, rows);
    const Time prefix_done = done();
    engine.attend(0, *x, **kv, chunk, {chunk.first_page(), chunk.end_page()}, rows);
    const Time attended = done();
    engine.finish_layer(0, *x, rows);
    linear = std::min(linear, seconds(projected - begin) + seconds(done() - attended));
    if (prefix_tokens > 0) prefix = std::min(prefix, seconds(prefix_done - projected));
  }
  const double pairs = static_cast<double>(chunk_tokens) * std::max(prefix_tokens, 1);
  return EngineProfile{.seconds_per_token = linear * shape.num_layers / chunk_tokens,
                       .seconds_per_pair = prefix_tokens > 0 ? prefix * shape.num_layers / pairs : 0};
}

}  // namespace runahead
