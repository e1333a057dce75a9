#include "transport/kv/tcp_kv_streams.h"

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "transport/control/frame.h"
#include "transport/tcp_info.h"

namespace runahead {
namespace {

// Of one read or write: under 1 ms of copying and hashing, then others have a turn.
constexpr size_t kStepBytes = 1 << 20;
constexpr const char* kClosed = "the KV stream is closed";
constexpr const char* kNoProgress = "a KV page made no progress in time: the peer seems to be frozen";

Error unexpected_end(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return {ErrorCode::kInternal, std::string("a KV stream ended by an exception: ") + e.what(), {}};
  }
}

}  // namespace

TcpInStream::TcpInStream(asio::any_io_executor executor, Clock& clock, TcpKvTimeouts timeouts,
                         std::shared_ptr<TlsIdentity> identity, KvAddress sender, KvInboundParams params)
    : executor_(executor),
      clock_(clock),
      timeouts_(timeouts),
      identity_(std::move(identity)),
      sender_(std::move(sender)),
      ledger_(executor, clock, std::move(params)),
      socket_(executor),
      stall_(executor, clock, [this] { stop({ErrorCode::kDeadlineExceeded, kNoProgress, {}}); }),
      ended_(executor, clock) {}

std::shared_ptr<TcpInStream> TcpInStream::start(asio::any_io_executor executor, Clock& clock, TcpKvTimeouts timeouts,
                                                std::shared_ptr<TlsIdentity> identity, KvAddress sender,
                                                KvInboundParams params) {
  std::shared_ptr<TcpInStream> self(
      new TcpInStream(executor, clock, timeouts, std::move(identity), std::move(sender), std::move(params)));
  asio::co_spawn(executor, run(self), [self](std::exception_ptr error) {
    if (error) self->stop(unexpected_end(error));
    self->running_ = false;
    if (self->closed_) self->ledger_.release();
    self->ended_.notify();
  });
  return self;
}

void TcpInStream::stop(Error why) {
  ledger_.fail(std::move(why));
  stall_.cancel();
  close_socket(socket_.tcp());
}

void TcpInStream::abandon() {
  if (closed_) return;
  closed_ = true;
  stop({ErrorCode::kCancelled, kClosed, {}});
  if (!running_) ledger_.release();
}

asio::awaitable<void> TcpInStream::close() {
  const auto self = shared_from_this();
  abandon();
  while (running_) co_await ended_.wait();
}

asio::awaitable<void> TcpInStream::run(std::shared_ptr<TcpInStream> self) {
  auto received = co_await self->meet_sender();
  if (received) received = co_await self->receive_pages();
  self->stall_.stop();
  while (self->telling_) co_await self->ended_.wait();
  if (self->socket_.tcp().is_open()) {  // tells the sender how it ended; one that is gone does not matter any more
    const bool corrupt = !received && received.error().code == ErrorCode::kCorrupt;
    const auto reply = encode(corrupt ? StreamReply::kCorruptPage : StreamReply::kOk);
    if (received || corrupt) co_await asio::async_write(self->socket_, asio::buffer(reply), kAsTuple);
  }
  self->stop(received ? Error{} : received.error());
}

Task<void> TcpInStream::meet_sender() {
  const Deadline deadline = clock_.after(timeouts_.connect);
  auto connected = co_await connect_tcp(sender_.place, clock_, deadline);
  if (!connected && connected.error().code == ErrorCode::kUnavailable)
    co_return fail(ErrorCode::kWorkerLost, "the sender is gone: " + connected.error().message);
  Tcp::socket socket = CO_TRY(connected);
  if (closed_) co_return fail(ErrorCode::kCancelled, kClosed);
  socket_ = PeerSocket(std::move(socket));
  told_layers_ = ledger_.layers_open();
  stall_.start(deadline.at - clock_.now(), shared_from_this());
  auto greeted = co_await greet(told_layers_);
  CO_TRY(greeted);
  stall_.stop();
  met_ = true;
  open_layers(ledger_.layers_open());
  co_return Result<void>{};
}

