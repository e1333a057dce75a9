#include "transport/kv/kv_hop.h"

#include <algorithm>
#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include "base/check.h"
#include "base/limits.h"
#include "transport/control/frame.h"

namespace runahead {
namespace {

constexpr size_t kFramesMax = 8 * limits::kKvStreamsMax;  // to be written: several of each stream
constexpr int kPagesUnderWayMax = 4 * static_cast<int>(limits::kKvStreamsMax);  // four of each stream of a good sender
constexpr const char* kClosed = "the KV stream is closed";

}  // namespace

void KvHopEndpoint::send_reply(StreamReply reply) {
  if (!closing_) hop_->write(HopFrameKind::kReply, number_, encode(reply));
  if (reply == StreamReply::kOk && !out.expired()) hop_->start_lane();
}

void KvHopEndpoint::send_layers_open(int32_t count) {
  if (!closing_) hop_->write(HopFrameKind::kReply, number_, encode_layers_open(count));
}

MessageEndpoint::Done KvHopEndpoint::counted(Done done) {
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
void KvHopEndpoint::send_page(const KvOutboundLedger::Page& page, Done done) {
  if (closing_) return done(kClosed, std::nullopt);
  hop_->when_met([self = shared_from_this(), page, counted = counted(std::move(done))]() mutable {
    const auto announce = [self, page, counted](const char* error, std::optional<uint32_t> crc32c) {
      if (error != nullptr || self->closing_ || self->hop_->has_failed())
        return counted(error != nullptr ? error : kClosed, std::nullopt);
      KvPageHeader header = page.header;
      if (crc32c) header.page_crc32c = *crc32c;
      self->hop_->send(self->number_, header, page.bytes, counted);
    };
    if (page.crc_known || self->hop_->has_failed()) return announce(nullptr, std::nullopt);
    self->hop_->lane()->checksum(page.bytes, announce);
  });
}

void KvHopEndpoint::receive(std::span<std::byte> buffer, uint64_t at, Done done) {
  hop_->lane()->receive(buffer, at, counted(std::move(done)));
}

void KvHopEndpoint::close() {
  if (closing_) return;
  closing_ = true;
  hop_->write(HopFrameKind::kClose, number_, {});
  leave();
}

void KvHopEndpoint::leave() {
  if (is_closed()) hop_->forget(number_);
  hop_->streams().changed.notify();
}

void KvHopEndpoint::on_reply(std::span<const std::byte> reply) {
  if (const auto stream = in.lock()) return stream->on_reply(reply);
  if (const auto stream = out.lock()) stream->on_reply(reply);
}

void KvHopEndpoint::on_lost(const Error& why) {
  const auto tell = [&](const auto& stream) {
    if (!stream) return;
    if (why.code == ErrorCode::kWorkerLost) stream->on_lost(why.message.c_str());
    else stream->stop(why);
  };
  tell(in.lock());
  tell(out.lock());
  close();
}

KvHop::KvHop(std::shared_ptr<KvHopContext> context, asio::any_io_executor executor)
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

std::shared_ptr<KvHop> KvHop::connect(std::shared_ptr<KvHopContext> context, HostPort sender) {
  const asio::any_io_executor executor = context->streams->executor;
  std::shared_ptr<KvHop> self(new KvHop(std::move(context), executor));
  self->spawn(run(self, std::move(sender)));
  return self;
}

std::shared_ptr<KvHop> KvHop::accept(std::shared_ptr<KvHopContext> context, Tcp::socket socket) {
  const asio::any_io_executor executor = context->streams->executor;
  std::shared_ptr<KvHop> self(new KvHop(std::move(context), executor));
  self->socket_ = PeerSocket(std::move(socket));
  self->sends_ = true;
  self->spawn(run(self, std::nullopt));
  return self;
}

void KvHop::spawn(asio::awaitable<void> work) {
  ++coroutines_;
  asio::co_spawn(context_->streams->executor, std::move(work), [self = shared_from_this()](std::exception_ptr error) {
    if (error) self->fail({ErrorCode::kInternal, "a hop between two workers ended by an exception", {}});
    --self->coroutines_;
    self->streams().changed.notify();
  });
}

asio::awaitable<void> KvHop::run(std::shared_ptr<KvHop> self, std::optional<HostPort> sender) {
  auto read = co_await self->greet(std::move(sender));
  if (read) {
    self->spawn(write_frames(self));
    read = co_await self->read_frames();
  }
  self->fail(read.error());
}

Task<void> KvHop::greet(std::optional<HostPort> sender) {
  const Deadline deadline = streams().clock.after(streams().connect_timeout);
  if (sender) {
    auto connected = co_await connect_tcp(*sender, streams().clock, deadline);
    if (!connected && connected.error().code == ErrorCode::kUnavailable)
      co_return runahead::fail(ErrorCode::kWorkerLost, "the sender is gone: " + connected.error().message);
    socket_ = PeerSocket(CO_TRY(connected));
  }
  if (error_) co_return std::unexpected(*error_);
  const auto ours = encode_preamble(Plane::kData);
  std::array<std::byte, kPreambleBytes> theirs;
  greeting_.start(deadline.at - streams().clock.now(), shared_from_this());
  const auto end = sender ? PeerSocket::End::kConnected : PeerSocket::End::kAccepted;
  auto secured = co_await socket_.secure(context_->identity, end, PeerSocket::Peer::kWorker);
  if (!secured) co_return runahead::fail(ErrorCode::kWorkerLost, secured.error().message);
  auto [write_error, written] = co_await asio::async_write(socket_, asio::buffer(ours), kAsTuple);
  if (write_error) co_return std::unexpected(connection_lost("the peer", write_error));
  auto [read_error, read] = co_await asio::async_read(socket_, asio::buffer(theirs), kAsTuple);
  if (read_error) co_return std::unexpected(connection_lost("the peer", read_error));
  greeting_.stop();
  co_return check_preamble(theirs, Plane::kData);
}

Task<void> KvHop::read_frames() {
  std::array<std::byte, kHopFrameBytes> bytes;
  for (;;) {
    auto [error, size] = co_await asio::async_read(socket_, asio::buffer(bytes), kAsTuple);
    if (error) co_return std::unexpected(connection_lost("the peer", error));
    if (error_) co_return std::unexpected(*error_);  // nobody closes what would be opened now
    const HopFrame frame = CO_TRY(parse_hop_frame(bytes));
    CO_TRY(on_frame(frame));
  }
}

asio::awaitable<void> KvHop::write_frames(std::shared_ptr<KvHop> self) {
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

void KvHop::write(HopFrameKind kind, uint32_t stream, std::span<const std::byte> body, uint64_t at) {
  if (error_) return;
  if (frames_.size() >= kFramesMax) return fail({ErrorCode::kWorkerLost, "the peer reads nothing any more", {}});
  HopFrame frame{kind, stream, at, {}};
  RUNAHEAD_CHECK(body.size() <= frame.body.size(), "a frame's body has 64 bytes");
  std::ranges::copy(body, frame.body.begin());
  frames_.push_back(encode(frame));
  written_.notify();
}

void KvHop::fail(Error why) {
  if (error_) return;
  error_ = std::move(why);
  greeting_.cancel();
  stall_.cancel();
  close_socket(socket_.tcp());
  if (lane_) lane_->abort();
  frames_.clear();
  const auto left = endpoints_;  // a copy: they leave
  for (const auto& [number, endpoint] : left) endpoint->on_lost(*error_);  // first: a stream's first error counts
  meet();
  for (const auto& [number, done] : std::exchange(offered_, {}))
    done("the connection between the workers has ended", {});
  written_.notify();
  streams().changed.notify();
}

void KvHop::orphan() {
  if (lane_) lane_->stop();
  endpoints_.clear();
  waiting_.clear();
  offered_.clear();
}

void KvHop::open(const std::shared_ptr<MessageInStream>& stream, uint64_t sender_incarnation) {
  const uint32_t number = ++last_stream_;
  auto endpoint = std::make_shared<KvHopEndpoint>(shared_from_this(), number);
  endpoint->in = stream;
  endpoints_.emplace(number, endpoint);
  page_bytes_ = std::max(page_bytes_, stream->ledger().params().page_bytes);
  write(HopFrameKind::kOpen, number, encode(stream->hello(sender_incarnation)));
  stream->attach(std::move(endpoint));
}

void KvHop::forget(uint32_t number) { endpoints_.erase(number); }

// The first page waits for the lane to stand, too.
void KvHop::begin_transfer() {
  if (++transfers_ > 1 || error_) return;
  const bool stands = lane_ && lane_->is_ready();
  stall_.start(stands ? context_->transfer_timeout : streams().transfer_timeout, shared_from_this());
}

void KvHop::end_transfer() {
  stall_.progress();
  if (--transfers_ == 0) stall_.stop();
}

void KvHop::when_met(std::function<void()> call) {
  if (met_) return call();
  waiting_.push_back(std::move(call));
}

void KvHop::meet() {
  met_ = true;
  for (const auto& call : std::exchange(waiting_, {})) call();
}

void KvHop::start_lane() {
  if (!lane_ && !error_) run_lane(nullptr);
}

void KvHop::run_lane(const LaneIntroduction* of_sender) {
  lane_ = context_->make_lane(of_sender);
  lane_->start({.sends = sends_,
                .discard_bytes = sends_ || lane_->is_pulled() ? 0 : page_bytes_,
                .on_introduction = [this](const LaneIntroduction& introduction) { introduce(introduction); },
                .on_failure = [this](const Error& why) { fail(why); },
                .on_ready =
                    [this] {
                      for (const auto& [number, endpoint] : endpoints_)
                        if (const auto stream = endpoint->out.lock()) stream->ledger().restart_wire_time();
                    }});
  spawn(serve_lane(shared_from_this()));
}

void KvHop::end_lane() {
  if (!lane_) return;
  lane_->stop();
  lane_.reset();
}

void KvHop::introduce(const LaneIntroduction& introduction) {
  RUNAHEAD_CHECK(!introduction.empty() && introduction.size() <= kLaneIntroductionBytesMax,
                 "an introduction within bounds");
  for (std::span<const std::byte> left(introduction); !left.empty();) {
    const auto next = left.first(std::min(left.size(), kHopBodyBytes));
    write(HopFrameKind::kIntroduction, 0, next, introduction.size());
    left = left.subspan(next.size());
  }
  if (!error_) meet();
}

void KvHop::send(uint32_t stream, const KvPageHeader& header, std::span<const std::byte> page, HopLane::Done done) {
  ++announced_;
  const auto announce = [&] { write(HopFrameKind::kPage, stream, encode(header), lane_->place_of(page)); };
  if (lane_->is_pulled()) {
    offered_.emplace(announced_, std::move(done));  // before the frame, which may fail the hop
    return announce();
  }
  announce();
  lane_->send(page, std::move(done));
}

Result<void> KvHop::on_taken(uint64_t number) {
  const auto found = offered_.find(number);
  if (found == offered_.end())
    return runahead::fail(ErrorCode::kCorrupt, "the peer took a page that it was not offered");
  const auto done = std::move(found->second);
  offered_.erase(found);
  done(nullptr, std::nullopt);
  return {};
}

// Also when the loop dies and takes this coroutine along: the lane's jobs hold streams, which hold the hop.
struct KvHop::LaneEnd {
  std::shared_ptr<KvHop> hop;
  ~LaneEnd() { hop->end_lane(); }
};

asio::awaitable<void> KvHop::serve_lane(std::shared_ptr<KvHop> self) {
  const LaneEnd end{self};
  co_await self->lane_->serve();
}

Result<void> KvHop::on_frame(const HopFrame& frame) {
  const bool of_receivers = frame.kind == HopFrameKind::kOpen || frame.kind == HopFrameKind::kTaken;
  const bool of_both = frame.kind == HopFrameKind::kReply || frame.kind == HopFrameKind::kClose ||
                       frame.kind == HopFrameKind::kIntroduction;
  if (!of_both && of_receivers != sends_)
    return runahead::fail(ErrorCode::kCorrupt, "the peer says what only the other end of a hop may say");
  switch (frame.kind) {
    case HopFrameKind::kOpen:
      return on_open(frame);
    case HopFrameKind::kPage:
      return on_page(frame);
    case HopFrameKind::kIntroduction:
      return on_introduction(frame);
    case HopFrameKind::kTaken:
      return on_taken(frame.at);
    case HopFrameKind::kReply:
    case HopFrameKind::kClose:
      break;
  }
  const auto found = endpoints_.find(frame.stream);
  if (found == endpoints_.end()) return {};  // it has been closed here meanwhile
  const std::shared_ptr<KvHopEndpoint> endpoint = found->second;
  if (frame.kind == HopFrameKind::kReply) {
    endpoint->on_reply(std::span(frame.body).first<kStreamReplyBytes>());
  } else {
    endpoint->on_lost({ErrorCode::kWorkerLost, "the peer has closed the KV stream", {}});
  }
  return {};
}

Result<void> KvHop::on_introduction(const HopFrame& frame) {
  const size_t have = introduction_.size();
  if (introduced_ || sends_ != static_cast<bool>(lane_) || frame.at <= have || frame.at > kLaneIntroductionBytesMax)
    return runahead::fail(ErrorCode::kCorrupt, "the peer introduces itself twice, too soon or without an end");
  const std::span<const std::byte> next = std::span(frame.body).first(std::min(frame.at - have, kHopBodyBytes));
  introduction_.insert(introduction_.end(), next.begin(), next.end());
  introduced_ = introduction_.size() == frame.at;
  if (introduced_ && sends_) return lane_->meet(introduction_);
  if (introduced_) run_lane(&introduction_);
  return {};
}

Result<void> KvHop::on_open(const HopFrame& frame) {
  if (frame.stream <= last_opened_)
    return runahead::fail(ErrorCode::kCorrupt, "the peer opens a stream that it cannot have");
  const StreamHello hello = TRY(parse_stream_hello(frame.body));
  last_opened_ = frame.stream;
  auto endpoint = std::make_shared<KvHopEndpoint>(shared_from_this(), frame.stream);
  if (endpoints_.size() >= limits::kKvStreamsMax) {
    endpoint->send_reply(StreamReply::kBusy);
    return {};
  }
  endpoints_.emplace(frame.stream, endpoint);
  context_->on_hello(endpoint, hello);
  return {};
}

// What is announced comes, wanted or not; or, on a pulled lane, is told to be taken.
Result<void> KvHop::on_page(const HopFrame& frame) {
  const KvPageHeader header = TRY(parse_page_header(frame.body));
  if (!lane_ || header.page_bytes == 0 || header.page_bytes > limits::kPageBytesMax)
    return runahead::fail(ErrorCode::kCorrupt, "the peer announces a page that it cannot send");
  if (transfers_ >= kPagesUnderWayMax)
    return runahead::fail(ErrorCode::kCorrupt, "the peer announces more pages than its streams may have under way");
  const uint64_t number = ++announced_;
  const auto taken = [self = shared_from_this(), number] {
    if (self->lane_ && self->lane_->is_pulled()) self->write(HopFrameKind::kTaken, 0, {}, number);
  };
  const auto found = endpoints_.find(frame.stream);
  const auto endpoint = found == endpoints_.end() || found->second->is_closing() ? nullptr : found->second;
  const auto stream = endpoint ? endpoint->in.lock() : nullptr;
  bool fetched = false;
  if (stream)
    stream->on_page(frame.body, header.page_bytes, [&](std::span<std::byte> buffer, MessageEndpoint::Done done) {
      fetched = true;
      endpoint->receive(buffer, frame.at, [taken, done = std::move(done)](const char* error, auto crc32c) {
        taken();
        done(error, crc32c);
      });
    });
  if (fetched || error_) return {};
  if (lane_->is_pulled()) {
    taken();
    return {};
  }
  begin_transfer();
  lane_->discard(header.page_bytes, [self = shared_from_this()](const char*, auto) { self->end_transfer(); });
  return {};
}

}  // namespace runahead
