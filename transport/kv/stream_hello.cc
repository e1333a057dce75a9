#include "transport/kv/stream_hello.h"

#include <algorithm>
#include <string>

#include "base/crc32c.h"
#include "base/limits.h"
#include "transport/little_endian.h"

namespace runahead {
namespace {

constexpr uint32_t kMagic = 0x484B4152;  // "RAKH"
constexpr uint32_t kLayersOpen = 0x80000000;  // the bit that tells it from a StreamReply

enum : size_t {
  kAtMagic = 0,
  kAtAttempt = 4,
  kAtEpoch = 8,
  kAtRequest = 16,
  kAtStreamToken = 24,
  kAtIncarnation = 40,
  kAtLayers = 48,
  kAtPages = 52,
  kAtPageBytes = 56,
  kAtFirstPages = 60,
  kAtLayersOpen = 64,
  kAtReserved = 68,  // 8 bytes, zero
  kAtCrc = 76,  // of bytes [0, 76)
};

bool is_bounded(int32_t num_layers, int32_t prefix_pages, uint64_t page_bytes) {
  return num_layers >= 1 && num_layers <= limits::kKvLayersMax && prefix_pages >= 1 &&
         prefix_pages <= limits::kKvPagesMax && page_bytes >= 1 && page_bytes <= limits::kPageBytesMax;
}

std::unexpected<Error> out_of_bounds(int32_t num_layers, int32_t prefix_pages, uint64_t page_bytes) {
  return fail(ErrorCode::kInvalidArgument, "a KV stream of " + std::to_string(num_layers) + " layers x " +
                                               std::to_string(prefix_pages) + " pages of " +
                                               std::to_string(page_bytes) + " bytes is outside of base/limits.h");
}

}  // namespace

int64_t KvGeometry::pages() const {
  int64_t count = static_cast<int64_t>(num_layers) * prefix_pages;
  for (const int32_t first : first_pages) count -= first;
  return count;
}

KvGeometryDigest KvGeometry::digest() const {
  KvGeometryDigest digest{num_layers, prefix_pages, static_cast<uint32_t>(page_bytes), 0};
  std::vector<std::byte> bytes(first_pages.size() * sizeof(uint32_t));
  for (size_t i = 0; i < first_pages.size(); ++i)
    store_le<uint32_t>(&bytes[i * sizeof(uint32_t)], static_cast<uint32_t>(first_pages[i]));
  if (!bytes.empty()) digest.first_pages_crc = crc32c(bytes);
  return digest;
}

Result<void> check_geometry(const KvGeometry& g) {
  const bool each = g.first_pages.empty() || std::ssize(g.first_pages) == g.num_layers;
  const auto is_page = [&](int32_t first) { return first >= 0 && first <= g.prefix_pages; };
  if (is_bounded(g.num_layers, g.prefix_pages, g.page_bytes) && each && std::ranges::all_of(g.first_pages, is_page) &&
      g.pages() > 0)
    return {};
  return out_of_bounds(g.num_layers, g.prefix_pages, g.page_bytes);
}

std::array<std::byte, kStreamHelloBytes> encode(const StreamHello& hello) {
  std::array<std::byte, kStreamHelloBytes> bytes{};
  store_le<uint32_t>(&bytes[kAtMagic], kMagic);
  store_le<uint32_t>(&bytes[kAtAttempt], hello.attempt.attempt);
  store_le<uint64_t>(&bytes[kAtEpoch], hello.attempt.epoch);
  store_le<uint64_t>(&bytes[kAtRequest], hello.attempt.request);
  store_token(&bytes[kAtStreamToken], hello.stream_token);
  store_le<uint64_t>(&bytes[kAtIncarnation], hello.incarnation);
  store_le<uint32_t>(&bytes[kAtLayers], static_cast<uint32_t>(hello.geometry.num_layers));
  store_le<uint32_t>(&bytes[kAtPages], static_cast<uint32_t>(hello.geometry.prefix_pages));
  store_le<uint32_t>(&bytes[kAtPageBytes], hello.geometry.page_bytes);
  store_le<uint32_t>(&bytes[kAtFirstPages], hello.geometry.first_pages_crc);
  store_le<uint32_t>(&bytes[kAtLayersOpen], static_cast<uint32_t>(hello.layers_open));
  store_le<uint32_t>(&bytes[kAtCrc], crc32c(std::span(bytes).first(kAtCrc)));
  return bytes;
}

Result<StreamHello> parse_stream_hello(std::span<const std::byte, kStreamHelloBytes> bytes) {
  const std::byte* at = bytes.data();
  if (load_le<uint32_t>(at + kAtMagic) != kMagic)
    return fail(ErrorCode::kCorrupt, "what should be a stream's greeting is none");
  if (load_le<uint32_t>(at + kAtCrc) != crc32c(bytes.first(kAtCrc)))
    return fail(ErrorCode::kCorrupt, "a stream's greeting fails its checksum");
  if (load_le<uint64_t>(at + kAtReserved) != 0)
    return fail(ErrorCode::kCorrupt, "a stream's greeting says what this release does not know");
  StreamHello hello;
  hello.attempt = {load_le<uint64_t>(at + kAtEpoch), load_le<uint64_t>(at + kAtRequest),
                   load_le<uint32_t>(at + kAtAttempt)};
  hello.stream_token = load_token(at + kAtStreamToken);
  hello.incarnation = load_le<uint64_t>(at + kAtIncarnation);
  hello.geometry = {static_cast<int32_t>(load_le<uint32_t>(at + kAtLayers)),
                    static_cast<int32_t>(load_le<uint32_t>(at + kAtPages)), load_le<uint32_t>(at + kAtPageBytes),
                    load_le<uint32_t>(at + kAtFirstPages)};
  const KvGeometryDigest& g = hello.geometry;
  if (!is_bounded(g.num_layers, g.prefix_pages, g.page_bytes))
    return fail(ErrorCode::kCorrupt, out_of_bounds(g.num_layers, g.prefix_pages, g.page_bytes).error().message);
  hello.layers_open = static_cast<int32_t>(load_le<uint32_t>(at + kAtLayersOpen));
  if (hello.layers_open < 1 || hello.layers_open > hello.geometry.num_layers)
    return fail(ErrorCode::kCorrupt, "a stream's greeting opens layers that there are not");
  return hello;
}

std::array<std::byte, kStreamReplyBytes> encode(StreamReply reply) {
  std::array<std::byte, kStreamReplyBytes> bytes;
  store_le<uint32_t>(bytes.data(), static_cast<uint32_t>(reply));
  return bytes;
}

Error error_of(StreamReply reply) {
  switch (reply) {
    case StreamReply::kOk:
      break;
    case StreamReply::kUnknownStream:
      return {ErrorCode::kDeadlineExceeded, "the sender did not open its end of the KV stream in time", {}};
    case StreamReply::kWrongToken:
      return {ErrorCode::kUnauthorized, "the peer refused the KV stream: its token is another one", {}};
    case StreamReply::kOtherGeometry:
      return {ErrorCode::kIncompatible, "the two ends of the KV stream disagree on layers, pages or page size", {}};
    case StreamReply::kOtherIncarnation:
      return {ErrorCode::kWorkerLost, "the worker at this address is not the one that was meant: it was restarted", {}};
    case StreamReply::kAlreadyOpen:
      return {ErrorCode::kStale, "the KV stream has been opened already by another receiver", {}};
    case StreamReply::kBusy:
      return {ErrorCode::kOverloaded, "the peer has too many KV streams open", {}};
    case StreamReply::kCorruptPage:
      return {ErrorCode::kCorrupt, "the receiver found a corrupt page", {}};
  }
  return {ErrorCode::kCorrupt, "the peer answered with an unknown reply", {}};
}

std::array<std::byte, kStreamReplyBytes> encode_layers_open(int32_t count) {
  std::array<std::byte, kStreamReplyBytes> bytes;
  store_le<uint32_t>(bytes.data(), kLayersOpen | static_cast<uint32_t>(count));
  return bytes;
}

std::optional<int32_t> parse_layers_open(std::span<const std::byte, kStreamReplyBytes> bytes) {
  const auto value = load_le<uint32_t>(bytes.data());
  if (value <= kLayersOpen) return std::nullopt;
  return static_cast<int32_t>(value & ~kLayersOpen);
}

Result<void> parse_stream_reply(std::span<const std::byte, kStreamReplyBytes> bytes) {
  const auto reply = static_cast<StreamReply>(load_le<uint32_t>(bytes.data()));
  if (reply == StreamReply::kOk) return {};
  return std::unexpected(error_of(reply));
}

}  // namespace runahead
