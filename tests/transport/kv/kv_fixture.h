// KvTest: several transports of one kind on one io_context, and page memory with known contents. The same test bodies
// run over every transport (kv_transport_test.cc, kv_failure_test.cc).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/crc32c.h"
#include "base/rng.h"
#include "tests/support/test_authority.h"
#include "tests/transport/kv/device_stream_double.h"
#include "tests/transport/run_loop.h"
#include "transport/kv/memory_kv_transport.h"
#include "transport/kv/select_transport.h"

namespace runahead {

inline constexpr AttemptId kAttempt{5, 6, 7};

// num_layers x num_pages pages in one allocation, as a lease of the pool gives them.
struct Pages {
  Pages(int32_t layers, int32_t pages, size_t bytes)
      : num_layers(layers), num_pages(pages), page_bytes(bytes), data(static_cast<size_t>(layers * pages) * bytes) {}

  std::span<std::byte> at(KvPageKey key) {
    const size_t index = static_cast<size_t>(key.layer * num_pages + key.page);
    return std::span(data).subspan(index * page_bytes, page_bytes);
  }
  KvChecksum checksum() {
    return [this](KvPageKey key) { return crc32c(at(key)); };
  }
  // By whole blocks, and without loops over bytes below: they were two thirds of what these tests take under a sanitizer.
  void fill(uint64_t seed) {
    SeededRng rng(seed);
    std::array<uint64_t, 512> block;
    for (uint64_t& word : block) word = rng.next();
    for (size_t at = 0; at < data.size(); at += sizeof(block), block[0] = rng.next())
      std::memcpy(&data[at], block.data(), std::min(sizeof(block), data.size() - at));
  }
  void overwrite(std::byte with) { std::memset(data.data(), static_cast<int>(with), data.size()); }
  bool none_is(std::byte b) const { return std::memchr(data.data(), static_cast<int>(b), data.size()) == nullptr; }
  bool all_are(std::byte b) const {
    return data.front() == b && std::memcmp(data.data(), data.data() + 1, data.size() - 1) == 0;
  }
  int32_t first_page(int32_t layer) const { return first_pages.empty() ? 0 : first_pages[static_cast<size_t>(layer)]; }
  int32_t count() const { return static_cast<int32_t>(keys(0).size()); }
  // All keys, in an order that the seed decides.
  std::vector<KvPageKey> keys(uint64_t seed) const {
    std::vector<KvPageKey> all;
    for (int32_t l = 0; l < num_layers; ++l)
      for (int32_t p = first_page(l); p < num_pages; ++p) all.push_back({l, p});
    std::shuffle(all.begin(), all.end(), std::mt19937_64(seed));
    return all;
  }

  int32_t num_layers, num_pages;
  size_t page_bytes;
  std::vector<std::byte> data;
  std::vector<int32_t> first_pages = {};  // of the layers, as a stream has them
};

// Every transport that there is, for ucx with the value of UCX_TLS after a colon: network and shared memory.
// nccl is that of tests/support/nccl; its memory and that of ipc are the host's.
// tls+: with an identity, and pages that are authenticated where they go outside of TLS.
inline const auto kTransports = testing::Values("memory", "tcp", "tls+tcp", "ucx:tcp,self",
                                                "ucx:posix,sysv,cma,tcp,self", "tls+ucx:tcp,self", "nccl", "ipc");

class KvTest : public testing::TestWithParam<const char*> {
 protected:
  static constexpr StreamToken kToken{0x1234567890abcdef, 0xfedcba0987654321};

  // Parameter: one of kTransports.
  void SetUp() override {
    name_ = GetParam();
    if (name_.starts_with("tls+")) {
      name_.erase(0, 4);
      authenticates_ = true;
      identity_ =
          *TlsIdentity::open(test::TestAuthority().files("worker", TlsRole::kPrefill), TlsRole::kPrefill, loop.clock());
    }
    if (const size_t colon = name_.find(':'); colon != std::string::npos) {
      setenv("UCX_TLS", name_.substr(colon + 1).c_str(), 1);
      name_.resize(colon);
    }
    setenv("RUNAHEAD_NCCL_LIBRARY", RUNAHEAD_BINARY_DIR "/tests/support/nccl/librunahead_nccl_double.so", 1);
    auto probe = make_kv_transport(name_, options(), loop.executor(), loop.clock());
    if (!probe && probe.error().code == ErrorCode::kUnsupported) GTEST_SKIP() << probe.error().message;
    ASSERT_TRUE(probe.has_value()) << probe.error().message;
  }

