// The simulator against runs of real processes on deploy/testbed.sh, kept as data: recorded_runs.csv, written by
// `bench/paper.py --record`. Each rank is taken as fast as it was in that run, so that what is compared is what the simulator
// adds: who waits for whom, and for how long.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "planner/chain_timeline.h"
#include "planner/profile.h"
#include "small_model.h"

namespace runahead {
namespace {

struct RecordedRun {
  int32_t nodes = 0, tokens = 0;
  double mbit = 0, kv_bytes_per_token = 0, ttft = 0, predicted = 0;
  std::string scheme;
  Partition partition;
  std::vector<double> compute;  // seconds, by rank
};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) parts.push_back(part);
  return parts;
}

std::vector<RecordedRun> recorded_runs() {
  std::ifstream file(std::string(RUNAHEAD_SOURCE_DIR) + "/tests/planner/recorded_runs.csv");
  std::vector<RecordedRun> runs;
  std::string line;
  std::getline(file, line);
  EXPECT_EQ(line, "nodes,tokens,mbit,kv_bytes_per_token,scheme,cuts,ttft,predicted,compute,wait");
  while (std::getline(file, line)) {
    const std::vector<std::string> cells = split(line, ',');
    RecordedRun run{.nodes = std::stoi(cells.at(0)),
                    .tokens = std::stoi(cells.at(1)),
                    .mbit = std::stod(cells.at(2)),
                    .kv_bytes_per_token = std::stod(cells.at(3)),
                    .ttft = std::stod(cells.at(6)),
                    .predicted = std::stod(cells.at(7)),
                    .scheme = cells.at(4)};
    std::vector<int32_t> cuts;
    for (const std::string& cut : split(cells.at(5), '+')) cuts.push_back(std::stoi(cut));
    run.partition = partition_by_hand(run.tokens, cuts).value();
    for (const std::string& seconds : split(cells.at(8), '+')) run.compute.push_back(std::stod(seconds));
    runs.push_back(std::move(run));
  }
  return runs;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// The default model, whose runs they are.
ModelCost model_of(const RecordedRun& run) {
  ModelCost model = small_model();
  model.kv_bytes_per_token = run.kv_bytes_per_token;
  return model;
}

bool is_last(const RecordedRun& run, size_t rank) { return rank + 1 == run.partition.size(); }

// One law of all that the nodes did, for how a chunk's time divides into its parts.
WorkerSpeed law_of(const std::vector<RecordedRun>& runs) {
  const ModelCost model = model_of(runs.front());
  WorkerEstimate law(model, default_speed(model));
  for (const RecordedRun& run : runs)
    for (size_t rank = 0; rank < run.compute.size(); ++rank)
      law.add_chunk(run.partition[rank], is_last(run, rank), run.compute[rank]);
  return law.speed();
}

// Of a node's time, by how much it is longer than what its jobs take: between two of them a throttled thread waits for its next
// period. One worker alone shows it, who waits for nobody else.
double hand_over_factor(const std::vector<RecordedRun>& runs, int32_t nodes) {
  std::vector<double> factors;
  for (const RecordedRun& run : runs)
    if (run.nodes == nodes && run.partition.size() == 1) factors.push_back(run.ttft / run.compute.front());
  EXPECT_FALSE(factors.empty()) << "no run of one worker among " << nodes;
  return factors.empty() ? 1 : median(factors);
}

double played(const RecordedRun& run, const WorkerSpeed& law, double hand_over) {
  constexpr double kLatency = 1e-3;  // of a page between two nodes: a switch of namespaces and a pause of the quota
  constexpr double kPayload = 1448.0 / 1514;  // of an Ethernet frame, by TCP with time stamps; the shaper counts frames
  const ModelCost model = model_of(run);
  std::vector<WorkerProfile> chain;
  for (size_t rank = 0; rank < run.partition.size(); ++rank) {
    const double expected = compute_seconds(law, chunk_work(model, run.partition[rank], is_last(run, rank)));
    chain.push_back({.speed = scaled(law, hand_over * run.compute[rank] / expected),
                     .ingress = {kLatency, kPayload * run.mbit * 1e6 / 8}});
  }
  return chain_timeline(model, chain, run.partition).ttft_seconds;
}

TEST(RecordedRuns, TheSimulatorPlaysThemAgain) {
  const std::vector<RecordedRun> runs = recorded_runs();
  ASSERT_GE(runs.size(), 25u);
  const WorkerSpeed law = law_of(runs);
  std::map<int32_t, std::vector<double>> errors;  // by nodes
  for (const RecordedRun& run : runs) {
    if (run.partition.size() < 2) continue;
    const double seconds = played(run, law, hand_over_factor(runs, run.nodes));
    errors[run.nodes].push_back(std::abs(seconds / run.ttft - 1));
    std::printf("%d nodes, %d tokens, %.4g Mbit/s, %-8s measured %6.2f s, played %6.2f s: %+.1f %%\n", run.nodes,
                run.tokens, run.mbit, run.scheme.c_str(), run.ttft, seconds, 100 * (seconds / run.ttft - 1));
  }
  for (const int32_t nodes : {2, 4, 8}) {
    ASSERT_TRUE(errors.contains(nodes)) << "no run of " << nodes << " nodes was kept";
    std::printf("%d nodes: median error %.1f %% of %zu runs\n", nodes, 100 * median(errors[nodes]),
                errors[nodes].size());
    EXPECT_LE(median(errors[nodes]), 0.05) << nodes << " nodes";
  }
}

}  // namespace
}  // namespace runahead
