// Paper 4.1, 4.3, 5 and App A: traffic, waits and when parallel prefill pays. Numbers are the paper's unless it says ours.
#include <gtest/gtest.h>

#include "papers_machine.h"

namespace runahead {
namespace {

// Equations 6 and 7: even chunks cost the chain (p - 1) C / 2 rows of K,V; all-gathers cost (p - 1) C (4, 5).
TEST(Paper41, TotalTrafficIsHalfOfAllGathers) {
  for (int32_t ranks : {2, 3, 4, 8, 16}) {
    const int32_t context_len = ranks * 1024;
    EXPECT_EQ(chain_traffic_rows(even_partition(context_len, ranks)), (ranks - 1) * context_len / 2);
  }
}

// Figures 4 and 5: C = 9, p = 3, chunks [4,3,2]: 16, 21, 18 dot products, and 22 rows of K and V (11 of each).
TEST(Paper41, TheExampleOfNineTokensCountsAsInTheFigures) {
  const Partition chunks = {{0, 4}, {4, 7}, {7, 9}};
  ModelCost dense{.num_layers = 1, .diagonal_share = 1, .skip_last_layer = false};
  const double products[] = {16, 21, 18};
  for (size_t rank = 0; rank < 3; ++rank) EXPECT_EQ(chunk_work(dense, chunks[rank], rank == 2).pairs, products[rank]);
  EXPECT_EQ(2 * chain_traffic_rows(chunks), 22);
}

// "Only the last process ends with the full (K,V)", so half the traffic is not half for each: with 4.2's split of 10k
// tokens, [0.350, 0.255, 0.210, 0.185], the link into the last process carries 1 - 0.185 of it, and if it is slow the
// first token waits for just that.
TEST(Paper41, OnASlowLinkTheLastProcessWaitsForAllButItsOwnChunk) {
  const double bytes_per_second = kPoorBandwidth / 10;
  const Plan chain = *make_plan({.strategy = Strategy::kByHand,
                                 .context_len = 10240,
                                 .model = llama7b(),
                                 .workers = gpus(4, bytes_per_second),
                                 .cuts = {3584, 6208, 8320}});  // the split, to a page
  const double context_bytes = llama7b().kv_bytes_per_token * 10240;
  EXPECT_NEAR(chain.predicted_ttft_seconds * bytes_per_second / context_bytes, 1 - .185, 0.005);
}

// "recv overlaps the QKV projection, send overlaps softmax". Fig 8d: the paper's chain is up to 17 % above the same
// chain without communication. Ours, whose receives are all posted ahead, is predicted within 1 %: its skew is paid once,
// not once a layer.
TEST(Paper43, TransfersAreHiddenBehindComputation) {
  std::vector<WorkerProfile> no_communication = gpus(8, 1e18);
  for (WorkerProfile& worker : no_communication) worker.ingress.latency_seconds = 0;
  for (int32_t context_len : {8192, 12288, 16384})
    for (int32_t ranks : {2, 4, 8}) {
      const double bound = plan(context_len, no_communication, Strategy::kBalanced, ranks).predicted_ttft_seconds;
      const double ours = plan(context_len, gpus(8), Strategy::kBalanced, ranks).predicted_ttft_seconds;
      EXPECT_GE(ours, bound);
      EXPECT_LT(ours, 1.01 * bound) << context_len << " tokens on " << ranks;
    }
}

struct Row {
  int32_t context_len;
  double four, eight;
};

// Table 1, Llama 7B at 300 GB/s, KVR-S: the measured chain is above the predicted one, by a fifth at most (launches and
// copies are not in the model; below 8k they are most of the time).
TEST(PaperTable1, ThePredictedChainIsAFifthBelowTheMeasuredAtMost) {
  for (const auto& [context_len, four, eight] : {Row{8192, .41, .22}, {12288, .76, .41}, {16384, 1.24, .65}})
    for (const auto& [ranks, seconds] : {std::pair{4, four}, {8, eight}}) {
      const double ours = plan(context_len, gpus(8), Strategy::kBalanced, ranks).predicted_ttft_seconds;
      EXPECT_LT(ours, seconds) << context_len << " tokens on " << ranks;
      EXPECT_GT(ours, 0.8 * seconds) << context_len << " tokens on " << ranks;
    }
}

// Table 3, 1 GB/s, where more GPUs are not always better: the fastest of 1, 2 and 4 GPUs is 1 for 1k tokens (.10 .11 .19)
// and 2 for 2k (.24 .21 .35), 8k (1.95 1.31 2.06) and 12k (3.95 2.28 2.30). The planner, which may use 4, takes as many.
// (4k is left out: the paper's two GPUs need longer than one, .84 to .65, for which the bytes are no reason.)
TEST(PaperTable3, ThePlannerTakesAsManyGpusAsAreFastestOnAPoorLink) {
  struct Fastest {
    int32_t context_len;
    size_t gpus;
  };
  for (const auto& [context_len, count] : {Fastest{1024, 1}, {2048, 2}, {8192, 2}, {12288, 2}})
    EXPECT_EQ(plan(context_len, gpus(4, kPoorBandwidth)).ranks.size(), count) << context_len;
  EXPECT_NEAR(plan(8192, gpus(4, kPoorBandwidth)).predicted_ttft_seconds, 1.31, 0.131);
  EXPECT_NEAR(plan(12288, gpus(4, kPoorBandwidth)).predicted_ttft_seconds, 2.28, 0.228);
}

// The other half of it: on 10 and 300 GB/s all four GPUs help from 4k on (Table 3: .65 .38 .36, 1.95 .99 .72, 3.95 1.82
// 1.15 s).
TEST(PaperTable3, ThePlannerTakesAllGpusIfTheLinkIsFastEnough) {
  for (double bytes_per_second : {kLowBandwidth, kHighBandwidth})
    for (int32_t context_len : {4096, 8192, 12288})
      EXPECT_EQ(plan(context_len, gpus(4, bytes_per_second)).ranks.size(), 4u) << context_len;
}

// "Or the prompt long enough": Table 3, 10 GB/s, 4 GPUs over one: 1.00 1.26 1.81 2.71 3.43. Ours runs ahead, and gains
// more at each length.
TEST(PaperTable3, LongPromptsGainMoreFromTheChainAndNoLessThanInThePaper) {
  double last = 1;
  for (const auto& [context_len, measured] :
       {std::pair{1024, .10 / .10}, {2048, .24 / .19}, {4096, .65 / .36}, {8192, 1.95 / .72}, {12288, 3.95 / 1.15}}) {
    const double one = plan(context_len, gpus(4), Strategy::kSingle).predicted_ttft_seconds;
    const double gain = one / plan(context_len, gpus(4, kLowBandwidth)).predicted_ttft_seconds;
    EXPECT_GT(gain, measured) << context_len;
    EXPECT_GT(gain, last) << context_len;
    last = gain;
  }
}

}  // namespace
}  // namespace runahead
