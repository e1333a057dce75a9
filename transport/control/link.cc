#include "transport/control/link.h"

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include "base/limits.h"
#include "base/log.h"
#include "transport/control/frame.h"

namespace runahead {
namespace {

constexpr size_t kReadBytes = 64 << 10;  // one read; a frame of a usual prompt fits
constexpr size_t kFramesAWrite = 64;     // gathered into one system call

}  // namespace

bool ControlInbox::full() const {
  return events_.size() >= limits::kControlInboxMessagesMax || payload_bytes_ >= limits::kControlInboxBytesMax;
}

asio::awaitable<void> ControlInbox::wait_for_room() { return taken_.wait(); }

void ControlInbox::push(ControlEvent event) {
  payload_bytes_ += event.payload.size();
  events_.push_back(std::move(event));
  came_.notify();
}

Task<ControlEvent> ControlInbox::receive(Deadline deadline) {
  while (events_.empty()) {
    if (clock_.now() >= deadline.at) co_return fail(ErrorCode::kDeadlineExceeded, "no control message came in time");
    co_await came_.wait_until(deadline);
  }
  ControlEvent event = std::move(events_.front());
  events_.pop_front();
  payload_bytes_ -= event.payload.size();
  taken_.notify();
  co_return event;
}

std::shared_ptr<Link> Link::create(PeerId peer, Tcp::socket socket, Clock& clock, std::shared_ptr<ControlInbox> inbox) {
  return std::shared_ptr<Link>(new Link(peer, std::move(socket), clock, std::move(inbox)));
}

Link::Link(PeerId peer, Tcp::socket socket, Clock& clock, std::shared_ptr<ControlInbox> inbox)
    : peer_(peer),
      socket_(std::move(socket)),
      clock_(clock),
      inbox_(std::move(inbox)),
      changed_(socket_.get_executor(), clock),
      timeout_(socket_.get_executor(), clock, [this] { close("it took too long to answer"); }) {}

Task<void> Link::greet(std::shared_ptr<TlsIdentity> identity, PeerSocket::End end) {
  const auto expected = end == PeerSocket::End::kConnected ? PeerSocket::Peer::kCoordinator : PeerSocket::Peer::kWorker;
  auto secured = co_await socket_.secure(std::move(identity), end, expected);
  CO_TRY(secured);
  const auto ours = encode_preamble(Plane::kControl);
  std::array<std::byte, kPreambleBytes> theirs;
  auto [write_error, written] = co_await asio::async_write(socket_, asio::buffer(ours), kAsTuple);
  if (write_error) co_return fail(ErrorCode::kUnavailable, connection_lost("the peer", write_error).message);
  auto [read_error, read] = co_await asio::async_read(socket_, asio::buffer(theirs), kAsTuple);
  if (read_error) co_return fail(ErrorCode::kUnavailable, connection_lost("the peer", read_error).message);
  co_return check_preamble(theirs, Plane::kControl);
}

Task<void> Link::open(std::shared_ptr<Link> self, std::shared_ptr<TlsIdentity> identity, PeerSocket::End end,
                      Deadline deadline) {
  self->timeout_.start(std::max<Duration>(deadline.at - self->clock_.now(), Duration(0)), self);
  auto greeted = co_await self->greet(std::move(identity), end);
  self->timeout_.stop();
  if (self->closed_) co_return fail(ErrorCode::kDeadlineExceeded, "the peer did not answer with our protocol in time");
  if (!greeted) {
    self->close(greeted.error().message);
    co_return greeted;
  }
  self->connected_ = true;
  const auto role = self->socket_.certified_role();
  self->inbox_->push({ControlEvent::Kind::kConnected, self->peer_, std::string(role ? to_string(*role) : "")});
  const auto ended = [self](std::exception_ptr) {
    --self->coroutines_;
    self->changed_.notify();
  };
  self->coroutines_ = 2;
  asio::co_spawn(self->socket_.get_executor(), read_frames(self), ended);
  asio::co_spawn(self->socket_.get_executor(), write_frames(self), ended);
  co_return Result<void>{};
}

void Link::send(std::string payload) {
  if (closed_ || leaving_) return;
  if (payload.empty() || payload.size() > limits::kControlFrameBytesMax)
    return close("a message of " + std::to_string(payload.size()) + " bytes cannot be sent: the limit is " +
                 std::to_string(limits::kControlFrameBytesMax));
  if (queue_.size() >= limits::kLinkQueueFramesMax || queue_bytes_ + payload.size() > limits::kLinkQueueBytesMax)
    return close("it does not read what is sent to it");
  queue_.push_back(encode_frame(payload));
  queue_bytes_ += queue_.back().size();
  changed_.notify();
}

void Link::disconnect() {
  if (closed_ || leaving_) return;
  leaving_ = true;
  timeout_.start(limits::kFlushTimeout, shared_from_this());
  inbox_->wake_links();
  changed_.notify();
}

void Link::close(std::string why) {
  if (closed_) return;
  closed_ = true;
  timeout_.cancel();
  close_socket(socket_.tcp());
  queue_.clear();
  if (connected_) inbox_->push({ControlEvent::Kind::kDisconnected, peer_, leaving_ ? "disconnected" : std::move(why)});
  inbox_->wake_links();
  changed_.notify();
}

asio::awaitable<void> Link::join() {
  while (coroutines_ > 0) co_await changed_.wait();
}

// Hands frames to the actor, waiting while it has no room; false once the link is closed or leaving.
asio::awaitable<bool> Link::deliver(std::vector<std::string> frames) {
  for (std::string& frame : frames) {
    while (inbox_->full() && !closed_ && !leaving_) co_await inbox_->wait_for_room();
    if (closed_ || leaving_) co_return false;
    inbox_->push({ControlEvent::Kind::kMessage, peer_, std::move(frame)});
  }
  co_return true;
}

asio::awaitable<void> Link::read_frames(std::shared_ptr<Link> self) {
  FrameParser parser;
  std::vector<std::byte> buffer(kReadBytes);
  while (!self->closed_) {
    auto [error, size] = co_await self->socket_.async_read_some(asio::buffer(buffer), kAsTuple);
    if (error) co_return self->close(connection_lost("the peer", error).message);
    if (self->leaving_) continue;  // read on and drop, so that the peer can take what we still write
    std::vector<std::string> frames;
    parser.allow(self->frame_bytes_max_);
    auto fed = parser.feed(std::span(buffer).first(size), frames);
    co_await self->deliver(std::move(frames));
    if (!fed) co_return self->close(fed.error().message);
  }
}

asio::awaitable<void> Link::write_frames(std::shared_ptr<Link> self) {
  while (!self->closed_) {
    if (self->queue_.empty()) {
      if (self->leaving_) co_return self->close({});
      co_await self->changed_.wait();
      continue;
    }
    std::vector<std::string> batch;
    std::vector<asio::const_buffer> buffers;
    while (!self->queue_.empty() && batch.size() < kFramesAWrite) {
      self->queue_bytes_ -= self->queue_.front().size();
      batch.push_back(std::move(self->queue_.front()));
      self->queue_.pop_front();
    }
    for (const std::string& frame : batch) buffers.push_back(asio::buffer(frame));
    auto [error, size] = co_await asio::async_write(self->socket_, buffers, kAsTuple);
    if (error) co_return self->close(connection_lost("the peer", error).message);
  }
}

}  // namespace runahead