  KvTransportOptions options() {
    KvTransportOptions o;
    o.incarnation = ++last_incarnation_;
    o.hub = hub;
    o.identity = identity_;
    o.authenticate_pages = authenticates_;
    o.device = device_double();
    o.connect_timeout = connect_timeout;
    o.transfer_timeout = transfer_timeout;
    return o;
  }
  // Registers the memory that its pages will come from.
  std::unique_ptr<KvTransport> make(std::vector<std::byte>& pool) {
    auto made = make_kv_transport(name_, options(), loop.executor(), loop.clock());
    EXPECT_TRUE(made.has_value()) << (made ? "" : made.error().message);
    // With ipc pages are found by their place in the pool: all memory, for tests have pages in several places.
    const std::span<std::byte> all(reinterpret_cast<std::byte*>(1), SIZE_MAX / 2);
    EXPECT_TRUE((*made)->register_memory(is("ipc") ? all : std::span(pool)).has_value());
    return std::move(*made);
  }
  KvInboundParams inbound(Pages& pages, const KvTransport& sender, AttemptId attempt, StreamToken token = kToken) {
    return {.attempt = attempt,
            .stream_token = token,
            .sender_address = sender.address(),
            .pin = std::make_shared<int>(0),
            .buffer = [&pages](KvPageKey key) { return pages.at(key); },
            .prefix_pages = pages.num_pages,
            .num_layers = pages.num_layers,
            .first_pages = pages.first_pages,
            .page_bytes = pages.page_bytes,
            .checksum = is("nccl") || is("ipc") ? KvChecksum{} : pages.checksum()};
  }
  KvOutboundParams outbound(Pages& pages, const KvTransport& receiver, AttemptId attempt, StreamToken token = kToken) {
    return {.attempt = attempt,
            .stream_token = token,
            .receiver_address = receiver.address(),
            .pin = std::make_shared<int>(0),
            .prefix_pages = pages.num_pages,
            .num_layers = pages.num_layers,
            .first_pages = pages.first_pages,
            .page_bytes = pages.page_bytes,
            .checksum = is("nccl") || is("ipc") ? KvChecksum{} : pages.checksum()};
  }
  bool is(const char* name) const { return name_ == name; }

  std::string name_;
  RunLoop loop;
  std::shared_ptr<MemoryKvHub> hub = std::make_shared<MemoryKvHub>();
  Duration connect_timeout = limits::kConnectTimeout;
  Duration transfer_timeout = limits::kPageTransferTimeout;

  std::shared_ptr<TlsIdentity> identity_;  // of the transports to come

 private:
  bool authenticates_ = false;
  uint64_t last_incarnation_ = 100;
};

inline std::string param_name(const testing::TestParamInfo<const char*>& info) {
  std::string text = info.param;
  for (char& c : text)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return text;
}

// Takes every page of a stream, checks that each comes once, and gives the first error.
inline Task<void> take_all(KvInbound* in, int64_t count, Deadline deadline) {
  std::vector<KvPageKey> seen;
  for (int64_t i = 0; i < count; ++i) {
    auto arrival = co_await in->next(deadline);
    CO_TRY(arrival);
    seen.push_back(arrival->key);
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end()) << "a page came twice";
  co_return Result<void>{};
}

template <class T>
void expect_code(const Result<T>& result, ErrorCode code) {
  ASSERT_FALSE(result.has_value()) << "expected " << name(code);
  EXPECT_EQ(name(result.error().code), name(code)) << result.error().message;
}

template <class T>
void expect_ok(const Result<T>& result) {
  EXPECT_TRUE(result.has_value()) << (result.has_value() ? std::string() : result.error().message);
}

}  // namespace runahead
