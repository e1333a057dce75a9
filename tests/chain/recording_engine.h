// RecordingEngine: a real engine that also remembers what it saw: the bytes of a sequence's pages in reach at its first decode
// step, and its logits. Two runs agree if they saw the same.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "model/engine.h"

namespace runahead::test {

struct Recording {
  std::mutex mutex;  // the lane writes, the test reads
  std::vector<std::byte> prompt_pages;  // all layers of the pages that the first decode step reads
  std::vector<float> decode_logits;  // of every decode step, one after the other
};

class RecordingEngine final : public Engine {
 public:
  RecordingEngine(std::unique_ptr<Engine> engine, Recording* recording)
      : engine_(std::move(engine)), recording_(recording) {}

  const ModelShape& shape() const override { return engine_->shape(); }
  size_t page_bytes() const override { return engine_->page_bytes(); }
  Result<std::unique_ptr<DevicePages>> device_pages(int64_t count) override { return engine_->device_pages(count); }
  DeviceAccess device() override { return engine_->device(); }
  const std::string& fingerprint() const override { return engine_->fingerprint(); }
  const std::string& compute_name() const override { return engine_->compute_name(); }
  std::unique_ptr<Hidden> embed(std::span<const TokenId> tokens) override { return engine_->embed(tokens); }
  int32_t rows_at_once() const override { return engine_->rows_at_once(); }
  void project_qkv(int32_t layer, Hidden& x, KvLease& kv, TokenRange chunk, RowRange rows) override {
    engine_->project_qkv(layer, x, kv, chunk, rows);
  }
  void wait() override { engine_->wait(); }
  bool publishes_later() const override { return engine_->publishes_later(); }
  void when_published(std::function<void()> call) override { engine_->when_published(std::move(call)); }
  void keep_last_row(Hidden& x) override { engine_->keep_last_row(x); }
  void attend(int32_t layer, Hidden& x, const KvLease& kv, TokenRange chunk, PageRange pages, RowRange rows) override {
    engine_->attend(layer, x, kv, chunk, pages, rows);
  }
  void finish_layer(int32_t layer, Hidden& x, RowRange rows) override { engine_->finish_layer(layer, x, rows); }
  void logits(Hidden& x, std::span<float> out) override { engine_->logits(x, out); }
  Result<void> score_rows(Hidden& x, RowRange rows, std::span<const TokenId> next, int32_t top,
                          std::span<SampledToken> out) override {
    return engine_->score_rows(x, rows, next, top, out);
  }

  void decode(std::span<const DecodeRow> batch, std::span<float> out) override {
    const std::lock_guard lock(recording_->mutex);
    const DecodeRow& row = batch.front();
    if (recording_->prompt_pages.empty())
      for (int32_t layer = 0; layer < row.kv->num_layers(); ++layer)
        for (int32_t page = first_page_in_reach(row.position, shape().window(layer)); page < pages_for(row.position);
             ++page) {
          const auto bytes = row.kv->page(layer, page);
          recording_->prompt_pages.insert(recording_->prompt_pages.end(), bytes.begin(), bytes.end());
        }
    engine_->decode(batch, out);
    recording_->decode_logits.insert(recording_->decode_logits.end(), out.begin(), out.end());
  }

 private:
  std::unique_ptr<Engine> engine_;
  Recording* recording_;  // of the test, outlives the engine
};

}  // namespace runahead::test
