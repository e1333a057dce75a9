// An independent oracle for planner/chain_timeline: the chain page by page in an event queue. Shares no formula with
// the planner but the meaning of a, b, latency and bandwidth.
#pragma once

#include <span>

#include "planner/chain_timeline.h"

namespace runahead {

ChainTimeline simulate_pages(const ModelCost& model, std::span<const WorkerProfile> chain,
                             std::span<const TokenRange> partition);

}  // namespace runahead
