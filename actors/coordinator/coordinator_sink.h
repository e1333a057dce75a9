// CoordinatorSink: what happens in the coordinator, as events. services/metrics turns them into Prometheus series; tests
// record them; the default does nothing. Names and buckets are the implementation's (reference: docs/operations.md).
//   threads  called on the actor thread; must not block.
#pragma once

#include <cstdint>
#include <string_view>

#include "actors/inference.h"
#include "base/result.h"

namespace runahead {

enum class RequestOutcome { kOk, kError, kCancelled };

struct RequestRecord {
  RequestOutcome outcome = RequestOutcome::kOk;
  FinishReason reason = FinishReason::kStop;  // kOk
  ErrorCode error = ErrorCode::kInternal;  // kError
  int32_t prompt_tokens = 0;
  int32_t generated_tokens = 0;
  double total_seconds = 0;
  uint32_t attempts = 1;
};

struct RankRecord {  // from RankTiming (proto/common.proto)
  int32_t rank = 0;
  bool is_last = false;
  int32_t chunk_tokens = 0;
  double compute_seconds = 0, kv_wait_seconds = 0, lane_wait_seconds = 0, kv_send_seconds = 0, kv_wire_seconds = 0,
         total_seconds = 0;
  uint64_t kv_sent_bytes = 0, kv_received_bytes = 0;
  // The hop behind it. Names are empty if one of its workers has gone.
  std::string_view sender, receiver;
  double kv_rtt_seconds = 0;  // 0: not measured
};

struct QueueGauges {
  int32_t running = 0, waiting = 0;
  int64_t queued_prompt_tokens = 0;
};

class CoordinatorSink {
 public:
  virtual ~CoordinatorSink() = default;

  virtual void request_accepted() {}  // request_finished() follows, whatever becomes of it
  virtual void request_finished(const RequestRecord&) {}
  virtual void first_token(const TtftReport&) {}  // when TTFT is known; also carries plan error and cuts
  // Of the attempt that made the first token: all ranks have reported.
  virtual void chain_finished(const TtftReport&) {}
  virtual void rank_finished(const RankRecord&, std::string_view /*transport*/) {}
  virtual void inter_token(double /*seconds*/) {}  // between two tokens of one request, at the coordinator
  virtual void first_decode(double /*seconds*/) {}  // likewise, the first two alone: the hand-over and one decode step
  virtual void handoff(double /*seconds*/) {}  // FirstToken at the decode worker to its first decode step
  virtual void attempt_failed(ErrorCode) {}
  virtual void queue_changed(const QueueGauges&) {}
  virtual void workers_changed(const ClusterView&) {}  // joined, lost, suspect, draining; and with every heartbeat
};

}  // namespace runahead
