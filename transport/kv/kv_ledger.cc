#include "transport/kv/kv_ledger.h"

#include <algorithm>

#include "base/check.h"

namespace runahead {

KvInboundLedger::KvInboundLedger(asio::any_io_executor executor, Clock& clock, KvInboundParams params)
    : clock_(clock),
      params_(std::move(params)),
      geometry_(geometry_of(params_)),
      layers_open_(params_.layers_open > 0 ? params_.layers_open : geometry_.num_layers),
      claimed_(geometry_.places()),
      changed_(std::move(executor), clock) {}

bool KvInboundLedger::open_layers(int32_t count) {
  RUNAHEAD_CHECK(count <= geometry_.num_layers, "layers are opened that there are not");
  const bool more = count > layers_open_;
  layers_open_ = std::max(layers_open_, count);
  return more && !error_ && !complete();
}

Result<std::span<std::byte>> KvInboundLedger::claim(const KvPageHeader& header) {
  if (error_) return std::unexpected(*error_);
  if (header.attempt != params_.attempt || header.stream_token != params_.stream_token)
    return runahead::fail(ErrorCode::kCorrupt, "a page of another stream arrived");
  if (!geometry_.contains(header.key) || header.page_bytes != geometry_.page_bytes)
    return runahead::fail(ErrorCode::kCorrupt, "a page arrived that this stream does not have");
  if (header.key.layer >= layers_open_)
    return runahead::fail(ErrorCode::kCorrupt, "a page arrived for which no buffer is posted");
  if (claimed_[geometry_.index(header.key)]) return runahead::fail(ErrorCode::kCorrupt, "a page arrived twice");
  const std::span<std::byte> buffer = params_.buffer(header.key);
  RUNAHEAD_CHECK(buffer.size() == geometry_.page_bytes, "a posted buffer has not the size of a page");
  claimed_[geometry_.index(header.key)] = true;
  if (!first_) first_ = clock_.now();
  return buffer;
}

Result<void> KvInboundLedger::commit(const KvPageHeader& header, uint32_t crc) {
  RUNAHEAD_CHECK(claimed_[geometry_.index(header.key)], "commit without claim");
  if (crc != header.page_crc32c)
    return runahead::fail(ErrorCode::kCorrupt, "page " + std::to_string(header.key.page) + " of layer " +
                                                   std::to_string(header.key.layer) + " fails its checksum");
  arrivals_.push_back({header.key, crc});
  ++stats_.pages;
  stats_.bytes += header.page_bytes;
  stats_.span_seconds = seconds(clock_.now() - *first_);
  changed_.notify();
  return {};
}

void KvInboundLedger::fail(Error error) {
  if (error_ || complete()) return;
  error_ = std::move(error);
  changed_.notify();
}

void KvInboundLedger::release() {
  params_.pin.reset();
  params_.buffer = nullptr;
  arrivals_.clear();
  if (!error_) error_ = Error{ErrorCode::kCancelled, "the KV stream is closed", {}};
  changed_.notify();
}

Task<KvArrival> KvInboundLedger::next(Deadline deadline) {
  while (arrivals_.empty() && !error_) {
    if (taken_ == static_cast<uint64_t>(geometry_.pages()))
      co_return runahead::fail(ErrorCode::kInvalidArgument, "every page of this KV stream has been taken");
    if (clock_.now() >= deadline.at)
      co_return runahead::fail(ErrorCode::kDeadlineExceeded, "no KV page arrived in time");
    co_await changed_.wait_until(deadline);
  }
  if (error_) co_return std::unexpected(*error_);
  const KvArrival arrival = arrivals_.front();
  arrivals_.pop_front();
  ++taken_;
  co_return arrival;
}

KvOutboundLedger::KvOutboundLedger(asio::any_io_executor executor, Clock& clock, KvOutboundParams params)
    : clock_(clock),
      params_(std::move(params)),
      geometry_(geometry_of(params_)),
      posted_(geometry_.places()),
      changed_(std::move(executor), clock) {
  for (int32_t layer = 0; layer < geometry_.num_layers; ++layer) unsent_.push_back(geometry_.pages_of(layer));
}

void KvOutboundLedger::post(KvPageKey key, std::span<const std::byte> page, std::optional<uint32_t> crc32c) {
  RUNAHEAD_CHECK(geometry_.contains(key), "a page was posted that the stream does not have");
  RUNAHEAD_CHECK(page.size() == geometry_.page_bytes, "a posted page has the wrong size");
  RUNAHEAD_CHECK(!posted_[geometry_.index(key)], "a page was posted twice");
  posted_[geometry_.index(key)] = true;
  ++num_posted_;
  if (error_) return;
  if (!first_) first_ = clock_.now();
  queue_[key.layer].push_back(
      {{params_.attempt, params_.stream_token, key, static_cast<uint32_t>(page.size()), crc32c.value_or(0)},
       page,
       crc32c.has_value()});
  changed_.notify();
}

Result<void> KvOutboundLedger::open_layers(int32_t count) {
  if (count > geometry_.num_layers)
    return runahead::fail(ErrorCode::kCorrupt, "the receiver opens layers that there are not");
  layers_open_ = std::max(layers_open_, count);
  changed_.notify();
  return {};
}

KvOutboundLedger::Page KvOutboundLedger::take() {
  const auto lowest = queue_.begin();
  Page page = lowest->second.front();
  lowest->second.pop_front();
  if (lowest->second.empty()) queue_.erase(lowest);
  in_flight_.begin(clock_.now());
  if (!page.crc_known && params_.checksum) {
    page.header.page_crc32c = params_.checksum(page.header.key);
    page.crc_known = true;
  }
  return page;
}

void KvOutboundLedger::sent(const Page& page) {
  in_flight_.end(clock_.now(), page.bytes.size());
  --unsent_[static_cast<size_t>(page.header.key.layer)];
  ++stats_.pages;
  stats_.bytes += page.bytes.size();
  stats_.span_seconds = seconds(clock_.now() - *first_);
  changed_.notify();
}

void KvOutboundLedger::confirm() { confirm(in_flight_.of(stats_.bytes)); }

void KvOutboundLedger::confirm(std::optional<Duration> wire_time, Duration round_trip) {
  confirmed_ = true;
  stats_.rtt_seconds = seconds(round_trip);
  stats_.wire_seconds = wire_time ? seconds(*wire_time) : 0;
  changed_.notify();
}

void KvOutboundLedger::fail(Error error) {
  if (error_ || confirmed_) return;
  error_ = std::move(error);
  queue_.clear();
  changed_.notify();
}

void KvOutboundLedger::release() {
  params_.pin.reset();
  queue_.clear();
  if (!error_) error_ = Error{ErrorCode::kCancelled, "the KV stream is closed", {}};
  changed_.notify();
}

Task<void> KvOutboundLedger::wait_until(std::function<bool()> done, const char* late, Deadline deadline) {
  while (!done() && !error_) {
    if (clock_.now() >= deadline.at) co_return runahead::fail(ErrorCode::kDeadlineExceeded, late);
    co_await changed_.wait_until(deadline);
  }
  if (error_) co_return std::unexpected(*error_);
  co_return Result<void>{};
}

Task<void> KvOutboundLedger::drain(Deadline deadline) {
  const auto handed_over = [this] {
    return queue_.empty() && in_flight_.num() == 0 && (num_posted_ < geometry_.pages() || confirmed_);
  };
  return wait_until(handed_over, "the receiver did not take every KV page in time", deadline);
}

Task<void> KvOutboundLedger::wait_for_sent_layers(int32_t count, Deadline deadline) {
  const auto sent = [this, count] {
    return std::ranges::all_of(std::span(unsent_).first(static_cast<size_t>(count)),
                               [](int32_t pages) { return pages == 0; });
  };
  return wait_until(sent, "the receiver did not take a layer's KV pages in time", deadline);
}

}  // namespace runahead
