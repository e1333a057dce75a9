#include "transport/kv/kv_page_header.h"

#include <algorithm>

#include "base/crc32c.h"
#include "transport/little_endian.h"

namespace runahead {
namespace {

constexpr uint32_t kMagic = 0x564B4152;  // "RAKV"
constexpr uint16_t kVersion = 2;

// Offsets of the fields.
enum : size_t {
  kAtMagic = 0,
  kAtVersion = 4,
  kAtHeaderBytes = 6,
  kAtEpoch = 8,
  kAtRequest = 16,
  kAtAttempt = 24,
  kAtLayer = 28,
  kAtPage = 32,
  kAtPageCrc = 36,
  kAtStreamToken = 40,
  kAtMac = 56,
  kAtPageBytes = 72,
  kAtHeaderCrc = 76,  // of bytes [0, 76)
};

}  // namespace

std::array<std::byte, kKvPageHeaderBytes> encode(const KvPageHeader& header) {
  std::array<std::byte, kKvPageHeaderBytes> bytes{};
  store_le<uint32_t>(&bytes[kAtMagic], kMagic);
  store_le<uint16_t>(&bytes[kAtVersion], kVersion);
  store_le<uint16_t>(&bytes[kAtHeaderBytes], kKvPageHeaderBytes);
  store_le<uint64_t>(&bytes[kAtEpoch], header.attempt.epoch);
  store_le<uint64_t>(&bytes[kAtRequest], header.attempt.request);
  store_le<uint32_t>(&bytes[kAtAttempt], header.attempt.attempt);
  store_le<uint32_t>(&bytes[kAtLayer], static_cast<uint32_t>(header.key.layer));
  store_le<uint32_t>(&bytes[kAtPage], static_cast<uint32_t>(header.key.page));
  store_le<uint32_t>(&bytes[kAtPageCrc], header.page_crc32c);
  store_token(&bytes[kAtStreamToken], header.stream_token);
  std::ranges::copy(header.mac, &bytes[kAtMac]);
  store_le<uint32_t>(&bytes[kAtPageBytes], header.page_bytes);
  store_le<uint32_t>(&bytes[kAtHeaderCrc], crc32c(std::span(bytes).first(kAtHeaderCrc)));
  return bytes;
}

Result<KvPageHeader> parse_page_header(std::span<const std::byte, kKvPageHeaderBytes> bytes) {
  const std::byte* at = bytes.data();
  if (load_le<uint32_t>(at + kAtMagic) != kMagic)
    return fail(ErrorCode::kCorrupt, "what should be a page header is none");
  if (load_le<uint32_t>(at + kAtHeaderCrc) != crc32c(bytes.first(kAtHeaderCrc)))
    return fail(ErrorCode::kCorrupt, "a page header fails its checksum");
  if (load_le<uint16_t>(at + kAtVersion) != kVersion || load_le<uint16_t>(at + kAtHeaderBytes) != kKvPageHeaderBytes)
    return fail(ErrorCode::kIncompatible, "the peer sends page headers of another version: install the same release");
  KvPageHeader header;
  header.attempt = {load_le<uint64_t>(at + kAtEpoch), load_le<uint64_t>(at + kAtRequest),
                    load_le<uint32_t>(at + kAtAttempt)};
  header.stream_token = load_token(at + kAtStreamToken);
  std::ranges::copy(bytes.subspan<kAtMac, sizeof(PageMac)>(), header.mac.begin());
  header.key = {static_cast<int32_t>(load_le<uint32_t>(at + kAtLayer)),
                static_cast<int32_t>(load_le<uint32_t>(at + kAtPage))};
  header.page_bytes = load_le<uint32_t>(at + kAtPageBytes);
  header.page_crc32c = load_le<uint32_t>(at + kAtPageCrc);
  return header;
}

}  // namespace runahead
