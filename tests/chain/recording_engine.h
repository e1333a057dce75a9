// RecordingEngine: a real engine that also remembers what it saw of each sequence: the bytes of its pages in reach at its first
// decode step, and its logits. Two runs agree if they saw the same.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "model/engine.h"

namespace runahead::test {

struct Recording {
  struct Sequence {
    const KvLease* kv = nullptr;  // another one may come to lie there when it has gone
    int32_t position = 0;  // of its last step
    const std::byte* first_page = nullptr;
    std::vector<std::byte> prompt_pages;  // all layers of the pages that the first decode step reads
    std::vector<float> decode_logits;  // of every decode step, one after the other
  };
  std::mutex mutex;  // the lane writes, the test reads
  std::vector<Sequence> sequences;
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
    std::vector<size_t> places;  // of each row among the sequences
    for (const DecodeRow& row : batch) places.push_back(place_of(row));
    engine_->decode(batch, out);
    const size_t vocab = out.size() / batch.size();
    for (size_t i = 0; i < batch.size(); ++i) {
      std::vector<float>& logits = recording_->sequences[places[i]].decode_logits;
      const auto row = out.subspan(i * vocab, vocab);
      logits.insert(logits.end(), row.begin(), row.end());
    }
  }

 private:
  size_t place_of(const DecodeRow& row) {
    std::vector<Recording::Sequence>& all = recording_->sequences;
    for (size_t i = 0; i < all.size(); ++i)
      if (all[i].kv == row.kv && all[i].position + 1 == row.position) return all[i].position = row.position, i;
    Recording::Sequence& added = all.emplace_back();
    const int32_t first = first_page_in_reach(row.position, shape().window(0));
    added = {.kv = row.kv, .position = row.position, .first_page = row.kv->page(0, first).data()};
    for (int32_t layer = 0; layer < row.kv->num_layers(); ++layer)
      for (int32_t page = first_page_in_reach(row.position, shape().window(layer)); page < pages_for(row.position);
           ++page) {
        const auto bytes = row.kv->page(layer, page);
        added.prompt_pages.insert(added.prompt_pages.end(), bytes.begin(), bytes.end());
      }
    return all.size() - 1;
  }

  std::unique_ptr<Engine> engine_;
  Recording* recording_;  // of the test, outlives the engine
};

}  // namespace runahead::test
