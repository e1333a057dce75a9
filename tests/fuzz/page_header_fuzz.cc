// The data plane's fixed messages: what parses must encode to the same bytes, and stay within its bounds. A checksum
// would keep the fuzzer out, so each input is tried as it is and with its checksum put right.
#include <cstdlib>
#include <cstring>

#include "base/crc32c.h"
#include "base/limits.h"
#include "transport/kv/kv_page_header.h"
#include "transport/kv/stream_hello.h"
#include "transport/kv/tcp_kv_streams.h"
#include "transport/little_endian.h"

namespace {

using Wire = std::array<std::byte, 80>;
static_assert(runahead::kKvPageHeaderBytes == 80 && runahead::kStreamHelloBytes == 80);

void check(bool condition) {
  if (!condition) std::abort();
}

void try_both(const Wire& wire) {
  const auto header = runahead::parse_page_header(wire);
  if (header) check(runahead::encode(*header) == wire);
  const auto hello = runahead::parse_stream_hello(wire);
  if (!hello) return;
  check(runahead::encode(*hello) == wire);
  check(hello->geometry.page_bytes <= runahead::limits::kPageBytesMax);
  check(hello->geometry.num_layers >= 1 && hello->geometry.num_layers <= runahead::limits::kKvLayersMax);
  check(hello->geometry.prefix_pages >= 1 && hello->geometry.prefix_pages <= runahead::limits::kKvPagesMax);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)runahead::parse_kv_address({reinterpret_cast<const char*>(data), size});
  Wire wire{};
  std::memcpy(wire.data(), data, std::min(size, wire.size()));
  (void)runahead::parse_stream_reply(std::span(wire).first<runahead::kStreamReplyBytes>());
  try_both(wire);
  runahead::store_le<uint32_t>(&wire[76], runahead::crc32c(std::span(wire).first(76)));
  try_both(wire);
  for (const char* magic : {"RAKV", "RAKH"}) {
    std::memcpy(wire.data(), magic, 4);
    runahead::store_le<uint32_t>(&wire[76], runahead::crc32c(std::span(wire).first(76)));
    try_both(wire);
  }
  return 0;
}
