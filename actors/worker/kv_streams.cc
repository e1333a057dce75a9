#include "actors/worker/kv_streams.h"

#include <algorithm>

namespace runahead {
namespace {

// The streams pin the lease for as long as they call this.
KvChecksum checksum_of(const KvLease* pages, int32_t first) {
  if (!pages->is_on_host()) return {};
  return [pages, first](KvPageKey key) { return pages->checksum(key.layer, first + key.page); };
}

// As the streams count them.
std::vector<int32_t> counted_from(int32_t first, std::vector<int32_t> pages) {
  for (int32_t& page : pages) page -= first;
  return pages;
}

}  // namespace

HopShape hop_shape(AttemptId attempt, const ModelShape& model, PageRange pages, int32_t reader, size_t page_bytes) {
  HopShape shape{attempt, model.num_layers, pages, page_bytes};
  if (model.windows.empty() || pages.begin == pages.end) return shape;
  for (int32_t layer = 0; layer < model.num_layers; ++layer)
    shape.first_pages.push_back(
        std::clamp(first_page_in_reach(reader, model.window(layer)), pages.begin, pages.end));
  return shape;
}

Result<void> PageSender::open(KvTransport& transport, const HopShape& shape, const KvHop& to,
                              std::shared_ptr<KvLease> kv) {
  kv_ = kv;
  first_ = shape.pages.begin;
  first_pages_ = shape.first_pages;
  stream_ = TRY(transport.open_outbound({.attempt = shape.attempt,
                                         .stream_token = to.stream_token,
                                         .receiver_address = to.address,
                                         .pin = std::move(kv),
                                         .prefix_pages = shape.pages.end - shape.pages.begin,
                                         .num_layers = shape.num_layers,
                                         .first_pages = counted_from(first_, first_pages_),
                                         .page_bytes = shape.page_bytes,
                                         .checksum = checksum_of(kv_.get(), first_)}));
  return {};
}

void PageSender::post(int32_t layer, PageRange pages) {
  for (int32_t page = pages.begin; page < pages.end; ++page) post({layer, page}, std::nullopt);
}

void PageSender::forward(const KvArrival& arrival) { post(arrival.key, arrival.crc32c); }

void PageSender::post(KvPageKey key, std::optional<uint32_t> crc32c) {
  const int32_t first = first_pages_.empty() ? first_ : first_pages_[static_cast<size_t>(key.layer)];
  if (closing_ || key.page < first) return;
  stream_->post({key.layer, key.page - first_}, kv_->page(key.layer, key.page), crc32c);
}

Task<void> PageSender::wait_for_sent_layers(int32_t count, Deadline deadline) {
  return stream_->wait_for_sent_layers(count, deadline);
}

Task<void> PageSender::drain(Deadline deadline) { return stream_->drain(deadline); }

asio::awaitable<void> PageSender::close() {
  closing_ = true;
  if (stream_) co_await stream_->close();
  stats_ = stats();
  kv_.reset();
}

Result<void> PrefixReceiver::open(KvTransport& transport, const HopShape& shape, const KvHop& from,
                                  std::shared_ptr<KvLease> kv) {
  manifest_ = shape.first_pages.empty() ? KvManifest(shape.num_layers, shape.pages.end, shape.pages.begin)
                                        : KvManifest(shape.pages.end, shape.first_pages);
  if (manifest_.complete()) return {};
  first_ = shape.pages.begin;
  KvLease* pages = kv.get();  // alive as long as the pin
  const auto buffer = [pages, first = first_](KvPageKey key) { return pages->page(key.layer, first + key.page); };
  stream_ = TRY(transport.open_inbound({.attempt = shape.attempt,
                                        .stream_token = from.stream_token,
                                        .sender_address = from.address,
                                        .pin = std::move(kv),
                                        .buffer = buffer,
                                        .prefix_pages = shape.pages.end - shape.pages.begin,
                                        .num_layers = shape.num_layers,
                                        .first_pages = counted_from(first_, shape.first_pages),
                                        .layers_open = pages->layers_at_once(),
                                        .page_bytes = shape.page_bytes,
                                        .checksum = checksum_of(pages, first_)}));
  return {};
}

Task<void> PrefixReceiver::relay(PageSender* downstream, Deadline deadline) {
  while (!manifest_.complete()) {
    Result<KvArrival> arrival = co_await stream_->next(deadline);
    if (arrival) arrival->key.page += first_;
    const Result<void> marked = arrival ? manifest_.mark(arrival->key) : std::unexpected(arrival.error());
    if (!marked) {
      error_ = marked.error();
      arrived_.notify();
      co_return marked;
    }
    ++*pages_come_;
    if (downstream != nullptr) downstream->forward(*arrival);
    arrived_.notify();
  }
  co_return Result<void>{};
}

Task<int32_t> PrefixReceiver::wait_for_pages(int32_t layer, int32_t have) {
  while (manifest_.ready_pages(layer) <= have) {
    if (error_) co_return std::unexpected(*error_);
    co_await arrived_.wait();
  }
  co_return manifest_.ready_pages(layer);
}

Task<void> PrefixReceiver::wait_until_complete() {
  while (!manifest_.complete()) {
    if (error_) co_return std::unexpected(*error_);
    co_await arrived_.wait();
  }
  co_return Result<void>{};
}

asio::awaitable<void> PrefixReceiver::close() {
  if (!manifest_.complete() && !error_) error_ = Error{ErrorCode::kCancelled, "the attempt has ended"};
  arrived_.notify();
  if (stream_) co_await stream_->close();
  stats_ = stats();
}

}  // namespace runahead
