// KvPageHeader: travels before each page on every transport; says whose page it is and what its bytes must hash to.
// 80 bytes, little-endian, layout in docs/wire.md. Parsing checks magic, version and its own CRC, nothing else: whether
// the page is wanted is the stream's question (transport/kv/kv_ledger.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/ids.h"
#include "base/result.h"
#include "transport/kv/kv_transport.h"

namespace runahead {

inline constexpr size_t kKvPageHeaderBytes = 80;

using PageMac = std::array<std::byte, 16>;

struct KvPageHeader {
  AttemptId attempt;
  StreamToken stream_token;
  KvPageKey key;
  uint32_t page_bytes = 0;
  uint32_t page_crc32c = 0;
  PageMac mac{};  // zeros where the lane is trusted (transport/kv/page_authenticator.h)
  bool operator==(const KvPageHeader&) const = default;
};

std::array<std::byte, kKvPageHeaderBytes> encode(const KvPageHeader& header);
// kCorrupt, or kIncompatible for another version.
Result<KvPageHeader> parse_page_header(std::span<const std::byte, kKvPageHeaderBytes> bytes);

}  // namespace runahead
