// How the two ends of a KV stream meet: the receiver says who it is and what it has posted (StreamHello), the sender
// answers with a StreamReply, and the receiver ends the stream with another one; before that it may say that more layers are
// posted now (LayersOpen). 80, 4 and 4 bytes, docs/wire.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "transport/kv/kv_transport.h"

namespace runahead {

// A geometry as the two ends compare it.
struct KvGeometryDigest {
  int32_t num_layers = 0;
  int32_t prefix_pages = 0;
  uint32_t page_bytes = 0;
  uint32_t first_pages_crc = 0;  // CRC32C of KvGeometry::first_pages as little-endian numbers; 0: there are none
  bool operator==(const KvGeometryDigest&) const = default;
};

// What both ends of a stream must agree on: pages [first_page(layer), prefix_pages) of every layer.
struct KvGeometry {
  int32_t num_layers = 0;
  int32_t prefix_pages = 0;
  uint64_t page_bytes = 0;
  std::vector<int32_t> first_pages = {};  // [num_layers], or empty: 0
  bool operator==(const KvGeometry&) const = default;

  KvGeometryDigest digest() const;
  int32_t first_page(int32_t layer) const { return first_pages.empty() ? 0 : first_pages[static_cast<size_t>(layer)]; }
  int32_t pages_of(int32_t layer) const { return prefix_pages - first_page(layer); }
  int64_t pages() const;
  bool contains(KvPageKey key) const {
    return key.layer >= 0 && key.layer < num_layers && key.page >= first_page(key.layer) && key.page < prefix_pages;
  }
  // Below places().
  size_t index(KvPageKey key) const {
    return static_cast<size_t>(key.layer) * static_cast<size_t>(prefix_pages) + static_cast<size_t>(key.page);
  }
  size_t places() const { return static_cast<size_t>(num_layers) * static_cast<size_t>(prefix_pages); }
};

// Within limits::kKvLayersMax, kKvPagesMax and kPageBytesMax, and not empty; else kInvalidArgument.
Result<void> check_geometry(const KvGeometry& geometry);

inline constexpr size_t kStreamHelloBytes = 80;

struct StreamHello {
  AttemptId attempt;
  StreamToken stream_token;
  uint64_t incarnation = 0;  // of the sender that is meant
  KvGeometryDigest geometry;
  int32_t layers_open = 0;  // from the first on, whose buffers are posted: 1 to geometry.num_layers
  bool operator==(const StreamHello&) const = default;
};

std::array<std::byte, kStreamHelloBytes> encode(const StreamHello& hello);
// kCorrupt; the geometry is checked too.
Result<StreamHello> parse_stream_hello(std::span<const std::byte, kStreamHelloBytes> bytes);

inline constexpr size_t kStreamReplyBytes = 4;

// Values are the wire's; new ones are added at the end.
enum class StreamReply : uint32_t {
  kOk = 0,  // sender: pages follow; receiver: every page has come and passed its check
  kUnknownStream = 1,  // nobody opened the sending end in time
  kWrongToken = 2,
  kOtherGeometry = 3,
  kOtherIncarnation = 4,  // the process that is meant has been restarted
  kAlreadyOpen = 5,
  kBusy = 6,
  kCorruptPage = 7,
};

std::array<std::byte, kStreamReplyBytes> encode(StreamReply reply);
// What a reply other than kOk means to the one who reads it.
Error error_of(StreamReply reply);
// From the receiver, any number of times between hello and last reply: layers [0, count) are posted now.
std::array<std::byte, kStreamReplyBytes> encode_layers_open(int32_t count);
// The count, at least 1; nothing if the bytes are a StreamReply.
std::optional<int32_t> parse_layers_open(std::span<const std::byte, kStreamReplyBytes> bytes);

// kOk gives a value, every other reply and unknown numbers an Error.
Result<void> parse_stream_reply(std::span<const std::byte, kStreamReplyBytes> bytes);

}  // namespace runahead
