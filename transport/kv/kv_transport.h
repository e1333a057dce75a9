// KvTransport: moves K/V pages between workers. One interface, several means: memory (one process), TCP (Asio), UCX
// (shared memory, TCP, RDMA); tests/sim has a faulty one on virtual time.
//
//   life of a page   the receiver posts the buffers of the pages it wants (open_inbound) before it computes anything;
//                    the sender posts pages as they are made (post), each verified by identity and CRC32C on arrival;
//                    the receiver takes arrivals (next), uses them in place and posts them on at once (cut-through).
//   credit           no byte of a page leaves the sender before the receiver has posted its buffer. A receiver with memory for
//                    some of the layers opens those, and later ones as it has done with the first (open_layers). Unasked
//                    pages are never stored.
//   order            of the pages that are posted and may go, those of the lowest layer go first: they are needed first.
//   stream           one AttemptId on one hop. Both ends know the same page geometry: num_layers x pages of
//                    the prefix, less those that a layer's window does not reach.
//   owner            pages belong to leases (model/kv_pages.h); an open stream holds `pin`, a share of the lease, until
//                    close() has returned, so memory that a peer may still write is never given to somebody else.
//   threads          everything on the process's io_context thread. No call blocks.
//   failure          a stream that meets a lost peer, a page that fails its check, or a missed deadline ends with one
//                    Error (kWorkerLost, kCorrupt, kDeadlineExceeded); the actor fails the attempt. Nothing is retried
//                    here.
// Why the receiver posts: ADR 3. Formats: docs/wire.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/task.h"

namespace runahead {

// Which page of a stream. 12 bytes on the wire (transport/kv/kv_page_header.h).
struct KvPageKey {
  int32_t layer = 0;
  int32_t page = 0;  // tokens [64 page, 64 page + 64)
  auto operator<=>(const KvPageKey&) const = default;
};

// An address of several transports lists them with this between.
inline constexpr char kBetweenKvAddresses = ' ';
// The transport that an address is of: what stands before "://", or nothing.
inline std::string_view kv_transport_of(std::string_view address) {
  const size_t end = address.find("://");
  return end == std::string_view::npos ? std::string_view() : address.substr(0, end);
}

struct KvArrival {
  KvPageKey key;
  uint32_t crc32c = 0;  // verified; passed on unchanged when the page is forwarded (end-to-end check)
};

struct KvStreamStats {
  uint64_t pages = 0;
  uint64_t bytes = 0;
  double span_seconds = 0;  // from the first post to the last completion, pauses included
  // Of a sender, once every page is there: while bytes were on their way, without the pauses in which there was nothing to
  // send. 0: not measured, or too short to be.
  double wire_seconds = 0;
  double rtt_seconds = 0;  // of a sender: the least round trip that its transport saw; 0: it measures none
};

// The receiving end: buffers for the pages of every layer.
class KvInbound {
 public:
  virtual ~KvInbound() = default;  // close() first
  // The next page that has arrived and passed its check, in order of arrival. Each page arrives once. A stream that has
  // failed gives its error at once; asking for more pages than the stream has is kInvalidArgument. One caller at a
  // time.
  virtual Task<KvArrival> next(Deadline deadline) = 0;
  // Pages of layers [0, count) may come: their buffers are nobody else's any more. Never fewer than before.
  virtual void open_layers(int32_t count) = 0;
  // Gives up the pages that have not come. Returns when the transport will touch no buffer any more.
  virtual asio::awaitable<void> close() = 0;
  virtual KvStreamStats stats() const = 0;
};

// The sending end.
class KvOutbound {
 public:
  virtual ~KvOutbound() = default;  // close() first
  // Queues a page; its bytes must not change until its layer is sent (wait_for_sent_layers), or until close() or drain() has
  // returned. crc32c: known from the arrival, or taken by `checksum`. Errors surface in drain().
  virtual void post(KvPageKey key, std::span<const std::byte> page, std::optional<uint32_t> crc32c) = 0;
  // Returns when no page of layers [0, count) is read any more, or with the stream's error.
  virtual Task<void> wait_for_sent_layers(int32_t count, Deadline deadline) = 0;
  // Returns when every posted page has been handed over, or with the stream's error. When all of the stream's
  // pages are posted, handed over means that the receiver has verified every one of them.
  virtual Task<void> drain(Deadline deadline) = 0;
  // Abandons what is queued. Returns when the transport will read no posted page any more.
  virtual asio::awaitable<void> close() = 0;
  virtual KvStreamStats stats() const = 0;
};

// CRC32C of a page of the host's memory; valid while `pin` is held. Empty for pages of a device: their transport takes it there.
using KvChecksum = std::function<uint32_t(KvPageKey)>;

struct KvInboundParams {
  AttemptId attempt;
  StreamToken stream_token;  // only the right peer can open the stream
  std::string sender_address;  // KvTransport::address() of the rank before
  std::shared_ptr<const void> pin;  // share of the lease that owns the buffers
  std::function<std::span<std::byte>(KvPageKey)> buffer;  // where a page goes; valid while `pin` is held
  int32_t prefix_pages = 0;  // pages [first_pages[layer], prefix_pages) of each layer
  int32_t num_layers = 0;
  std::vector<int32_t> first_pages = {};  // [num_layers], or empty: 0
  int32_t layers_open = 0;  // from the first on, whose pages may come at once; 0: all
  size_t page_bytes = 0;
  KvChecksum checksum;  // of pages that have arrived
};

struct KvOutboundParams {
  AttemptId attempt;
  StreamToken stream_token;
  std::string receiver_address;  // KvTransport::address() of the rank after
  std::shared_ptr<const void> pin;  // share of the lease that owns the posted pages
  int32_t prefix_pages = 0;  // pages [first_pages[layer], prefix_pages) of each layer will be posted in all
  int32_t num_layers = 0;
  std::vector<int32_t> first_pages = {};  // [num_layers], or empty: 0
  size_t page_bytes = 0;
  KvChecksum checksum;  // of pages that are posted without one
};

class KvTransport {
 public:
  virtual ~KvTransport() = default;
  virtual std::string name() const = 0;  // "memory", "tcp", "ucx": metric label
  // One line for logs and `runahead doctor`: which lanes really carry the pages.
  virtual std::string describe() const { return name(); }
  // How peers reach this transport: "<transport>://<bytes of its own>"; opaque bytes to the coordinator. Contains an
  // incarnation, so a restarted peer on the same port is never taken for its predecessor.
  virtual std::string address() const = 0;
  // A listener on every address does not know which of them peers can use: its owner says it before peers are told.
  virtual void advertise(const std::string& /*host*/) {}
  // Once, before the first stream: the pool that all pages come from.
  virtual Result<void> register_memory(std::span<std::byte> pool) = 0;
  // Returns at once; connecting goes on inside and fails the stream if it cannot be done within
  // limits::kConnectTimeout.
  virtual Result<std::unique_ptr<KvInbound>> open_inbound(KvInboundParams params) = 0;
  virtual Result<std::unique_ptr<KvOutbound>> open_outbound(KvOutboundParams params) = 0;
  // No new streams; ends the background work. Every stream is closed before.
  virtual asio::awaitable<void> shutdown() = 0;
};

}  // namespace runahead
