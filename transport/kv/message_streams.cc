#include "transport/kv/message_streams.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <string>

#include "base/check.h"
#include "base/limits.h"

namespace runahead {
namespace {

constexpr int kPagesUnderWay = 4;  // of one stream: the next rendezvous begins while the last one ends

Error closed_error() { return {ErrorCode::kCancelled, "the KV stream is closed", {}}; }
Error frozen_error() {
  return {ErrorCode::kDeadlineExceeded, "a KV page made no progress in time: the peer seems to be frozen", {}};
}
Error lost_error(std::string what, const char* why) {
  return {ErrorCode::kWorkerLost, std::move(what) + ": " + why, {}};
}

Error forged(const KvPageHeader& header) {
  if (header.mac == PageMac{})
    return {ErrorCode::kUnauthorized,
            "the sender does not authenticate its pages: give --authenticate-pages to every worker, or to none",
            {}};
  return {ErrorCode::kUnauthorized,
          "page " + std::to_string(header.key.page) + " of layer " + std::to_string(header.key.layer) +
              " is not what its sender sent: its authentication fails",
          {}};
}

template <class Stream>
asio::awaitable<void> close_stream(std::shared_ptr<Stream> stream) {
  co_await stream->close();
}

}  // namespace

MessageInStream::MessageInStream(std::shared_ptr<MessageStreamContext> context, KvInboundParams params)
    : context_(std::move(context)),
      ledger_(context_->executor, context_->clock, std::move(params)),
      stall_(context_->executor, context_->clock, [this] {
        stop(met_ ? frozen_error() : Error{ErrorCode::kDeadlineExceeded, "the sender did not answer in time", {}});
      }) {
  if (context_->authenticate_pages) authenticator_.emplace(ledger_.params().stream_token);
}

void MessageInStream::start() { stall_.start(context_->connect_timeout, shared_from_this()); }

StreamHello MessageInStream::hello(uint64_t incarnation) {
  told_layers_ = ledger_.layers_open();
  const KvInboundParams& params = ledger_.params();
  return {params.attempt, params.stream_token, incarnation, ledger_.geometry().digest(), told_layers_};
}

// A sender that has not answered yet is told when it has: before that it may not know the stream.
void MessageInStream::open_layers(int32_t count) {
  ledger_.open_layers(count);
  if (!met_ || closed_ || ledger_.error() || ledger_.layers_open() == told_layers_) return;
  told_layers_ = ledger_.layers_open();
  endpoint_->send_layers_open(told_layers_);
}

void MessageInStream::attach(std::shared_ptr<MessageEndpoint> endpoint) {
  endpoint_ = std::move(endpoint);
  if (closed_ || ledger_.error()) endpoint_->close();
}

void MessageInStream::stop(Error why) {
  ledger_.fail(std::move(why));
  stall_.cancel();
  if (endpoint_) endpoint_->close();
}

void MessageInStream::abandon() {
  if (!closed_) asio::co_spawn(context_->executor, close_stream(shared_from_this()), asio::detached);
  closed_ = true;
}

// Waits for the transport to end what is under way: the pages stay pinned until then, however long it takes.
asio::awaitable<void> MessageInStream::close() {
  const auto self = shared_from_this();
  closed_ = true;
  if (ledger_.complete()) {  // the sender closes when it has read our last reply
    const Deadline flush = context_->clock.after(limits::kFlushTimeout);
    while (!endpoint_->is_closing() && context_->clock.now() < flush.at) co_await context_->changed.wait_until(flush);
  }
  stop(closed_error());
  while (receiving_ > 0 || (endpoint_ && !endpoint_->is_closed())) co_await context_->changed.wait();
  ledger_.release();
}

void MessageInStream::on_reply(std::span<const std::byte> reply) {
  if (met_ || reply.size() != kStreamReplyBytes) return stop({ErrorCode::kCorrupt, "the sender's reply is none", {}});
  auto parsed = parse_stream_reply(reply.first<kStreamReplyBytes>());
  if (!parsed) return stop(parsed.error());
  met_ = true;
  stall_.stop();
  open_layers(ledger_.layers_open());
}

void MessageInStream::on_page(std::span<const std::byte> wire, size_t length, const PageFetch& fetch) {
  if (wire.size() != kKvPageHeaderBytes) return corrupt({ErrorCode::kCorrupt, "a page came without its header", {}});
  auto header = parse_page_header(wire.first<kKvPageHeaderBytes>());
  if (!header) return corrupt(header.error());
  if (header->page_bytes != length)
    return corrupt({ErrorCode::kCorrupt, "a page is not as long as its header says", {}});
  auto buffer = ledger_.claim(*header);
  if (!buffer) return corrupt(buffer.error());
  if (++receiving_ == 1) stall_.start(context_->transfer_timeout, shared_from_this());
  fetch(*buffer, [self = shared_from_this(), header = *header](const char* error, std::optional<uint32_t> crc32c) {
    self->received(header, error, crc32c);
  });
}

void MessageInStream::received(const KvPageHeader& header, const char* error, std::optional<uint32_t> crc32c) {
  stall_.progress();
  if (--receiving_ == 0) stall_.stop();
  context_->changed.notify();
  if (ledger_.error()) return;
  if (error != nullptr) return ledger_.fail(lost_error("a KV page was lost on its way", error));
  if (authenticator_ && !authenticator_->matches(header, ledger_.params().buffer(header.key)))
    return corrupt(forged(header));
  auto committed = crc32c ? ledger_.commit(header, *crc32c) : ledger_.commit(header);
  if (!committed) return corrupt(committed.error());
  if (ledger_.complete()) endpoint_->send_reply(StreamReply::kOk);
}

void MessageInStream::corrupt(Error why) {
  if (ledger_.error()) return;
  ledger_.fail(std::move(why));
  endpoint_->send_reply(StreamReply::kCorruptPage);
}

void MessageInStream::on_lost(const char* why) { ledger_.fail(lost_error("lost the connection to the sender", why)); }

MessageOutStream::MessageOutStream(std::shared_ptr<MessageStreamContext> context, KvOutboundParams params)
    : context_(std::move(context)),
      ledger_(context_->executor, context_->clock, std::move(params)),
      stall_(context_->executor, context_->clock, [this] {
        stop(endpoint_
                 ? frozen_error()
                 : Error{ErrorCode::kDeadlineExceeded, "no receiver opened its end of the KV stream in time", {}});
      }) {
  if (context_->authenticate_pages) authenticator_.emplace(ledger_.params().stream_token);
}

void MessageOutStream::start() { stall_.start(context_->connect_timeout, shared_from_this()); }

StreamReply MessageOutStream::attach(const StreamHello& hello, std::shared_ptr<MessageEndpoint> endpoint) {
  if (hello.stream_token != ledger_.params().stream_token) return StreamReply::kWrongToken;
  if (endpoint_) return StreamReply::kAlreadyOpen;
  if (closed_ || ledger_.error()) return StreamReply::kUnknownStream;  // came too late
  if (hello.geometry != ledger_.geometry().digest()) {
    stop(error_of(StreamReply::kOtherGeometry));
    return StreamReply::kOtherGeometry;
  }
  stall_.stop();
  endpoint_ = std::move(endpoint);
  RUNAHEAD_CHECK(ledger_.open_layers(hello.layers_open).has_value(), "a greeting is checked");
  endpoint_->send_reply(StreamReply::kOk);
  pump();
  return StreamReply::kOk;
}

void MessageOutStream::post(KvPageKey key, std::span<const std::byte> page, std::optional<uint32_t> crc32c) {
  ledger_.post(key, page, crc32c);
  pump();
}

void MessageOutStream::stop(Error why) {
  ledger_.fail(std::move(why));
  stall_.cancel();
  if (endpoint_) endpoint_->close();
}

void MessageOutStream::abandon() {
  if (!closed_) asio::co_spawn(context_->executor, close_stream(shared_from_this()), asio::detached);
  closed_ = true;
}

asio::awaitable<void> MessageOutStream::close() {
  const auto self = shared_from_this();
  closed_ = true;
  stop(closed_error());
  while (sending_ > 0 || (endpoint_ && !endpoint_->is_closed())) co_await context_->changed.wait();
  ledger_.release();
}

void MessageOutStream::on_reply(std::span<const std::byte> reply) {
  if (reply.size() != kStreamReplyBytes) return stop({ErrorCode::kCorrupt, "the receiver's reply is none", {}});
  if (const std::optional<int32_t> layers = parse_layers_open(reply.first<kStreamReplyBytes>())) {
    auto opened = ledger_.open_layers(*layers);
    return opened ? pump() : stop(opened.error());
  }
  auto parsed = parse_stream_reply(reply.first<kStreamReplyBytes>());
  if (parsed && !ledger_.all_taken())
    parsed = fail(ErrorCode::kCorrupt, "the receiver confirmed pages that it cannot have");
  if (!parsed) return stop(parsed.error());
  ledger_.confirm();
  endpoint_->close();  // which tells the receiver that its reply has come
}

void MessageOutStream::on_lost(const char* why) {
  ledger_.fail(lost_error("lost the connection to the receiver", why));
}

void MessageOutStream::pump() {
  while (endpoint_ && !endpoint_->is_closing() && !closed_ && sending_ < kPagesUnderWay && ledger_.has_page()) {
    KvOutboundLedger::Page page = ledger_.take();
    if (authenticator_) page.header.mac = authenticator_->of(page.header.key, page.bytes);
    if (++sending_ == 1) stall_.start(context_->transfer_timeout, shared_from_this());
    endpoint_->send_page(page, [self = shared_from_this(), page](const char* error, std::optional<uint32_t>) {
      self->sent(page, error);
    });
  }
}

void MessageOutStream::sent(const KvOutboundLedger::Page& page, const char* error) {
  stall_.progress();
  if (--sending_ == 0) stall_.stop();
  if (error != nullptr && !ledger_.confirmed()) {
    ledger_.fail(lost_error("a KV page was not taken by the receiver", error));
  } else {
    ledger_.sent(page);
  }
  context_->changed.notify();
  // Not from within the transport's callback, and streams take turns.
  asio::post(context_->executor, [self = shared_from_this()] { self->pump(); });
}

}  // namespace runahead
