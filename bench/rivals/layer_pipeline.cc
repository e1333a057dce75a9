// A chunked pipeline: each rank has some of the layers, and the chunks of the prompt stream through the ranks, so that rank 1
// works on the first chunk while rank 0 works on the second. What is sent is the rows between two layers instead of keys and
// values; they are in fp32, as the engine computes them, so that the tokens are the same. Chunks may be even, or shrink so
// that each takes the same time although the later ones see more: `cuts` decides.
#include <cstring>

#include "bench/rivals/schemes.h"
#include "model/transformer/activations.h"

namespace runahead::rivals {
namespace {

struct Stage {
  int32_t layer_begin, layer_end;
  size_t row_bytes;  // of the padded row
  AlignedBuffer* in = nullptr;  // [prompt in whole pages, padded model_dim]; rank 0 has none
  AlignedBuffer* out = nullptr;  // the same; the last rank has none
};

void load_rows(Activations& x, const std::byte* from, size_t row_bytes) {
  for (int32_t r = 0; r < x.rows(); ++r) std::memcpy(x.row(r), from + static_cast<size_t>(r) * row_bytes, row_bytes);
}

void store_rows(Activations& x, std::byte* to, size_t row_bytes) {
  for (int32_t r = 0; r < x.rows(); ++r) std::memcpy(to + static_cast<size_t>(r) * row_bytes, x.row(r), row_bytes);
}

// One chunk through this rank's layers. Of the last chunk only the last row passes the last layer, of the others none.
std::unique_ptr<Hidden> run_stage(RankRun& run, Stage& stage, TokenRange chunk) {
  const size_t at = static_cast<size_t>(chunk.begin) * stage.row_bytes;
  std::unique_ptr<Hidden> hidden = run.engine().embed(run.tokens_of(chunk));
  auto& x = static_cast<Activations&>(*hidden);
  if (run.rank() > 0) load_rows(x, stage.in->data() + at, stage.row_bytes);
  RowRange rows{0, chunk.size()};
  for (int32_t layer = stage.layer_begin; layer < stage.layer_end; ++layer) {
    run.engine().project_qkv(layer, x, run.kv(), chunk, rows);
    if (layer + 1 == run.num_layers()) {
      if (chunk != run.chunks().back()) return hidden;
      run.engine().keep_last_row(x);
      rows = {0, 1};
    }
    run.engine().attend(layer, x, run.kv(), chunk, {0, chunk.end_page()}, rows);
    run.engine().finish_layer(layer, x, rows);
  }
  if (!run.is_last()) store_rows(x, stage.out->data() + at, stage.row_bytes);
  return hidden;
}

}  // namespace

Task<void> run_layer_pipeline(RankRun& run) {
  const auto layer_of = [&run](int32_t rank) {
    return static_cast<int32_t>(int64_t{run.num_layers()} * rank / run.ranks());
  };
  Stage stage{.layer_begin = layer_of(run.rank()),
              .layer_end = layer_of(run.rank() + 1),
              .row_bytes = static_cast<size_t>(PaddedShape(run.engine().shape()).model_dim) * sizeof(float)};
  if (run.ranks() > run.num_layers())
    co_return fail(ErrorCode::kInvalidArgument, "a pipeline has at most as many ranks as the model has layers",
                   "peers");
  const int32_t pieces = run.total_pages();
  const size_t bytes = stage.row_bytes * kPageTokens * static_cast<size_t>(pieces);
  HopIn* in = nullptr;
  HopOut* out = nullptr;
  if (run.rank() > 0) in = &run.receive_pieces_from(run.rank() - 1, *(stage.in = &run.keep(bytes)), pieces);
  if (!run.is_last()) out = &run.send_pieces_to(run.rank() + 1, *(stage.out = &run.keep(bytes)), pieces);
  CO_TRY(run.open());
  std::unique_ptr<Hidden> x;
  for (const TokenRange chunk : run.chunks()) {
    if (in != nullptr) {
      Result<void> come = co_await run.wait(*in, 0, chunk.end_page());
      CO_TRY(come);
    }
    co_await run.compute([&] { x = run_stage(run, stage, chunk); });
    if (out != nullptr) out->post(0, chunk.first_page(), chunk.end_page());
  }
  if (run.is_last()) co_await run.first_token(*x);
  co_return Result<void>{};
}

}  // namespace runahead::rivals
