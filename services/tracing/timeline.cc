#include "services/tracing/timeline.h"

#include <algorithm>
#include <utility>

namespace runahead {
namespace {

using nlohmann::json;

constexpr size_t kCoordinator = 0;  // its place among the processes
constexpr size_t kComputeLane = 0, kSendLane = 1;  // of a rank
constexpr size_t kDecodeLane = 0, kReceiveLane = 1;  // of the decode worker

class TimelineBuilder {
 public:
  explicit TimelineBuilder(const TracedRequest& request) : request_(request) {}

  Timeline build() {
    timeline_.processes.push_back({"coordinator", {"request"}});
    add_request();
    if (!request_.report) return std::move(timeline_);
    add_stages();
    add_ranks();
    add_decode();
    add_flows();
    return std::move(timeline_);
  }

 private:
  // Cut to its parent.
  size_t add(Span span) {
    if (span.parent) {
      const Span& parent = timeline_.spans[*span.parent];
      span.begin = std::clamp(span.begin, parent.begin, parent.end);
      span.end = std::clamp(span.end, span.begin, parent.end);
    }
    timeline_.spans.push_back(std::move(span));
    return timeline_.spans.size() - 1;
  }

  void add_request() {
    Span span{.name = request_.kind, .end = std::max(request_.elapsed_seconds, 0.0)};
    span.attributes = {{"runahead.request.id", request_.id},
                       {"runahead.request.status", request_.status},
                       {"runahead.prompt_tokens", request_.prompt_tokens},
                       {"runahead.completion_tokens", request_.completion_tokens}};
    if (request_.error) span.attributes["runahead.error"] = name(request_.error->code);
    if (const auto& report = request_.report) {
      // Its last report may have come within the same tick as its end.
      for (const RankReport& rank : report->ranks) span.end = std::max(span.end, rank.sent_at_seconds);
      span.end = std::max(span.end, report->marks.written);
      span.attributes.update({{"runahead.ttft_seconds", report->ttft_seconds},
                              {"runahead.ttft_predicted_seconds", report->predicted_ttft_seconds},
                              {"runahead.plan.strategy", name(report->strategy)},
                              {"runahead.cached_tokens", report->cached_tokens},
                              {"runahead.attempts", report->attempts},
                              {"runahead.compute", report->compute},
                              {"runahead.transport", report->transport}});
    }
    add(std::move(span));
  }

  // What the coordinator saw, one after the other.
  void add_stages() {
    const RequestMarks& at = request_.report->marks;
    const double tokenize = request_.report->stages[TtftStage::kTokenize];
    const std::pair<const char*, double> ends[] = {{"receive", at.submitted - tokenize}, {"tokenize", at.submitted},
                                                   {"queue", at.plan_started},           {"plan", at.dispatched},
                                                   {"prefill", at.first_token},          {"respond", at.written},
                                                   {"answer", timeline_.spans[0].end}};
    double begin = 0;
    for (const auto& [stage, end] : ends)
      begin =
          timeline_.spans[add({.name = stage, .process = kCoordinator, .parent = 0, .begin = begin, .end = end})].end;
  }

  void add_ranks() {
    for (const RankReport& rank : request_.report->ranks) {
      const size_t process = timeline_.processes.size();
      timeline_.processes.push_back(
          {"rank " + std::to_string(rank.rank) + ": " + rank.worker, {"compute", "send K/V"}});
      std::optional<size_t> work, sending;
      if (rank.worked_at_seconds > 0) work = add_work(rank, process);
      if (rank.sent_at_seconds > 0) sending = add_sending(rank, process);
      works_.push_back(work);
      sendings_.push_back(sending);
    }
  }

