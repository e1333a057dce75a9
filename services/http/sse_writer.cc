#include "services/http/sse_writer.h"

namespace runahead {
namespace {

constexpr const char* kPing = ": ping\n\n";

}  // namespace

SseWriter::SseWriter(Exchange& exchange, asio::any_io_executor executor, Clock& clock, Duration ping_interval)
    : exchange_(exchange),
      clock_(clock),
      ping_interval_(ping_interval),
      work_(executor, clock),
      progress_(executor, clock),
      pump_(executor, clock) {}

asio::awaitable<void> SseWriter::begin() {
  const bool there = co_await exchange_.begin_stream("text/event-stream");
  broken_ = !there;
  buffer_ = kPing;
  pump_.spawn(pump());
}

asio::awaitable<void> SseWriter::pump() {
  while (!broken_ && !(ending_ && buffer_.empty())) {
    if (buffer_.empty()) {
      const Deadline silent = clock_.after(ping_interval_);
      co_await work_.wait_until(silent);
      if (!buffer_.empty() || ending_ || clock_.now() < silent.at) continue;
      buffer_ = kPing;
    }
    std::string bytes = std::exchange(buffer_, {});
    writing_ = true;
    progress_.notify();
    const bool there = co_await exchange_.write(std::move(bytes));
    writing_ = false;
    broken_ = !there;
    progress_.notify();
  }
  progress_.notify();
}

Task<void> SseWriter::append(std::string bytes) {
  while (!broken_ && buffer_.size() >= limits::kSseBufferBytesMax) co_await progress_.wait();
  if (broken_) co_return fail(ErrorCode::kCancelled, "the client went away");
  buffer_ += bytes;
  work_.notify();
  co_return Result<void>{};
}

Task<void> SseWriter::event(std::string data) { return append("data: " + data + "\n\n"); }

Task<void> SseWriter::named_event(std::string name, std::string data, std::string id) {
  return append((id.empty() ? "" : "id: " + id + "\n") + "event: " + name + "\ndata: " + data + "\n\n");
}

Task<void> SseWriter::flush() {
  while (!broken_ && (writing_ || !buffer_.empty())) co_await progress_.wait();
  if (broken_) co_return fail(ErrorCode::kCancelled, "the client went away");
  co_return Result<void>{};
}

asio::awaitable<void> SseWriter::finish() {
  ending_ = true;
  work_.notify();
  co_await pump_.close();
  if (!broken_) co_await exchange_.end_stream();
}

}  // namespace runahead