Task<void> TcpInStream::greet(int32_t layers_open) {
  auto secured = co_await socket_.secure(identity_, PeerSocket::End::kConnected, PeerSocket::Peer::kWorker);
  if (!secured) co_return fail(ErrorCode::kWorkerLost, secured.error().message);
  const KvInboundParams& params = ledger_.params();
  const auto preamble = encode_preamble(Plane::kData);
  const auto hello = encode(
      StreamHello{params.attempt, params.stream_token, sender_.incarnation, ledger_.geometry().digest(), layers_open});
  const std::array<asio::const_buffer, 2> greeting = {asio::buffer(preamble), asio::buffer(hello)};
  std::array<std::byte, kPreambleBytes> their_preamble;
  std::array<std::byte, kStreamReplyBytes> reply;
  const std::array<asio::mutable_buffer, 2> answer = {asio::buffer(their_preamble), asio::buffer(reply)};
  auto [write_error, written] = co_await asio::async_write(socket_, greeting, kAsTuple);
  if (write_error) co_return std::unexpected(connection_lost("the sender", write_error));
  auto [read_error, read] = co_await asio::async_read(socket_, answer, kAsTuple);
  if (read_error) co_return std::unexpected(connection_lost("the sender", read_error));
  CO_TRY(check_preamble(their_preamble, Plane::kData));
  CO_TRY(parse_stream_reply(reply));
  co_return Result<void>{};
}

void TcpInStream::open_layers(int32_t count) {
  ledger_.open_layers(count);
  if (!met_ || telling_ || ledger_.layers_open() <= told_layers_) return;
  telling_ = true;
  asio::co_spawn(executor_, tell_layers(shared_from_this()), asio::detached);
}

// One at a time: a socket takes one write, and the reply that ends the stream comes behind.
asio::awaitable<void> TcpInStream::tell_layers(std::shared_ptr<TcpInStream> self) {
  while (self->told_layers_ < self->ledger_.layers_open()) {
    self->told_layers_ = self->ledger_.layers_open();
    const auto word = encode_layers_open(self->told_layers_);
    auto [error, size] = co_await asio::async_write(self->socket_, asio::buffer(word), kAsTuple);
    if (error) break;  // whoever reads finds out why
  }
  self->telling_ = false;
  self->ended_.notify();
}

Task<void> TcpInStream::receive_pages() {
  std::array<std::byte, kKvPageHeaderBytes> wire;
  while (!ledger_.complete()) {
    // Between pages the sender may compute for as long as it likes: the actor's deadline and the lease bound that.
    auto [error, size] = co_await asio::async_read(socket_, asio::buffer(wire), kAsTuple);
    if (error) co_return std::unexpected(connection_lost("the sender", error));
    const KvPageHeader header = CO_TRY(parse_page_header(wire));
    const std::span<std::byte> page = CO_TRY(ledger_.claim(header));
    auto read = co_await read_page(page);
    const uint32_t crc = CO_TRY(read);
    CO_TRY(ledger_.commit(header, crc));
  }
  co_return Result<void>{};
}

Task<uint32_t> TcpInStream::read_page(std::span<std::byte> page) {
  uint32_t crc = 0;
  stall_.start(timeouts_.transfer, shared_from_this());
  while (!page.empty()) {
    const auto step = page.first(std::min(page.size(), kStepBytes));
    auto [error, size] = co_await socket_.async_read_some(asio::buffer(step.data(), step.size()), kAsTuple);
    if (error) co_return std::unexpected(connection_lost("the sender", error));
    stall_.progress();
    crc = crc32c(page.first(size), crc);  // while the bytes are in the cache
    page = page.subspan(size);
  }
  stall_.stop();
  co_return crc;
}

TcpOutStream::TcpOutStream(asio::any_io_executor executor, Clock& clock, TcpKvTimeouts timeouts,
                           KvOutboundParams params)
    : executor_(executor),
      clock_(clock),
      timeouts_(timeouts),
      ledger_(executor, clock, std::move(params)),
      socket_(executor),
      stall_(executor, clock, [this] { stop({ErrorCode::kDeadlineExceeded, kNoProgress, {}}); }),
      ended_(executor, clock) {}

std::shared_ptr<TcpOutStream> TcpOutStream::start(asio::any_io_executor executor, Clock& clock, TcpKvTimeouts timeouts,
                                                  KvOutboundParams params) {
  std::shared_ptr<TcpOutStream> self(new TcpOutStream(executor, clock, timeouts, std::move(params)));
  self->spawn(expect_receiver(self));
  return self;
}

void TcpOutStream::spawn(asio::awaitable<void> work) {
  ++coroutines_;
  asio::co_spawn(executor_, std::move(work), [self = shared_from_this()](std::exception_ptr error) {
    if (error) self->stop(unexpected_end(error));
    --self->coroutines_;
    if (self->closed_ && self->coroutines_ == 0) self->ledger_.release();
    self->ended_.notify();
  });
}

void TcpOutStream::stop(Error why) {
  ledger_.fail(std::move(why));
  stall_.cancel();
  close_socket(socket_.tcp());
  ledger_.wake();
}

