#include "actors/worker/decode_core.h"

#include <gtest/gtest.h>

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

constexpr Time kNow = 1s;

AttemptId id_of(uint64_t request) { return {1, request, 1}; }

DecodeOrder order_of(uint64_t request, int32_t max_new_tokens, std::vector<TokenId> stop_tokens = {}) {
  return {.attempt = id_of(request),
          .prompt_len = 3,
          .max_new_tokens = max_new_tokens,
          .stop_tokens = std::move(stop_tokens),
          .prompt = {1, 2, 3},
          .prompt_len_original = 2};
}

template <class T>
const T* only(const std::vector<DecodeAction>& actions) {
  return actions.size() == 1 ? std::get_if<T>(&actions[0]) : nullptr;
}

TEST(DecodeCore, ASequenceJoinsWhenBothItsPagesAndItsFirstTokenAreThere) {
  for (const bool pages_first : {true, false}) {
    DecodeCore core;
    core.add(order_of(1, 4));
    EXPECT_TRUE(core.next_step(kNow).empty());
    if (pages_first) core.pages_complete(id_of(1));
    else core.first_token(id_of(1), 7, kNow);
    EXPECT_TRUE(core.next_step(kNow).empty());
    if (pages_first) core.first_token(id_of(1), 7, kNow);
    else core.pages_complete(id_of(1));
    const auto rows = core.next_step(kNow + 5ms);
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0].token, 7);
    EXPECT_EQ(rows[0].position, 3) << "the first token stands right behind the prompt";
    EXPECT_EQ(rows[0].sequence->prompt().size(), 2u) << "what earlier attempts made is not prompt";
    EXPECT_EQ(rows[0].sequence->generated, (std::vector<TokenId>{3, 7}));
    EXPECT_EQ(rows[0].sequence->handoff, 5ms);
  }
}

TEST(DecodeCore, AStepTakesTheOldestUpToItsSlotsAndTheNextWhenOneIsFree) {
  DecodeCore core({}, 2);
  for (const uint64_t request : {3, 1, 2}) {
    core.add(order_of(request, 2));
    core.pages_complete(id_of(request));
    core.first_token(id_of(request), 7, kNow);
  }
  auto rows = core.next_step(kNow);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].sequence->order.attempt, id_of(1));
  EXPECT_EQ(rows[1].sequence->order.attempt, id_of(2));
  core.stepped(rows, {{.token = 8}, {.token = 8}});  // both have their two tokens
  rows = core.next_step(kNow);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].sequence->order.attempt, id_of(3));
}

TEST(DecodeCore, WithoutTheManifestCheckItWouldJoinTooEarly) {  // the planted bug that the simulation must find
  DecodeCore core(TestFaults{.accept_incomplete_manifest = true});
  core.add(order_of(1, 4));
  core.first_token(id_of(1), 7, kNow);
  EXPECT_EQ(core.next_step(kNow).size(), 1u);
}

TEST(DecodeCore, ItStopsAtItsLengthWithEveryIndexOnce) {
  DecodeCore core;
  core.add(order_of(1, 3));
  core.pages_complete(id_of(1));
  core.first_token(id_of(1), 7, kNow);
  auto actions = core.stepped(core.next_step(kNow), {{.token = 8}});
  ASSERT_NE(only<SendToken>(actions), nullptr);
  EXPECT_EQ(only<SendToken>(actions)->index, 1);
  const auto rows = core.next_step(kNow);
  EXPECT_EQ(rows[0].token, 8);
  EXPECT_EQ(rows[0].position, 4);
  actions = core.stepped(rows, {{.token = 9}});
  ASSERT_EQ(actions.size(), 2u);
  EXPECT_EQ(std::get<SendToken>(actions[0]).index, 2);
  EXPECT_EQ(std::get<SequenceDone>(actions[1]).tokens, 3);
  EXPECT_TRUE(core.next_step(kNow).empty());
}

TEST(DecodeCore, ItStopsAtAStopTokenEvenIfThatIsTheFirst) {
  DecodeCore core;
  core.add(order_of(1, 9, {5}));
  core.pages_complete(id_of(1));
  EXPECT_NE(only<SequenceDone>(core.first_token(id_of(1), 5, kNow)), nullptr);
  core.add(order_of(2, 9, {5}));
  core.first_token(id_of(2), 1, kNow);
  core.pages_complete(id_of(2));
  const auto actions = core.stepped(core.next_step(kNow), {{.token = 5}});
  ASSERT_EQ(actions.size(), 2u);
  EXPECT_EQ(std::get<SendToken>(actions[0]).token.token, 5) << "the coordinator decides that it is the end";
}

TEST(DecodeCore, OneTokenNeedsNoStepButItsPages) {
  DecodeCore core;
  core.add(order_of(1, 1));
  EXPECT_TRUE(core.first_token(id_of(1), 5, kNow).empty()) << "the chain is still sending to us";
  EXPECT_NE(only<SequenceDone>(core.pages_complete(id_of(1))), nullptr);
}

TEST(DecodeCore, SequencesJoinAndLeaveWhileOthersGoOn) {
  DecodeCore core;
  for (const uint64_t request : {1, 2, 3}) {
    core.add(order_of(request, 5));
    core.pages_complete(id_of(request));
  }
  core.first_token(id_of(1), 10, kNow);
  core.first_token(id_of(2), 20, kNow);
  const auto rows = core.next_step(kNow);
  ASSERT_EQ(rows.size(), 2u);
  core.first_token(id_of(3), 30, kNow);  // while the step runs
  core.leave(id_of(1));
  const auto actions = core.stepped(rows, {{.token = 11}, {.token = 21}});
  ASSERT_NE(only<SendToken>(actions), nullptr) << "who has left gets no token";
  EXPECT_EQ(only<SendToken>(actions)->attempt, id_of(2));
  EXPECT_EQ(rows[0].sequence->order.attempt, id_of(1)) << "and is alive until the step has ended";
  EXPECT_EQ(core.next_step(kNow).size(), 2u);
}

TEST(DecodeCore, MessagesAboutUnknownSequencesAndDoubleFirstTokensDoNothing) {
  DecodeCore core;
  EXPECT_TRUE(core.pages_complete(id_of(4)).empty());
  EXPECT_TRUE(core.first_token(id_of(4), 1, kNow).empty());
  core.leave(id_of(4));
  core.add(order_of(1, 3));
  core.first_token(id_of(1), 7, kNow);
  core.first_token(id_of(1), 8, kNow);
  core.pages_complete(id_of(1));
  EXPECT_EQ(core.next_step(kNow)[0].token, 7);
}

// What has keys and values, if the pages of the prompt have come.
TEST(DecodeCore, SaysHowFarASequenceIsOnceItHasJoined) {
  DecodeCore core;
  core.add(order_of(1, 5));
  EXPECT_EQ(core.made(id_of(1)), 0);
  core.first_token(id_of(1), 7, 1s);
  EXPECT_EQ(core.made(id_of(1)), 0) << "its pages are on their way";
  core.pages_complete(id_of(1));
  EXPECT_EQ(core.made(id_of(1)), 1);
  (void)core.stepped(core.next_step(1s), {SampledToken{.token = 8}});
  EXPECT_EQ(core.made(id_of(1)), 2);
  core.leave(id_of(1));
  EXPECT_EQ(core.made(id_of(1)), 0);
}

}  // namespace
}  // namespace runahead::test
