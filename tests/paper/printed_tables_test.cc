// Every printed time of Llama 7B (tables 1 and 3 of arXiv 2405.05329) beside what our model of the paper's machine says: prints
// the table that docs/paper.md quotes, and holds how far they are apart.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "papers_machine.h"
#include "planner/split_search.h"

namespace runahead {
namespace {

struct Cell {
  int32_t context_len, gpus;
  double bandwidth, printed;  // bytes a second, seconds
};

// Table 1, KVR-S; then TSP of the same.
constexpr Cell kTable1[] = {
    {1024, 4, kHighBandwidth, .097}, {1024, 8, kHighBandwidth, .098},  {2048, 4, kHighBandwidth, .100},
    {2048, 8, kHighBandwidth, .103}, {4096, 4, kHighBandwidth, .17},   {4096, 8, kHighBandwidth, .11},
    {8192, 4, kHighBandwidth, .41},  {8192, 8, kHighBandwidth, .22},   {12288, 4, kHighBandwidth, .76},
    {12288, 8, kHighBandwidth, .41}, {16384, 4, kHighBandwidth, 1.24}, {16384, 8, kHighBandwidth, .65}};
constexpr double kTable1Tsp[] = {.107, .117, .111, .117, .20, .12, .54, .30, 1.06, .57, 1.76, .92};
// Table 3, KVR.
constexpr Cell kTable3[] = {
    {1024, 2, kLowBandwidth, .10},    {1024, 4, kLowBandwidth, .10},   {1024, 2, kPoorBandwidth, .11},
    {1024, 4, kPoorBandwidth, .19},   {2048, 2, kLowBandwidth, .16},   {2048, 4, kLowBandwidth, .19},
    {2048, 2, kPoorBandwidth, .21},   {2048, 4, kPoorBandwidth, .35},  {4096, 2, kLowBandwidth, .38},
    {4096, 4, kLowBandwidth, .36},    {4096, 2, kPoorBandwidth, .84},  {4096, 4, kPoorBandwidth, .93},
    {8192, 2, kLowBandwidth, .99},    {8192, 4, kLowBandwidth, .72},   {8192, 2, kPoorBandwidth, 1.31},
    {8192, 4, kPoorBandwidth, 2.06},  {12288, 2, kLowBandwidth, 1.82}, {12288, 4, kLowBandwidth, 1.15},
    {12288, 2, kPoorBandwidth, 2.28}, {12288, 4, kPoorBandwidth, 2.30}};

double chain_seconds(const Cell& cell) {
  return plan(cell.context_len, gpus(static_cast<size_t>(cell.gpus), cell.bandwidth), Strategy::kBalanced, cell.gpus)
      .predicted_ttft_seconds;
}

// Even split, dense scores; all-gather in every layer, (p - 1) / p of the K/V over each link, nothing hidden.
double tsp_seconds(const Cell& cell) {
  const double n = cell.context_len, p = cell.gpus;
  return (kA100.seconds_per_token * n + kA100.seconds_per_pair * n * n) / p +
         llama7b().kv_bytes_per_token * n * (1 - 1 / p) / cell.bandwidth;
}

// The paper's chain with receives that a rank posts when it reaches a layer, and whole prefixes that it forwards when it has
// them; its next layer also waits for its own send. Sections 4.1 and 4.3 leave this open; its times do not.
double late_seconds(double bandwidth, const Partition& chunks) {
  const ModelCost model = llama7b();
  const double layers = model.num_layers, layer_bytes = model.kv_bytes_per_token / layers;
  std::vector<double> end(chunks.size()), link(chunks.size());
  for (int32_t layer = 0; layer < model.num_layers; ++layer) {
    const std::vector<double> begin = end;
    std::vector<double> sent(chunks.size());
    double held = 0;  // when the rank before has its whole prefix and its own rows
    for (size_t i = 0; i < chunks.size(); ++i) {
      const double n = chunks[i].size(), prefix = chunks[i].begin;
      double have = begin[i] + model.qkv_share * kA100.seconds_per_token * n / layers;
      if (i > 0) {
        link[i] = sent[i - 1] = std::max({held, link[i], begin[i]}) + layer_bytes * prefix / bandwidth;
        have = std::max(have, link[i]);
      }
      held = have;
      end[i] =
          have +
          (kA100.seconds_per_pair * n * (prefix + n) + (1 - model.qkv_share) * kA100.seconds_per_token * n) / layers;
    }
    for (size_t i = 0; i < chunks.size(); ++i) end[i] = std::max(end[i], sent[i]);
  }
  return end.back();
}

// With the cuts that suit it best.
double late_chain_seconds(const Cell& cell) {
  SplitSearch search(cell.context_len, cell.gpus);
  while (const auto cuts = search.next())
    search.measured(late_seconds(cell.bandwidth, *partition_by_hand(cell.context_len, *cuts)));
  return search.best_seconds();
}

// Signed, of the printed time.
double print_row(const char* table, const Cell& cell, const char* scheme, double printed, double model) {
  std::printf("| %s | %s | %d | %d | %g | %.3g | %.3g | %+.0f %% |\n", table, scheme, cell.context_len, cell.gpus,
              cell.bandwidth / 1e9, printed, model, 100 * (model / printed - 1));
  return model / printed - 1;
}

double median_distance(std::vector<double> errors) {
  for (double& error : errors) error = std::abs(error);
  std::ranges::sort(errors);
  return errors[errors.size() / 2];
}

// From 4k on: below that the paper's times stand on a floor of about .1 s that launches make, and no model of work has.
TEST(PaperTables, EveryCellOfLlama7BBesideOurModelOfItsMachine) {
  std::vector<double> chain, tsp;
  for (size_t i = 0; i < std::size(kTable1); ++i) {
    const double ours = print_row("1", kTable1[i], "KVR-S", kTable1[i].printed, chain_seconds(kTable1[i]));
    const double gathered = print_row("1", kTable1[i], "TSP", kTable1Tsp[i], tsp_seconds(kTable1[i]));
    EXPECT_LT(ours, 0.05) << "the model has nothing that takes time but work and wire";
    if (kTable1[i].context_len < 8192) continue;
    chain.push_back(ours);
    tsp.push_back(gathered);
  }
  EXPECT_LT(median_distance(chain), 0.18) << "the paper itself is up to 17 % above no communication";
  EXPECT_LT(median_distance(tsp), 0.1);
}

// What the paper printed took longer than a chain that runs ahead takes on these links, but for 1 GB/s with two GPUs.
TEST(PaperTables, OnSlowLinksAChainThatRunsAheadIsFasterThanThePrintedOne) {
  std::vector<double> low;
  for (const Cell& cell : kTable3) {
    const double error = print_row("3", cell, "KVR", cell.printed, chain_seconds(cell));
    if (cell.bandwidth == kLowBandwidth && cell.gpus == 4 && cell.context_len >= 4096) low.push_back(error);
  }
  for (const double error : low) EXPECT_LT(error, -0.25) << "1.3 times as fast at least";
}

// ... and one whose receives are late takes about what was printed.
TEST(PaperTables, OnSlowLinksAChainWithLateReceivesIsThePrintedOne) {
  for (const Cell& cell : kTable3) {
    if (cell.bandwidth != kLowBandwidth || cell.gpus != 4 || cell.context_len < 8192) continue;
    EXPECT_LT(std::abs(print_row("3", cell, "KVR, late receives", cell.printed, late_chain_seconds(cell))), 0.12);
  }
}

}  // namespace
}  // namespace runahead