void TcpOutStream::abandon() {
  if (closed_) return;
  closed_ = true;
  stop({ErrorCode::kCancelled, kClosed, {}});
  if (coroutines_ == 0) ledger_.release();
}

asio::awaitable<void> TcpOutStream::close() {
  const auto self = shared_from_this();
  abandon();
  while (coroutines_ > 0) co_await ended_.wait();
}

asio::awaitable<void> TcpOutStream::expect_receiver(std::shared_ptr<TcpOutStream> self) {
  const Deadline deadline = self->clock_.after(self->timeouts_.connect);
  while (!self->attached_ && !self->closed_ && self->clock_.now() < deadline.at)
    co_await self->ledger_.wait_for_change(deadline);
  if (!self->attached_)
    self->stop({ErrorCode::kDeadlineExceeded, "no receiver opened its end of the KV stream in time", {}});
}

StreamReply TcpOutStream::attach(const StreamHello& hello, PeerSocket& socket) {
  if (hello.stream_token != ledger_.params().stream_token) return StreamReply::kWrongToken;
  if (attached_) return StreamReply::kAlreadyOpen;
  if (closed_ || ledger_.error()) return StreamReply::kUnknownStream;  // came too late
  if (hello.geometry != ledger_.geometry().digest()) {
    stop(error_of(StreamReply::kOtherGeometry));
    return StreamReply::kOtherGeometry;
  }
  attached_ = true;
  socket_ = std::move(socket);
  RUNAHEAD_CHECK(ledger_.open_layers(hello.layers_open).has_value(), "a greeting is checked");
  spawn(write_pages(shared_from_this()));
  spawn(read_replies(shared_from_this()));
  return StreamReply::kOk;
}

// A failed write is not reported here: the receiver may have said why, and read_replies finds that or the same failure.
asio::awaitable<void> TcpOutStream::write_pages(std::shared_ptr<TcpOutStream> self) {
  const auto preamble = encode_preamble(Plane::kData);
  const auto reply = encode(StreamReply::kOk);
  const std::array<asio::const_buffer, 2> greeting = {asio::buffer(preamble), asio::buffer(reply)};
  auto [error, size] = co_await asio::async_write(self->socket_, greeting, kAsTuple);
  if (error) co_return;
  KvOutboundLedger& ledger = self->ledger_;
  while (!ledger.all_taken() && !ledger.error()) {
    if (!ledger.has_page()) {
      co_await ledger.wait_for_change();
      continue;
    }
    const KvOutboundLedger::Page page = ledger.take();
    const bool written = co_await self->write_page(page.header, page.bytes);
    if (!written) co_return;
    ledger.sent(page);
  }
}

asio::awaitable<bool> TcpOutStream::write_page(KvPageHeader header, std::span<const std::byte> page) {
  const auto wire = encode(header);
  std::span<const std::byte> head = wire;
  stall_.start(timeouts_.transfer, shared_from_this());
  while (!head.empty() || !page.empty()) {
    const auto step = page.first(std::min(page.size(), kStepBytes));
    const std::array<asio::const_buffer, 2> buffers = {asio::buffer(head.data(), head.size()),
                                                       asio::buffer(step.data(), step.size())};
    auto [error, size] = co_await socket_.async_write_some(buffers, kAsTuple);
    if (error) co_return false;
    stall_.progress();
    const size_t from_head = std::min(size, head.size());
    head = head.subspan(from_head);
    page = page.subspan(size - from_head);
  }
  stall_.stop();
  co_return true;
}

asio::awaitable<void> TcpOutStream::read_replies(std::shared_ptr<TcpOutStream> self) {
  std::array<std::byte, kStreamReplyBytes> reply;
  for (;;) {
    auto [error, size] = co_await asio::async_read(self->socket_, asio::buffer(reply), kAsTuple);
    if (error) co_return self->stop(connection_lost("the receiver", error));
    const std::optional<int32_t> layers = parse_layers_open(reply);
    if (!layers) break;
    auto opened = self->ledger_.open_layers(*layers);
    if (!opened) co_return self->stop(opened.error());
  }
  auto parsed = parse_stream_reply(reply);
  if (!parsed) co_return self->stop(parsed.error());
  if (!self->ledger_.all_taken())
    co_return self->stop({ErrorCode::kCorrupt, "the receiver confirmed pages that it cannot have", {}});
  const int socket = self->socket_.tcp().native_handle();
  self->ledger_.confirm(tcp_busy_time(socket), tcp_round_trip(socket));
  self->stop({});
}

}  // namespace runahead
