// HopLane: how the pages of one hop (kv_hop.h) get from the worker that sends them to the one that receives them, beside the
// hop's TCP connection, on which each page is announced first.
//   ways     UcxLane (ucx_lane.h) for pages of the host; NcclLane and IpcLane (device_lane.h) for those of a GPU.
//   meeting  the sending end introduces itself, on the hop; the receiving end is made with that, and answers if its kind does.
//   order    pages are named by the order in which both ends are asked for them: that of their announcements.
//   answers  each Done is called once, on the event loop, when its page is touched no more; perhaps before the call returns.
//   failure  of the way or the peer: the lane ends, and says why (Start::on_failure) before it answers what was under way.
//            abort() ends it too. Nothing of it is used again.
//   threads  the executor's one; nothing blocks it but stop().
//   limits   the caller's: how many pages are under way.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "transport/kv/message_streams.h"

namespace runahead {

// What one end of a lane tells the other, opaque to the hop: 1 to kLaneIntroductionBytesMax bytes.
using LaneIntroduction = std::vector<std::byte>;
inline constexpr size_t kLaneIntroductionBytesMax =
    16 << 10;  // UCX names all its network devices: 100 bytes and more for each

class HopLane {
 public:
  using Done = MessageEndpoint::Done;

  struct Start {
    bool sends = false;  // pages; else it receives them
    size_t discard_bytes = 0;  // the largest page that is received for nobody
    std::function<void(const LaneIntroduction&)> on_introduction;  // this end's, once; empty at an end that has none
    std::function<void(const Error&)> on_failure;  // why it ends by itself, before its jobs are told
    std::function<void()> on_ready;  // both ends stand; may be empty
  };

  virtual ~HopLane() = default;  // of one that has stopped
  virtual void start(Start start) = 0;  // once, before all that follows
  virtual asio::awaitable<void> serve() = 0;  // once; returns when the lane has ended and everything is answered
  // Of the sending end: what the receiving one has answered. kCorrupt for a way that needs no answer.
  virtual Result<void> meet(const LaneIntroduction&) {
    return fail(ErrorCode::kCorrupt, "the peer introduces itself to a sender that did not ask");
  }
  // CRC32C of a page whose bytes the host does not have.
  virtual void checksum(std::span<const std::byte> page, Done done) = 0;
  virtual void send(std::span<const std::byte> page, Done done) = 0;  // of a lane that is not pulled
  // at: of a pulled lane, the page's place at the sender.
  virtual void receive(std::span<std::byte> page, uint64_t at, Done done) = 0;
  virtual void discard(size_t bytes, Done done) = 0;  // of a lane that is not pulled: the next page is nobody's
  virtual void abort() = 0;
  // abort(), and waits until no page is touched any more: at once if serve() has returned. Also where the event loop is gone.
  virtual void stop() = 0;
  virtual bool is_ready() const = 0;  // both ends stand

  // The receiver takes pages from where they are, and says so: nothing is sent.
  virtual bool is_pulled() const { return false; }
  // Where the receiver of a pulled lane finds the page.
  virtual uint64_t place_of(std::span<const std::byte>) const { return 0; }
};

// Of the sending end; with the sender's introduction, of the receiving one.
using MakeLane = std::function<std::unique_ptr<HopLane>(const LaneIntroduction* of_sender)>;

}  // namespace runahead
