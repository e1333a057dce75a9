// PlanReasons: why a plan is as it is, for people: what no plan can beat, what holds this one up, and from which length on a
// chain pays. Pure arithmetic, any thread; some hundred plans, so not for every request.
#pragma once

#include <string>

#include "planner/strategies.h"

namespace runahead {

struct PlanReasons {
  // All work divided without loss among all workers, or the K/V that must reach the last token's owner: what is longer.
  double bound_seconds = 0;
  // What helps most if it is a tenth faster: the worker of a rank, or the link into it.
  int32_t critical_rank = 0;
  bool critical_is_link = false;
  double critical_gain = 0;  // seconds of TTFT for that tenth
  // The shortest prompt for which `balanced` takes two ranks or more; 0: none up to the longest that was asked for.
  int32_t crossover_tokens = 0;
};

// `plan` is make_plan(request); context_max: the longest prompt for the crossover.
PlanReasons explain(const PlanRequest& request, const Plan& plan, int32_t context_max);

// One sentence: "rank 3 of 4 computes for 1.21 s and decides; ..."
std::string text(const PlanReasons& reasons, const Plan& plan);

}  // namespace runahead
