// Where the time to first token went. Every stage is a difference of stamps of one clock (the coordinator's, or the
// last rank's), so their sum is TTFT exactly, and nothing compares clocks of two machines.
//
//   received   submitted   plan_started   dispatched             first_token   written
//      | tokenize  |   queue    |    plan     |       dispatch        |            |
//      | +respond  |            |             | [last rank: total]    |  respond   |
//
// `total` of the last rank is divided into prefill_compute, kv_wait, sample, waiting for the lane while other requests
// compute (counted as queue), and the rest (other; so is the time that a first token was held). dispatch is what is left
// of the way there and back. Time that failed attempts took is queue: the request waited for the attempt that succeeded.
// Pure.
#pragma once

#include "actors/inference.h"
#include "proto/common.pb.h"

namespace runahead {

struct TtftStamps {
  Time received{0};  // first byte of the request parsed
  Duration tokenize{0};
  Time submitted{0};
  Time plan_started{0};
  Time dispatched{0};
  Time first_token{0};
  Duration held{0};  // of that: the first token was there, and waited for log-probabilities of the prompt
  Time written{0};  // to the client
};

void fill_stages(const TtftStamps& stamps, const proto::RankTiming& last_rank, TtftReport& report);

}  // namespace runahead
