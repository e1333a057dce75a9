// `runahead bench rank`: one rank of a rival (bench/rivals), in a process of its own, which bench/chain.py drives over stdin and
// stdout: one JSON object a line.
//   says   {"kv": "tcp://...", "kv_bytes_per_token": ..., "seconds_per_token": ..., "seconds_per_pair": ...,
//           "schemes": {"tsp": {"what": "...", "chunks_a_rank": 1, "exact": true}, ...}}, once
//   takes  {"run": 1, "scheme": "tsp", "rank": 0, "peers": ["tcp://...", ...], "tokens": [...], "cuts": [...],
//           "limit_seconds": 600}
//   says   {"run": 1, "token": 5, "logits_sha256": "..."} on the last rank, the moment it knows
//          {"run": 1, "seconds": ..., "compute_seconds": ..., "wait_seconds": ..., "sent_bytes": ...}, or "error" in their place
// It ends when stdin does.
#pragma once

#include "base/result.h"
#include "services/engine/engine_flags.h"

namespace runahead {

struct BenchRankOptions {
  std::string transport = "tcp";
  std::string data_listen = "127.0.0.1:0";
  bool insecure_network = false;
};

Result<void> bench_rank(const EngineFlags& flags, const BenchRankOptions& options);

}  // namespace runahead
