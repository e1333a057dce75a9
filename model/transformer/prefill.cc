#include "model/transformer/prefill.h"

#include <string>

#include "base/check.h"

namespace runahead {
namespace {

std::unique_ptr<Hidden> run(Engine& engine, KvLease& kv, std::span<const TokenId> tokens, bool only_last_row) {
  const TokenRange all{0, static_cast<int32_t>(tokens.size())};
  std::unique_ptr<Hidden> x = engine.embed(tokens);
  RowRange rows{0, all.size()};
  for (int32_t layer = 0; layer < engine.shape().num_layers; ++layer) {
    engine.project_qkv(layer, *x, kv, all, rows);
    if (only_last_row && layer + 1 == engine.shape().num_layers) {
      engine.keep_last_row(*x);
      rows = {0, 1};
    }
    engine.attend(layer, *x, kv, all, {0, all.end_page()}, rows);
    engine.finish_layer(layer, *x, rows);
  }
  return x;
}

}  // namespace

SequenceCache::SequenceCache(Engine& engine, int32_t tokens, int32_t sequences)
    : num_layers_(engine.shape().num_layers) {
  auto pool = make_kv_pool(engine, static_cast<int64_t>(pages_for(tokens)) * num_layers_ * sequences);
  RUNAHEAD_CHECK(pool.has_value(), "there is room for the pages of these sequences");
  pool_ = std::move(*pool);
}

Result<std::shared_ptr<KvLease>> SequenceCache::lease(int32_t tokens) { return pool_->lease(num_layers_, tokens); }

std::unique_ptr<Hidden> run_layers(Engine& engine, KvLease& kv, std::span<const TokenId> tokens) {
  return run(engine, kv, tokens, false);
}

std::vector<float> prefill(Engine& engine, KvLease& kv, std::span<const TokenId> tokens) {
  const std::unique_ptr<Hidden> x = run(engine, kv, tokens, true);
  std::vector<float> logits(static_cast<size_t>(engine.shape().vocab_size));
  engine.logits(*x, logits);
  return logits;
}

Result<void> check_tokens(const Engine& engine, std::span<const TokenId> tokens) {
  if (tokens.empty()) return fail(ErrorCode::kInvalidArgument, "the list of tokens is empty", "tokens");
  const ModelShape& shape = engine.shape();
  if (tokens.size() > static_cast<size_t>(shape.context_len))
    return fail(ErrorCode::kContextOverflow,
                std::to_string(tokens.size()) + " tokens do not fit the model's context of " +
                    std::to_string(shape.context_len),
                "tokens");
  for (size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= shape.vocab_size)
      return fail(ErrorCode::kInvalidArgument,
                  "token " + std::to_string(tokens[i]) + " at place " + std::to_string(i) +
                      " is outside the vocabulary of " + std::to_string(shape.vocab_size),
                  "tokens");
  return {};
}

}  // namespace runahead
