// KvInboundLedger, KvOutboundLedger: what the two ends of a stream know about their pages, the same for all transports:
// which pages are wanted, under way, arrived or queued, the stream's one error, its statistics, and who waits for what.
// A transport moves bytes and reports here. Both live on the io_context thread, in the state that the transport's
// coroutines share.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "base/async/wake.h"
#include "transport/kv/kv_page_header.h"
#include "transport/kv/stream_hello.h"

namespace runahead {

inline KvGeometry geometry_of(const KvInboundParams& p) {
  return {p.num_layers, p.prefix_pages, p.page_bytes, p.first_pages};
}
inline KvGeometry geometry_of(const KvOutboundParams& p) {
  return {p.num_layers, p.prefix_pages, p.page_bytes, p.first_pages};
}

class KvInboundLedger {
 public:
  KvInboundLedger(asio::any_io_executor executor, Clock& clock, KvInboundParams params);

  const KvInboundParams& params() const { return params_; }
  const KvGeometry& geometry() const { return geometry_; }
  // More layers are posted. True if the sender is to be told so.
  bool open_layers(int32_t count);
  int32_t layers_open() const { return layers_open_; }
  // The buffer of an announced page; from now on it is under way. kCorrupt: not this stream's, not posted, or a second
  // time.
  Result<std::span<std::byte>> claim(const KvPageHeader& header);
  // The page of a claimed header is in its buffer. kCorrupt if its checksum is not the announced one. crc: where the
  // transport has seen all bytes on their way.
  Result<void> commit(const KvPageHeader& header) { return commit(header, params_.checksum(header.key)); }
  Result<void> commit(const KvPageHeader& header, uint32_t crc);
  // The stream's one error: the first counts, and none counts after the last page has arrived.
  void fail(Error error);
  const std::optional<Error>& error() const { return error_; }
  bool complete() const { return stats_.pages == static_cast<uint64_t>(geometry_.pages()); }
  // Frees the pin: nothing touches the buffers any more.
  void release();

  Task<KvArrival> next(Deadline deadline);
  KvStreamStats stats() const { return stats_; }

 private:
  Clock& clock_;
  KvInboundParams params_;
  KvGeometry geometry_;
  int32_t layers_open_;
  std::vector<bool> claimed_;  // [places()]
  std::deque<KvArrival> arrivals_;
  uint64_t taken_ = 0;
  std::optional<Error> error_;
  std::optional<Time> first_;
  KvStreamStats stats_;
  Wake changed_;
};

// How long bytes take on their way, of transports that say of each page when it has arrived. Only long stretches count in which
// something was always under way: in short ones the delays of two event loops are longer than the wire's time. (ADR 20)
class WireTime {
 public:
  static constexpr Duration kStretchMin = std::chrono::milliseconds(10);
  static constexpr Duration kTotalMin = std::chrono::milliseconds(40);  // as for TCP (transport/tcp_info.h)

  void begin(Time now) {
    if (num_++ == 0) since_ = now;
  }
  void end(Time now, size_t bytes) {
    stretch_bytes_ += bytes;
    if (--num_ > 0) return;
    if (now - since_ >= kStretchMin) {
      counted_ += now - since_;
      counted_bytes_ += stretch_bytes_;
    }
    stretch_bytes_ = 0;
  }
  // What is under way has only now a way to go by.
  void restart(Time now) {
    if (num_ > 0) since_ = now;
  }
  int num() const { return num_; }
  // Of all bytes, at the speed of those that count; nothing if they are too few.
  std::optional<Duration> of(uint64_t bytes) const {
    if (counted_ < kTotalMin || counted_bytes_ == 0) return std::nullopt;
    return from_seconds(seconds(counted_) * static_cast<double>(bytes) / static_cast<double>(counted_bytes_));
  }

 private:
  int num_ = 0;
  Time since_{};
  size_t stretch_bytes_ = 0;
  Duration counted_{};
  uint64_t counted_bytes_ = 0;
};

class KvOutboundLedger {
 public:
  struct Page {
    KvPageHeader header;
    std::span<const std::byte> bytes;
    bool crc_known = false;
  };

  KvOutboundLedger(asio::any_io_executor executor, Clock& clock, KvOutboundParams params);

  const KvOutboundParams& params() const { return params_; }
  const KvGeometry& geometry() const { return geometry_; }
  // Dies on a page that the stream does not have, or that was posted before: the caller is this process.
  void post(KvPageKey key, std::span<const std::byte> page, std::optional<uint32_t> crc32c);
  // The receiver has posted layers [0, count): none before it has come. kCorrupt: there are not so many.
  Result<void> open_layers(int32_t count);
  // Is there one that may go?
  bool has_page() const { return !queue_.empty() && queue_.begin()->first < layers_open_; }
  // The next page to hand over, one of the lowest layer, with its CRC unless that is the transport's to take. It is under way
  // until sent(), also when the stream fails meanwhile.
  Page take();
  void sent(const Page& page);
  bool all_taken() const { return num_posted_ == geometry_.pages() && queue_.empty(); }
  // The way to the receiver stands: until now nothing was on the wire.
  void restart_wire_time() { in_flight_.restart(clock_.now()); }
  // The receiver has verified every page. wire_time: by the transport's own measure; else that of WireTime.
  void confirm();
  void confirm(std::optional<Duration> wire_time, Duration round_trip = Duration{0});
  bool confirmed() const { return confirmed_; }
  void fail(Error error);  // as in KvInboundLedger; drops the queue
  const std::optional<Error>& error() const { return error_; }
  void release();

  // Returns at any change of this object and at wake(), and may return early.
  asio::awaitable<void> wait_for_change() { return changed_.wait(); }
  asio::awaitable<bool> wait_for_change(Deadline deadline) { return changed_.wait_until(deadline); }
  void wake() { changed_.notify(); }
  Task<void> drain(Deadline deadline);
  Task<void> wait_for_sent_layers(int32_t count, Deadline deadline);
  KvStreamStats stats() const { return stats_; }

 private:
  // Until done(), or the stream's error; `late`: what the deadline means.
  Task<void> wait_until(std::function<bool()> done, const char* late, Deadline deadline);

  Clock& clock_;
  KvOutboundParams params_;
  KvGeometry geometry_;
  std::vector<bool> posted_;  // [places()]
  int64_t num_posted_ = 0;
  int32_t layers_open_ = 0;
  std::map<int32_t, std::deque<Page>> queue_;  // by layer; none is empty
  std::vector<int32_t> unsent_;  // [num_layers] pages
  WireTime in_flight_;  // taken, not yet sent
  bool confirmed_ = false;
  std::optional<Error> error_;
  std::optional<Time> first_;
  KvStreamStats stats_;
  Wake changed_;
};

}  // namespace runahead
