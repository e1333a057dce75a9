#include "transport/kv/nccl_hop.h"

#include <unistd.h>

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <cstring>

#include "base/check.h"
#include "base/limits.h"
#include "transport/control/frame.h"

namespace runahead {
namespace {

constexpr size_t kFramesMax = 8 * limits::kKvStreamsMax;  // to be written: several of each stream
constexpr const char* kClosed = "the KV stream is closed";

}  // namespace

void NcclHopEndpoint::send_reply(StreamReply reply) {
  if (!closing_) hop_->write(HopFrameKind::kReply, number_, encode(reply));
  if (reply == StreamReply::kOk && !out.expired()) hop_->start_lane();
}

void NcclHopEndpoint::send_layers_open(int32_t count) {
  if (!closing_) hop_->write(HopFrameKind::kReply, number_, encode_layers_open(count));
}

MessageEndpoint::Done NcclHopEndpoint::counted(Done done) {
  ++under_way_;
  hop_->begin_transfer();
  return [self = shared_from_this(), done = std::move(done)](const char* error, std::optional<uint32_t> crc32c) {
    --self->under_way_;
    self->hop_->end_transfer();
    done(error, crc32c);
    self->leave();
  };
}

// A page without a checksum gets it on the device, then is announced; then it goes, in the order of the announcements.
void NcclHopEndpoint::send_page(const KvOutboundLedger::Page& page, Done done) {
  if (closing_) return done(kClosed, std::nullopt);
  hop_->when_met([self = shared_from_this(), page, counted = counted(std::move(done))]() mutable {
    const auto announce = [self, page, counted](const char* error, std::optional<uint32_t> crc32c) {
      if (error != nullptr || self->closing_ || self->hop_->has_failed())
        return counted(error != nullptr ? error : kClosed, std::nullopt);
      KvPageHeader header = page.header;
      if (crc32c) header.page_crc32c = *crc32c;
      self->hop_->write(HopFrameKind::kPage, self->number_, encode(header));
      self->hop_->lane()->send(page.bytes, counted);
    };
    if (page.crc_known || self->hop_->has_failed()) return announce(nullptr, std::nullopt);
    self->hop_->lane()->checksum(page.bytes, announce);
  });
}

void NcclHopEndpoint::receive(std::span<std::byte> buffer, Done done) {
  hop_->lane()->receive(buffer, counted(std::move(done)));
}

void NcclHopEndpoint::close() {
  if (closing_) return;
  closing_ = true;
  hop_->write(HopFrameKind::kClose, number_, {});
  leave();
}

void NcclHopEndpoint::leave() {
  if (is_closed()) hop_->forget(number_);
  hop_->streams().changed.notify();
}

void NcclHopEndpoint::on_reply(std::span<const std::byte> reply) {
  if (const auto stream = in.lock()) return stream->on_reply(reply);
  if (const auto stream = out.lock()) stream->on_reply(reply);
}

void NcclHopEndpoint::on_lost(const Error& why) {
  const auto tell = [&](const auto& stream) {
    if (!stream) return;
    if (why.code == ErrorCode::kDeadlineExceeded) stream->stop(why);
    else stream->on_lost(why.message.c_str());
  };
  tell(in.lock());
  tell(out.lock());
  close();
}

NcclHop::NcclHop(std::shared_ptr<NcclHopContext> context, asio::any_io_executor executor)
    : context_(std::move(context)),
      socket_(executor),
      greeting_(executor, context_->streams->clock,
                [this] { fail({ErrorCode::kDeadlineExceeded, "the peer did not answer in time", {}}); }),
      stall_(
          executor, context_->streams->clock,
          [this] {
            fail({ErrorCode::kDeadlineExceeded, "a KV page made no progress in time: the peer seems to be frozen", {}});
          }),
      written_(executor, context_->streams->clock) {}

std::shared_ptr<NcclHop> NcclHop::connect(std::shared_ptr<NcclHopContext> context, HostPort sender) {
  const asio::any_io_executor executor = context->streams->executor;
  std::shared_ptr<NcclHop> self(new NcclHop(std::move(context), executor));
  self->spawn(run(self, std::move(sender)));
  return self;
}

std::shared_ptr<NcclHop> NcclHop::accept(std::shared_ptr<NcclHopContext> context, Tcp::socket socket) {
  const asio::any_io_executor executor = context->streams->executor;
  std::shared_ptr<NcclHop> self(new NcclHop(std::move(context), executor));
  self->socket_ = std::move(socket);
  self->spawn(run(self, std::nullopt));
  return self;
}

void NcclHop::spawn(asio::awaitable<void> work) {
  ++coroutines_;
  asio::co_spawn(context_->streams->executor, std::move(work), [self = shared_from_this()](std::exception_ptr error) {
    if (error) self->fail({ErrorCode::kInternal, "a hop between devices ended by an exception", {}});
    --self->coroutines_;
    self->streams().changed.notify();
  });
}

asio::awaitable<void> NcclHop::run(std::shared_ptr<NcclHop> self, std::optional<HostPort> sender) {
  auto read = co_await self->greet(std::move(sender));
  if (read) {
    self->spawn(write_frames(self));
    read = co_await self->read_frames();
  }
  self->fail(read.error());
}

Task<void> NcclHop::greet(std::optional<HostPort> sender) {
  const Deadline deadline = streams().clock.after(streams().connect_timeout);
  if (sender) {
    auto connected = co_await connect_tcp(*sender, streams().clock, deadline);
    if (!connected && connected.error().code == ErrorCode::kUnavailable)
      co_return runahead::fail(ErrorCode::kWorkerLost, "the sender is gone: " + connected.error().message);
    socket_ = CO_TRY(connected);
  }
  if (error_) co_return std::unexpected(*error_);
  const auto ours = encode_preamble(Plane::kData);
  std::array<std::byte, kPreambleBytes> theirs;
  greeting_.start(deadline.at - streams().clock.now(), shared_from_this());
  auto [write_error, written] = co_await asio::async_write(socket_, asio::buffer(ours), kAsTuple);
  if (write_error) co_return std::unexpected(connection_lost("the peer", write_error));
  auto [read_error, read] = co_await asio::async_read(socket_, asio::buffer(theirs), kAsTuple);
  if (read_error) co_return std::unexpected(connection_lost("the peer", read_error));
  greeting_.stop();
  co_return check_preamble(theirs, Plane::kData);
}

Task<void> NcclHop::read_frames() {
  std::array<std::byte, kHopFrameBytes> bytes;
  for (;;) {
    auto [error, size] = co_await asio::async_read(socket_, asio::buffer(bytes), kAsTuple);
    if (error) co_return std::unexpected(connection_lost("the peer", error));
    if (error_) co_return std::unexpected(*error_);  // nobody closes what would be opened now
    const HopFrame frame = CO_TRY(parse_hop_frame(bytes));
    CO_TRY(on_frame(frame));
  }
}

asio::awaitable<void> NcclHop::write_frames(std::shared_ptr<NcclHop> self) {
  while (!self->error_) {
    if (self->frames_.empty()) {
      co_await self->written_.wait();
      continue;
    }
    const auto frame = self->frames_.front();
    self->frames_.pop_front();
    auto [error, size] = co_await asio::async_write(self->socket_, asio::buffer(frame), kAsTuple);
    if (error) co_return self->fail(connection_lost("the peer", error));
  }
}

void NcclHop::write(HopFrameKind kind, uint32_t stream, std::span<const std::byte> body) {
  if (error_) return;
  if (frames_.size() >= kFramesMax) return fail({ErrorCode::kWorkerLost, "the peer reads nothing any more", {}});
  HopFrame frame{kind, stream, {}};
  RUNAHEAD_CHECK(body.size() <= frame.body.size(), "a frame's body has 64 bytes");
  std::memcpy(frame.body.data(), body.data(), body.size());
  frames_.push_back(encode(frame));
  written_.notify();
}

void NcclHop::fail(Error why) {
  if (error_) return;
  error_ = std::move(why);
  greeting_.cancel();
  stall_.cancel();
  close_socket(socket_);
  if (lane_) lane_->abort();
  frames_.clear();
  meet();
  const auto left = endpoints_;  // a copy: they leave
  for (const auto& [number, endpoint] : left) endpoint->on_lost(*error_);
  written_.notify();
  streams().changed.notify();
}

void NcclHop::orphan() {
  if (lane_) lane_->stop();
  endpoints_.clear();
  waiting_.clear();
}

void NcclHop::open(const std::shared_ptr<MessageInStream>& stream, uint64_t sender_incarnation) {
  const uint32_t number = ++last_stream_;
  auto endpoint = std::make_shared<NcclHopEndpoint>(shared_from_this(), number);
  endpoint->in = stream;
  endpoints_.emplace(number, endpoint);
  write(HopFrameKind::kOpen, number, encode(stream->hello(sender_incarnation)));
  stream->attach(std::move(endpoint));
}

void NcclHop::forget(uint32_t number) { endpoints_.erase(number); }

// The first page waits for the communicator, too.
void NcclHop::begin_transfer() {
  if (++transfers_ > 1 || error_) return;
  const bool stands = lane_ && lane_->is_ready();
  stall_.start(stands ? context_->transfer_timeout : streams().transfer_timeout, shared_from_this());
}

void NcclHop::end_transfer() {
  stall_.progress();
  if (--transfers_ == 0) stall_.stop();
}

void NcclHop::when_met(std::function<void()> call) {
  if (met_) return call();
  waiting_.push_back(std::move(call));
}

void NcclHop::meet() {
  met_ = true;
  for (const auto& call : std::exchange(waiting_, {})) call();
}

void NcclHop::start_lane() {
  if (lane_ || error_) return;
  lane_ =
      std::make_unique<NcclLane>(*context_->api, context_->make_stream, [this](const NcclUniqueId& id) { on_id(id); });
  spawn(serve_lane(shared_from_this()));
}

void NcclHop::on_id(const NcclUniqueId& id) {
  const auto bytes = std::as_bytes(std::span(id.internal));
  write(HopFrameKind::kIdFirst, 0, bytes.first(kHopBodyBytes));
  write(HopFrameKind::kIdLast, 0, bytes.last(kHopBodyBytes));
  if (!error_) meet();
}

// Also when the loop dies and takes this coroutine along: the lane's jobs hold streams, which hold the hop.
struct NcclHop::LaneEnd {
  std::shared_ptr<NcclHop> hop;
  ~LaneEnd() { hop->lane_.reset(); }
};

asio::awaitable<void> NcclHop::serve_lane(std::shared_ptr<NcclHop> self) {
  const LaneEnd end{self};
  asio::posix::stream_descriptor event(self->context_->streams->executor, dup(self->lane_->wakes()));
  while (!self->lane_->has_ended()) {
    co_await event.async_wait(asio::posix::stream_descriptor::wait_read, kAsTuple);
    self->lane_->complete();
    if (!self->lane_->failure().empty()) self->fail({ErrorCode::kWorkerLost, self->lane_->failure(), {}});
  }
}

Result<void> NcclHop::on_frame(const HopFrame& frame) {
  static_assert(sizeof(NcclUniqueId) == 2 * kHopBodyBytes);
  const bool receives = last_stream_ > 0;
  switch (frame.kind) {
    case HopFrameKind::kOpen:
      return on_open(frame);
    case HopFrameKind::kPage:
      return on_page(frame);
    case HopFrameKind::kIdFirst:
      std::memcpy(id_.internal, frame.body.data(), kHopBodyBytes);
      return {};
    case HopFrameKind::kIdLast:
      if (!receives || lane_) return runahead::fail(ErrorCode::kCorrupt, "the peer names a second communicator");
      std::memcpy(id_.internal + kHopBodyBytes, frame.body.data(), kHopBodyBytes);
      join_lane();
      return {};
    case HopFrameKind::kReply:
    case HopFrameKind::kClose:
      break;
  }
  const auto found = endpoints_.find(frame.stream);
  if (found == endpoints_.end()) return {};  // it has been closed here meanwhile
  const std::shared_ptr<NcclHopEndpoint> endpoint = found->second;
  if (frame.kind == HopFrameKind::kReply) {
    endpoint->on_reply(std::span(frame.body).first<kStreamReplyBytes>());
  } else {
    endpoint->on_lost({ErrorCode::kWorkerLost, "the peer has closed the KV stream", {}});
  }
  return {};
}

void NcclHop::join_lane() {
  lane_ = std::make_unique<NcclLane>(*context_->api, context_->make_stream, id_);
  spawn(serve_lane(shared_from_this()));
}

Result<void> NcclHop::on_open(const HopFrame& frame) {
  if (!context_->on_hello || frame.stream <= last_opened_)
    return runahead::fail(ErrorCode::kCorrupt, "the peer opens a stream that it cannot have");
  const StreamHello hello = TRY(parse_stream_hello(frame.body));
  last_opened_ = frame.stream;
  auto endpoint = std::make_shared<NcclHopEndpoint>(shared_from_this(), frame.stream);
  if (endpoints_.size() >= limits::kKvStreamsMax) {
    endpoint->send_reply(StreamReply::kBusy);
    return {};
  }
  endpoints_.emplace(frame.stream, endpoint);
  context_->on_hello(endpoint, hello);
  return {};
}

// What is announced comes, wanted or not.
Result<void> NcclHop::on_page(const HopFrame& frame) {
  const KvPageHeader header = TRY(parse_page_header(frame.body));
  if (!lane_ || header.page_bytes == 0 || header.page_bytes > limits::kPageBytesMax)
    return runahead::fail(ErrorCode::kCorrupt, "the peer announces a page that it cannot send");
  const auto found = endpoints_.find(frame.stream);
  const auto endpoint = found == endpoints_.end() || found->second->is_closing() ? nullptr : found->second;
  const auto stream = endpoint ? endpoint->in.lock() : nullptr;
  bool fetched = false;
  if (stream)
    stream->on_page(frame.body, header.page_bytes, [&](std::span<std::byte> buffer, MessageEndpoint::Done done) {
      fetched = true;
      endpoint->receive(buffer, std::move(done));
    });
  if (fetched || error_) return {};
  begin_transfer();
  lane_->discard(header.page_bytes, [self = shared_from_this()](const char*, auto) { self->end_transfer(); });
  return {};
}

}  // namespace runahead
