#include "actors/coordinator/ttft_stages.h"

#include <algorithm>

namespace runahead {

void fill_stages(const TtftStamps& stamps, const proto::RankTiming& last_rank, TtftReport& report) {
  const double prepare = seconds(stamps.submitted - stamps.received);
  report.tokenize = std::min(seconds(stamps.tokenize), prepare);
  report.respond = prepare - report.tokenize + seconds(stamps.written - stamps.first_token);
  report.queue = seconds(stamps.plan_started - stamps.submitted) + last_rank.lane_wait_seconds();
  // The first rank may start while the last one's message is still being made, so the two are divided together.
  const double away = std::max(0.0, seconds(stamps.first_token - stamps.held - stamps.plan_started) - last_rank.total_seconds());
  report.plan = std::min(seconds(stamps.dispatched - stamps.plan_started), away);
  report.dispatch = away - report.plan;
  report.prefill_compute = last_rank.compute_seconds();
  report.kv_wait = last_rank.kv_wait_seconds();
  report.sample = last_rank.sample_seconds();
  report.other = last_rank.total_seconds() - last_rank.compute_seconds() - last_rank.kv_wait_seconds() -
                 last_rank.lane_wait_seconds() - last_rank.sample_seconds() + seconds(stamps.held);
  report.ttft_seconds = seconds(stamps.written - stamps.received);
}

}  // namespace runahead
