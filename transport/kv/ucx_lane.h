// UcxLane: a hop's pages over UCX: shared memory, TCP or RDMA, as UCX_TLS and the machine allow. Each end of a hop has a UCX
// worker of its own, so that nothing is shared with other hops, and one endpoint to the other end's, made with the address that
// the hop has carried over. UCX's listener is not used (ADR 26).
//   page      one active message: its number is the header, the page its data, always by rendezvous: data are fetched into the
//             buffer once the receiver is asked for that number. Nobody but the receiver's own worker ever writes its memory
//             (get, never put), so a peer that wakes late can do no harm.
//   progress  driven by UCX's event descriptor; never a spin.
//   end       the endpoint is closed by force, which gives back what UCX has in hand; then the worker goes.
// Private to the UCX transport.
#pragma once

#include <ucp/api/ucp.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <map>
#include <optional>

#include "transport/kv/hop_lane.h"
#include "transport/kv/ucx_context.h"

namespace runahead {

class UcxLane final : public HopLane {
 public:
  UcxLane(std::shared_ptr<UcxContext> context, asio::any_io_executor executor, const LaneIntroduction* of_sender);

  void start(Start start) override;
  asio::awaitable<void> serve() override;
  Result<void> meet(const LaneIntroduction& of_receiver) override;
  void checksum(std::span<const std::byte> page, Done done) override;
  void send(std::span<const std::byte> page, Done done) override;
  void receive(std::span<std::byte> page, uint64_t at, Done done) override;
  void discard(size_t bytes, Done done) override;
  void abort() override;
  void stop() override;
  bool is_ready() const override { return ready_; }

 private:
  struct Job {
    std::span<std::byte> page;  // no data: nobody's
    Done done;
  };

  Result<void> open();
  Result<void> open_endpoint();
  void note_lanes();
  void fail(Error why);
  void kick();  // an operation was posted, or there is an end: progress soon
  bool progress();  // false: UCX has more to do
  bool has_let_go() const { return worker_ == nullptr || (over_ && pending_ == 0 && endpoint_ == nullptr); }
  void close_endpoint();
  void let_go();
  void send_queued();
  void want(Job job);
  void fetch(void* announced, Job job);
  static ucs_status_t on_page(void* lane, const void* header, size_t header_length, void* data, size_t length,
                              const ucp_am_recv_param_t* param);
  Result<bool> announced(uint64_t number, void* data, size_t length, bool by_rendezvous);

  std::shared_ptr<UcxContext> context_;
  LaneIntroduction peer_;  // its worker's address
  Start start_;
  ucp_worker_h worker_ = nullptr;
  ucp_ep_h endpoint_ = nullptr;
  asio::posix::stream_descriptor events_;  // UCX's event descriptor; UCX owns it
  asio::steady_timer nudge_;  // at the end
  bool sleeping_ = false;  // serve() waits for `events_`
  bool ready_ = false;
  bool over_ = false;  // aborted or failed
  bool closing_ = false;  // UCX has been told to close the endpoint
  size_t pending_ = 0;  // operations that UCX has not called back
  std::deque<Job> queued_;  // of the sending end, until it has an endpoint
  uint64_t last_sent_ = 0;
  uint64_t last_wanted_ = 0;
  std::map<uint64_t, Job> wanted_;  // of the receiving end, by number: not announced by UCX yet
  std::map<uint64_t, std::pair<void*, size_t>> announced_;  // by UCX, and not wanted yet: its descriptor, bytes
};

}  // namespace runahead
