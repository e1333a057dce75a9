#include "transport/kv/page_authenticator.h"

#include <gtest/gtest.h>

#include <optional>

#include "base/crc32c.h"
#include "base/sha256.h"
#include "tests/transport/kv/kv_fixture.h"
#include "transport/kv/message_streams.h"

namespace runahead {
namespace {

constexpr StreamToken kSecret{1, 2};

std::vector<std::byte> some_page(size_t bytes) {
  Pages pages(1, 1, bytes);
  pages.fill(7);
  return pages.data;
}

// Other bytes with the same CRC32C: the generator polynomial, first bit first, is a multiple of itself.
void forge(std::span<std::byte> page) {
  constexpr uint64_t kGenerator = 0x11EDC6F41;
  for (size_t bit = 0; bit <= 32; ++bit)
    if (kGenerator >> (32 - bit) & 1) page[bit / 8] ^= std::byte(1 << bit % 8);
}

// The code by Python's cryptography 48: AESGCM(sha256(b"runahead page authentication" + token)[:16]).encrypt(nonce, b"", page).
TEST(PageAuthenticator, IsGmacOfThePageAtItsPlace) {
  std::vector<std::byte> page(300);
  for (size_t i = 0; i < page.size(); ++i) page[i] = static_cast<std::byte>(i);
  const PageMac mac = PageAuthenticator({0x0102030405060708, 0x1112131415161718}).of({3, 5}, page);
  EXPECT_EQ(hex({reinterpret_cast<const char*>(mac.data()), mac.size()}), "988e10196f39d3f02da200c0f5cfec90");
}

TEST(PageAuthenticator, DependsOnEveryBitThePlaceAndTheToken) {
  std::vector<std::byte> page = some_page(256);
  PageAuthenticator ours(kSecret);
  const PageMac mac = ours.of({1, 2}, page);
  EXPECT_EQ(PageAuthenticator(kSecret).of({1, 2}, page), mac);
  EXPECT_NE(ours.of({2, 2}, page), mac);
  EXPECT_NE(ours.of({1, 3}, page), mac);
  EXPECT_NE(PageAuthenticator({1, 3}).of({1, 2}, page), mac);
  EXPECT_NE(PageAuthenticator({2, 2}).of({1, 2}, page), mac);
  for (size_t bit = 0; bit < 8 * page.size(); ++bit) {
    page[bit / 8] ^= std::byte(1 << bit % 8);
    EXPECT_FALSE(ours.matches({.key = {1, 2}, .mac = mac}, page)) << bit;
    page[bit / 8] ^= std::byte(1 << bit % 8);
  }
  EXPECT_TRUE(ours.matches({.key = {1, 2}, .mac = mac}, page));
}

struct QuietEndpoint final : MessageEndpoint {
  void send_reply(StreamReply reply) override { replies.push_back(reply); }
  void send_layers_open(int32_t) override {}
  void send_page(const KvOutboundLedger::Page&, Done) override {}
  void close() override { closed = true; }
  bool is_closing() const override { return closed; }
  bool is_closed() const override { return closed; }
  std::vector<StreamReply> replies;
  bool closed = false;
};

// A page of 4,096 bytes is sent and arrives as `arrives`; the stream's error, if it has one.
std::optional<Error> receive(bool demands, bool signs, std::span<const std::byte> sent,
                             std::span<const std::byte> arrives) {
  asio::io_context io;
  AsioClock clock;
  auto context = std::make_shared<MessageStreamContext>(io.get_executor(), clock, std::chrono::seconds(5),
                                                        std::chrono::seconds(5));
  context->authenticate_pages = demands;
  Pages to(1, 1, sent.size());
  auto stream =
      std::make_shared<MessageInStream>(context, KvInboundParams{.attempt = kAttempt,
                                                                 .stream_token = kSecret,
                                                                 .pin = std::make_shared<int>(0),
                                                                 .buffer = [&to](KvPageKey key) { return to.at(key); },
                                                                 .prefix_pages = 1,
                                                                 .num_layers = 1,
                                                                 .page_bytes = sent.size(),
                                                                 .checksum = to.checksum()});
  auto endpoint = std::make_shared<QuietEndpoint>();
  stream->attach(endpoint);
  stream->start();
  stream->on_reply(encode(StreamReply::kOk));
  KvPageHeader header{kAttempt, kSecret, {0, 0}, static_cast<uint32_t>(sent.size()), crc32c(sent)};
  if (signs) header.mac = PageAuthenticator(kSecret).of(header.key, sent);
  stream->on_page(encode(header), sent.size(), [&](std::span<std::byte> buffer, MessageEndpoint::Done done) {
    std::ranges::copy(arrives, buffer.begin());
    done(nullptr, std::nullopt);
  });
  EXPECT_EQ(endpoint->replies.back() == StreamReply::kOk, !stream->ledger().error().has_value());
  const std::optional<Error> error = stream->ledger().error();
  stream->stop({ErrorCode::kCancelled, "the test ends", {}});
  io.run();
  return error;
}

TEST(PageAuthenticator, AForgedPageWithTheRightChecksumIsRefused) {
  const std::vector<std::byte> page = some_page(4096);
  std::vector<std::byte> forged = page;
  forge(forged);
  ASSERT_NE(forged, page);
  ASSERT_EQ(crc32c(forged), crc32c(page));
  EXPECT_EQ(receive(true, true, page, page), std::nullopt);
  EXPECT_EQ(receive(false, true, page, page), std::nullopt);
  EXPECT_EQ(receive(false, true, page, forged), std::nullopt) << "a checksum keeps out accidents alone";
  const auto refused = receive(true, true, page, forged);
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->code, ErrorCode::kUnauthorized);
  EXPECT_NE(refused->message.find("page 0 of layer 0"), std::string::npos);
}

TEST(PageAuthenticator, ASenderThatDoesNotAuthenticateIsRefusedWithWhatToDo) {
  const std::vector<std::byte> page = some_page(4096);
  const auto refused = receive(true, false, page, page);
  ASSERT_TRUE(refused.has_value());
  EXPECT_NE(refused->message.find("--authenticate-pages"), std::string::npos);
}

}  // namespace
}  // namespace runahead