  size_t add_work(const RankReport& rank, size_t process) {
    const double begin = std::max(rank.worked_at_seconds - rank.total_seconds, request_.report->marks.plan_started);
    Span span{.name = "rank " + std::to_string(rank.rank),
              .process = process,
              .lane = kComputeLane,
              .parent = 0,
              .begin = begin,
              .end = rank.worked_at_seconds};
    span.attributes = {{"runahead.rank", rank.rank},
                       {"runahead.worker", rank.worker},
                       {"runahead.device", rank.device},
                       {"runahead.chunk.begin", rank.chunk.begin},
                       {"runahead.chunk.end", rank.chunk.end}};
    const size_t whole = add(std::move(span));
    const std::pair<const char*, double> parts[] = {{"lane_wait", rank.lane_wait_seconds},
                                                    {"prefill_compute", rank.compute_seconds},
                                                    {"kv_wait", rank.kv_wait_seconds},
                                                    {"sample", rank.sample_seconds}};
    double at = timeline_.spans[whole].begin;
    for (const auto& [part, took] : parts) {
      if (!(took > 0)) continue;
      Span sum{.name = part,
               .process = process,
               .lane = kComputeLane,
               .parent = whole,
               .begin = at,
               .end = at + took,
               .is_sum = true};
      sum.attributes = {{"runahead.rank", rank.rank}, {"runahead.sum_seconds", took}};
      at += took;
      add(std::move(sum));
    }
    return whole;
  }

  size_t add_sending(const RankReport& rank, size_t process) {
    Span span{.name = "kv_send",
              .process = process,
              .lane = kSendLane,
              .parent = 0,
              .begin = std::max(rank.sent_at_seconds - rank.kv_send_seconds, request_.report->marks.plan_started),
              .end = rank.sent_at_seconds};
    span.attributes = {{"runahead.rank", rank.rank},
                       {"runahead.kv.sent_bytes", rank.kv_sent_bytes},
                       {"runahead.kv.received_bytes", rank.kv_received_bytes},
                       {"runahead.kv.wire_seconds", rank.kv_wire_seconds}};
    return add(std::move(span));
  }

  // The decode worker gets the pages that it does not keep, and makes all tokens but the first.
  void add_decode() {
    const RequestMarks& at = request_.report->marks;
    const size_t process = timeline_.processes.size();
    timeline_.processes.push_back({"decode: " + request_.report->decode_worker, {"decode", "receive K/V"}});
    const double received = request_.report->ranks.empty() ? 0 : request_.report->ranks.back().sent_at_seconds;
    if (received > 0)
      receive_ = add({.name = "kv_receive",
                      .process = process,
                      .lane = kReceiveLane,
                      .parent = 0,
                      .begin = at.dispatched,
                      .end = received});
    if (at.second_token <= 0) return;
    const size_t decode = add({.name = "decode",
                               .process = process,
                               .lane = kDecodeLane,
                               .parent = 0,
                               .begin = at.first_token,
                               .end = timeline_.spans[0].end});
    add({.name = "first_decode",
         .process = process,
         .lane = kDecodeLane,
         .parent = decode,
         .begin = at.first_token,
         .end = at.second_token});
  }

  void add_flows() {
    for (size_t rank = 0; rank < sendings_.size(); ++rank) {
      const std::optional<size_t> to = rank + 1 < works_.size() ? works_[rank + 1] : receive_;
      if (!sendings_[rank] || !to) continue;
      const Span &from = timeline_.spans[*sendings_[rank]], &receiver = timeline_.spans[*to];
      PageFlow flow{.from = *sendings_[rank], .to = *to, .bytes = request_.report->ranks[rank].kv_sent_bytes};
      flow.received = std::clamp(from.end, receiver.begin, receiver.end);
      flow.sent = std::min(from.begin, flow.received);
      if (flow.sent < from.begin || flow.bytes == 0) continue;  // reports that contradict each other draw no arrow
      timeline_.flows.push_back(flow);
    }
  }

  const TracedRequest& request_;
  Timeline timeline_;
  std::vector<std::optional<size_t>> works_, sendings_;  // [num_ranks]
  std::optional<size_t> receive_;
};

}  // namespace

Timeline timeline_of(const TracedRequest& request) { return TimelineBuilder(request).build(); }

}  // namespace runahead
