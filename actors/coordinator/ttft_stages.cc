#include "actors/coordinator/ttft_stages.h"

#include <algorithm>

namespace runahead {

void fill_stages(const TtftStamps& stamps, const proto::RankTiming& last_rank, TtftReport& report) {
  using enum TtftStage;
  TtftStages& stages = report.stages;
  const double prepare = seconds(stamps.submitted - stamps.received);
  stages[kTokenize] = std::min(seconds(stamps.tokenize), prepare);
  stages[kRespond] = prepare - stages[kTokenize] + seconds(stamps.written - stamps.first_token);
  stages[kQueue] = seconds(stamps.plan_started - stamps.submitted) + last_rank.lane_wait_seconds();
  // The first rank may start while the last one's message is still being made, so the two are divided together.
  const double away =
      std::max(0.0, seconds(stamps.first_token - stamps.held - stamps.plan_started) - last_rank.total_seconds());
  stages[kPlan] = std::min(seconds(stamps.dispatched - stamps.plan_started), away);
  stages[kDispatch] = away - stages[kPlan];
  stages[kPrefillCompute] = last_rank.compute_seconds();
  stages[kKvWait] = last_rank.kv_wait_seconds();
  stages[kSample] = last_rank.sample_seconds();
  stages[kOther] = last_rank.total_seconds() - last_rank.compute_seconds() - last_rank.kv_wait_seconds() -
                   last_rank.lane_wait_seconds() - last_rank.sample_seconds() + seconds(stamps.held);
  report.ttft_seconds = seconds(stamps.written - stamps.received);
  const auto mark = [&](Time at) { return seconds(at - stamps.received); };
  report.marks.submitted = mark(stamps.submitted);
  report.marks.plan_started = mark(stamps.plan_started);
  report.marks.dispatched = mark(stamps.dispatched);
  report.marks.first_token = mark(stamps.first_token);
  report.marks.written = mark(stamps.written);
}

}  // namespace runahead
