// Scenario: everything that one seed decides before it starts: the cluster's size, its weather, what the clients ask
// for, and the answer that is right for each request.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "actors/inference.h"
#include "actors/test_faults.h"
#include "sim_job_store.h"
#include "sim_kv_transport.h"
#include "sim_lane.h"
#include "sim_network.h"

namespace runahead::test {

struct Mutant {
  TestFaults actors;
  bool ignore_checksum = false;
};

// "none" and the planted bugs, by the name that --mutant takes.
struct NamedMutant {
  const char* name;
  Mutant mutant;
};
std::span<const NamedMutant> all_mutants();
Result<Mutant> find_mutant(std::string_view name);

struct RequestSpec {
  int32_t number = 0;
  bool is_job = false;
  bool must_succeed = false;  // sent when everything is well again
  InferenceRequest request;
  std::vector<TokenId> answer;  // the right tokens
  std::vector<SampledToken> scores;  // the right log-probabilities of the prompt, where it asks for them
  FinishReason finish = FinishReason::kLength;
  Time submit_at{0};                     // of the world
  std::optional<Duration> cancel_after;  // the client goes away
  size_t finish_at = 0;  // tokens, at which the client has all it wants, as with a stop string; 0: never. No job
  Duration read_pause_mean{0};           // a slow reader
};

// How often the nemesis does what; 0: not in this seed. Weights of one draw.
struct NemesisPlan {
  Duration interval_mean = std::chrono::milliseconds(400);
  int32_t kill_prefill = 0, kill_decode = 0, kill_coordinator = 0, pause = 0, cut_one_way = 0, cut_both_ways = 0;
  int32_t stick_lane = 0;
  Duration down_max = std::chrono::seconds(1);
  Duration pause_max = std::chrono::seconds(3);  // leases last 2 s
  Duration cut_max = std::chrono::seconds(3);
  Duration stick_max = std::chrono::seconds(40);  // longer than limits::kStallTimeout
};

struct Scenario {
  uint64_t seed = 0;
  int32_t prefill_workers = 2, decode_workers = 1;
  int64_t pool_pages = 256;         // of each worker
  double ack_lost_probability = 0;  // the client does not hear that its job was accepted, and asks again
  Duration safety = std::chrono::seconds(5);
  NetworkWeather network;
  KvWeather kv;
  LaneWeather lane;
  DiskWeather disk;
  NemesisPlan nemesis;
  std::vector<RequestSpec> requests;
};

Scenario draw_scenario(uint64_t seed);
// The same cluster without faults: what it is like after the heal.
void calm(Scenario& scenario);

}  // namespace runahead::test
