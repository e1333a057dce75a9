#include "actors/messages.h"

#include <gtest/gtest.h>

#include <functional>

#include "actors/worker/kv_manifest.h"
#include "base/limits.h"
#include "base/rng.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

const ModelShape kShape{.num_layers = 2, .vocab_size = 100, .context_len = 1000};

TEST(Messages, ARankThatIsNotTheLastHasAQuarterOfTheLayersAtOnceAndTwoAtLeast) {
  for (const auto& [layers, at_once] : {std::pair{1, 1}, {2, 2}, {3, 2}, {8, 2}, {9, 3}, {30, 8}, {32, 8}, {80, 20}}) {
    EXPECT_EQ(kv_layers_at_once(layers, false), at_once) << layers;
    EXPECT_EQ(kv_layers_at_once(layers, true), layers);
  }
}

void set_hop(proto::KvPeer* hop, const char* address) {
  hop->set_kv_address(address);
  hop->set_stream_token("a token of a hop");
}

proto::Envelope chain_step() {
  proto::Envelope message = envelope({2, 7, 1});
  proto::RunChainStep& step = *message.mutable_run_chain_step();
  step.set_rank(1);
  step.set_num_ranks(2);
  step.set_begin(64);
  step.set_end(100);
  for (int i = 0; i < 36; ++i) step.add_tokens(i);
  set_hop(step.mutable_upstream(), "up");
  set_hop(step.mutable_downstream(), "down");
  encode(SamplingParams{}, *step.mutable_sampling());
  step.set_prompt_len_original(100);
  step.set_deadline_ms(5000);
  return message;
}

proto::Envelope decode_order() {
  proto::Envelope message = envelope({2, 7, 1});
  proto::RunDecode& order = *message.mutable_run_decode();
  order.set_prompt_len(3);
  for (int i = 0; i < 3; ++i) order.add_prompt(i);
  set_hop(order.mutable_upstream(), "up");
  encode(SamplingParams{}, *order.mutable_sampling());
  order.set_max_new_tokens(10);
  order.set_prompt_len_original(3);
  order.set_deadline_ms(5000);
  return message;
}

// Behind two pages that it keeps, of which it gives the second to the first rank.
proto::Envelope giving_order() {
  proto::Envelope message = decode_order();
  proto::RunDecode& order = *message.mutable_run_decode();
  for (int i = 3; i < 129; ++i) order.add_prompt(i % 100);
  order.set_prompt_len(129);
  order.set_prompt_len_original(129);
  order.set_from_prefix(5);
  order.set_kept_pages(2);
  order.set_beginning_from(1);
  order.set_keep_prefix(6);
  order.set_keep_prompt(7);
  set_hop(order.mutable_beginning(), "first");
  return message;
}

TEST(Messages, AnOrderThatIsRightIsTaken) {
  const auto step = parse_chain_step(chain_step(), kShape, 1s);
  ASSERT_TRUE(step) << step.error().message;
  EXPECT_EQ(step->chunk, (TokenRange{64, 100}));
  EXPECT_EQ(step->upstream.stream_token, (StreamToken{0x206e656b6f742061, 0x706f68206120666f}));
  EXPECT_EQ(step->prefix_pages(), 1);
  EXPECT_TRUE(step->is_last_rank());
  EXPECT_EQ(step->deadline, Time(6s));
  EXPECT_EQ(step->prefix.pages, 0) << "received";
  proto::Envelope behind = chain_step();
  behind.mutable_run_chain_step()->set_rank(0);
  behind.mutable_run_chain_step()->set_num_ranks(1);
  behind.mutable_run_chain_step()->set_downstream_has(1);
  ASSERT_TRUE(parse_chain_step(behind, kShape, 1s)) << "from the decode worker";
  behind.mutable_run_chain_step()->clear_upstream();
  behind.mutable_run_chain_step()->set_from_prefix(3);
  behind.mutable_run_chain_step()->set_kept_pages(1);
  behind.mutable_run_chain_step()->set_keep_prefix(4);
  behind.mutable_run_chain_step()->add_drop_prefixes(2);
  const auto later = parse_chain_step(behind, kShape, 1s);
  ASSERT_TRUE(later) << later.error().message;
  EXPECT_EQ(later->prefix.from, 3u);
  EXPECT_EQ(later->prefix.pages, 1);
  EXPECT_EQ(later->prefix.keep, 4u);
  EXPECT_EQ(later->prefix.drop, std::vector<uint64_t>{2});
  EXPECT_EQ(later->downstream_has, 1);
  EXPECT_EQ(later->prefix_pages(), 1);
  EXPECT_EQ(later->full_pages(), 1);
  const auto order = parse_decode_order(decode_order(), kShape, 1s);
  ASSERT_TRUE(order) << order.error().message;
  EXPECT_EQ(order->prompt_len, 3);
  EXPECT_FALSE(order->gives_beginning());
  const auto giver = parse_decode_order(giving_order(), kShape, 1s);
  ASSERT_TRUE(giver) << giver.error().message;
  EXPECT_TRUE(giver->gives_beginning());
  EXPECT_EQ(giver->prefix.from, 5u);
  EXPECT_EQ(giver->prefix.pages, 2);
  EXPECT_EQ(giver->prefix.keep, 6u);
  EXPECT_EQ(giver->prefix.keep_prompt, 7u);
  EXPECT_EQ(giver->beginning_from, 1);
}

TEST(Messages, NoOrderOutOfBoundsGetsIn) {
  const std::vector<std::function<void(proto::RunChainStep&)>> steps = {
      [](auto& s) { s.set_rank(2); },
      [](auto& s) { s.mutable_upstream()->clear_stream_token(); },
      [](auto& s) { s.mutable_downstream()->set_stream_token("a token of an hop"); },
      [](auto& s) { s.set_num_ranks(1000); },
      [](auto& s) { s.set_num_ranks(0); },
      [](auto& s) { s.set_begin(65); },
      [](auto& s) { s.set_begin(-64); },
      [](auto& s) { s.set_end(64); },
      [](auto& s) { s.set_end(2000); },
      [](auto& s) { s.set_begin(0); },
      [](auto& s) { s.set_rank(0); },
      [](auto& s) { s.set_from_prefix(3), s.set_kept_pages(1); },  // of another rank than the first
      [](auto& s) {
        s.set_rank(0), s.set_num_ranks(1), s.set_from_prefix(3), s.set_kept_pages(1);
      },  // and from upstream
      [](auto& s) { s.set_rank(0), s.set_num_ranks(1), s.set_kept_pages(1), s.clear_upstream(); },  // of no number
      [](auto& s) { s.set_rank(0), s.set_num_ranks(1), s.clear_upstream(); },  // from nowhere
      [](auto& s) { s.set_rank(0), s.set_num_ranks(1), s.set_from_prefix(3), s.set_kept_pages(2), s.clear_upstream(); },
      [](auto& s) { s.set_rank(0), s.set_num_ranks(1), s.set_from_prefix(3), s.set_kept_pages(-1); },
      [](auto& s) { s.set_downstream_has(2); },
      [](auto& s) { s.set_downstream_has(-1); },
      [](auto& s) {  // a rank that has not every layer
        s.set_num_ranks(3), s.set_end(128), s.set_keep_prefix(3);
        for (int i = 0; i < 28; ++i) s.add_tokens(i);
      },
      [](auto& s) { s.set_rank(0), s.set_num_ranks(1), s.set_begin(0), s.set_end(36), s.set_from_prefix(3); },
      [](auto& s) {
        for (uint64_t i = 0; i < 2000; ++i) s.add_drop_prefixes(i);
      },
      [](auto& s) { s.set_num_ranks(3); },  // the chunk ends inside a page
      [](auto& s) { s.set_tokens(3, 100); },
      [](auto& s) { s.set_tokens(3, -1); },
      [](auto& s) { s.add_tokens(1); },
      [](auto& s) { s.clear_upstream(); },
      [](auto& s) { s.clear_downstream(); },
      [](auto& s) { s.set_deadline_ms(0); },
      [](auto& s) { s.set_prompt_len_original(0); },
      [](auto& s) { s.mutable_sampling()->set_repetition_penalty(2); },  // needs the prompt
      [](auto& s) { s.mutable_sampling()->set_top_p(-1); },
      [](auto& s) { s.mutable_sampling()->add_logit_bias()->set_token(100); },
      [](auto& s) { s.mutable_sampling()->add_banned(100); },
      [](auto& s) { s.mutable_sampling()->mutable_banned()->Resize(2000, 1); },
      [](auto& s) { s.mutable_scoring()->set_top(-1); },
      [](auto& s) { s.mutable_scoring()->set_top(limits::kTopLogprobsMax + 1); },
      [](auto& s) { s.mutable_scoring()->set_next_token(100); },
      [](auto& s) { s.mutable_scoring()->set_next_token(-1); },
  };
  for (size_t i = 0; i < steps.size(); ++i) {
    proto::Envelope message = chain_step();
    steps[i](*message.mutable_run_chain_step());
    EXPECT_FALSE(parse_chain_step(message, kShape, 1s)) << i;
  }
  const std::vector<std::function<void(proto::RunDecode&)>> orders = {
      [](auto& o) { o.set_prompt_len(4); },          [](auto& o) { o.set_prompt_len(0); },
      [](auto& o) { o.set_prompt_len(-5); },         [](auto& o) { o.set_max_new_tokens(0); },
      [](auto& o) { o.set_max_new_tokens(998); },    [](auto& o) { o.set_max_new_tokens(UINT32_MAX); },
      [](auto& o) { o.clear_upstream(); },           [](auto& o) { o.set_prompt(1, 100); },
      [](auto& o) { o.add_stop_tokens(-1); },        [](auto& o) { o.set_prompt_len_original(4); },
      [](auto& o) { o.set_prompt_len_original(0); }, [](auto& o) { o.mutable_sampling()->set_temperature(-1); },
  };
  for (size_t i = 0; i < orders.size(); ++i) {
    proto::Envelope message = decode_order();
    orders[i](*message.mutable_run_decode());
    EXPECT_FALSE(parse_decode_order(message, kShape, 1s)) << i;
  }
  const std::vector<std::function<void(proto::RunDecode&)>> givers = {
      [](auto& o) { o.set_kept_pages(3); },
      [](auto& o) { o.set_kept_pages(0); },
      [](auto& o) { o.set_kept_pages(-1); },
      [](auto& o) { o.set_from_prefix(0); },
      [](auto& o) { o.set_beginning_from(2); },
      [](auto& o) { o.set_beginning_from(-1); },
      [](auto& o) { o.mutable_beginning()->clear_kv_address(); },
  };
  for (size_t i = 0; i < givers.size(); ++i) {
    proto::Envelope message = giving_order();
    givers[i](*message.mutable_run_decode());
    EXPECT_FALSE(parse_decode_order(message, kShape, 1s)) << i;
  }
}

TEST(Messages, DeadlinesAreBounded) {
  proto::Envelope message = decode_order();
  message.mutable_run_decode()->set_deadline_ms(UINT32_MAX);
  EXPECT_EQ(parse_decode_order(message, kShape, Time{0})->deadline, Time(limits::kDeadlineMax));
}

TEST(Messages, RubbishIsNoEnvelope) {
  EXPECT_FALSE(parse_envelope(""));
  EXPECT_FALSE(parse_envelope("GET / HTTP/1.1\r\n\r\n"));
  EXPECT_FALSE(parse_envelope(serialize(envelope({1, 2, 3})))) << "no body";
  SeededRng rng(1);
  const std::string good = serialize(chain_step());
  for (int i = 0; i < 2000; ++i) {  // bytes flipped and cut: never a crash, and never an order out of bounds
    std::string bytes = good.substr(0, rng.next() % (good.size() + 1));
    for (int flips = 0; flips < 3 && !bytes.empty(); ++flips)
      bytes[rng.next() % bytes.size()] ^= static_cast<char>(rng.next());
    const Result<proto::Envelope> message = parse_envelope(bytes);
    if (!message || !message->has_run_chain_step()) continue;
    const Result<ChainStep> step = parse_chain_step(*message, kShape, 1s);
    if (!step) continue;
    EXPECT_LE(step->chunk.end, kShape.context_len);
    EXPECT_EQ(std::ssize(step->tokens), step->chunk.size());
  }
}

TEST(Messages, SamplingAndTokensCrossUnchanged) {
  const SamplingParams params{.temperature = 0.7f,
                              .top_k = 5,
                              .top_p = 0.9f,
                              .min_p = 0.1f,
                              .presence_penalty = 0.2f,
                              .frequency_penalty = -0.3f,
                              .repetition_penalty = 1.1f,
                              .logit_bias = {{3, 1.5f}, {4, -100.f}},
                              .banned = {3, 5},
                              .banned_before = 70,
                              .seed = 0xFFFFFFFFFFFFFFFFull,
                              .top_logprobs = 2};
  proto::Sampling wire;
  encode(params, wire);
  const SamplingParams back = decode(wire);
  EXPECT_EQ(back.temperature, params.temperature);
  EXPECT_EQ(back.top_k, params.top_k);
  EXPECT_EQ(back.top_p, params.top_p);
  EXPECT_EQ(back.min_p, params.min_p);
  EXPECT_EQ(back.presence_penalty, params.presence_penalty);
  EXPECT_EQ(back.frequency_penalty, params.frequency_penalty);
  EXPECT_EQ(back.repetition_penalty, params.repetition_penalty);
  EXPECT_EQ(back.logit_bias, params.logit_bias);
  EXPECT_EQ(back.seed, params.seed);
  EXPECT_EQ(back.banned, params.banned);
  EXPECT_EQ(back.banned_before, 70);
  EXPECT_EQ(back.top_logprobs, params.top_logprobs);
  proto::Token token;
  encode(SampledToken{.token = 9, .logprob = -0.5f, .top = {{9, -0.5f}, {1, -2.f}}}, token);
  const SampledToken sampled = decode(token);
  EXPECT_EQ(sampled.token, 9);
  EXPECT_EQ(sampled.logprob, -0.5f);
  ASSERT_EQ(sampled.top.size(), 2u);
  EXPECT_EQ(sampled.top[1].token, 1);
}

TEST(KvManifest, KnowsWhatIsThereWithoutAGapAndWhenAllIs) {
  KvManifest manifest(2, 3);
  EXPECT_TRUE(manifest.mark({0, 1}));
  EXPECT_EQ(manifest.ready_pages(0), 0) << "page 0 is missing";
  EXPECT_TRUE(manifest.mark({0, 0}));
  EXPECT_EQ(manifest.ready_pages(0), 2);
  EXPECT_EQ(manifest.ready_pages(1), 0);
  for (const KvPageKey key : {KvPageKey{0, 2}, {1, 2}, {1, 0}}) EXPECT_TRUE(manifest.mark(key));
  EXPECT_FALSE(manifest.complete());
  EXPECT_TRUE(manifest.mark({1, 1}));
  EXPECT_TRUE(manifest.complete());
  EXPECT_EQ(manifest.ready_pages(1), 3);
  for (const KvPageKey key : {KvPageKey{1, 1}, {2, 0}, {0, 3}, {-1, 0}, {0, -1}})
    EXPECT_EQ(manifest.mark(key).error().code, ErrorCode::kCorrupt);
  EXPECT_TRUE(KvManifest().complete());
  EXPECT_TRUE(KvManifest(2, 3, 3).complete());
}

TEST(KvManifest, MayBeginWithPagesThatAreThere) {
  KvManifest manifest(2, 3, 1);
  EXPECT_EQ(manifest.ready_pages(1), 1);
  EXPECT_EQ(manifest.mark({1, 0}).error().code, ErrorCode::kCorrupt);
  for (const KvPageKey key : {KvPageKey{1, 1}, {0, 1}, {0, 2}, {1, 2}}) EXPECT_TRUE(manifest.mark(key));
  EXPECT_TRUE(manifest.complete());
  EXPECT_EQ(manifest.ready_pages(0), 3);
}

// A coordinator that has lost its mind: what a worker takes of it is within bounds, whatever it sends.
TEST(Messages, OrdersOfAnyNumbersAreRefusedOrWithinBounds) {
  constexpr int64_t kOdd[] = {0, 1, 2, 3, 63, 64, 65, 100, 128, 999, 1000, -1, INT32_MAX, INT32_MIN, UINT32_MAX};
  int taken = 0;
  for (uint64_t seed = 1; seed <= 20'000; ++seed) {
    SeededRng rng(seed);
    const auto number = [&]() -> int64_t { return kOdd[rng.next() % std::size(kOdd)]; };
    const auto u32 = [&] { return static_cast<uint32_t>(number()); };
    const auto i32 = [&] { return static_cast<int32_t>(number()); };
    const auto sometimes = [&] { return rng.next() % 4 == 0; };
    proto::Envelope chain = chain_step(), decode = decode_order();
    proto::RunChainStep& s = *chain.mutable_run_chain_step();
    proto::RunDecode& o = *decode.mutable_run_decode();
    if (sometimes()) s.set_rank(u32());
    if (sometimes()) s.set_num_ranks(u32());
    if (sometimes()) s.set_begin(i32());
    if (sometimes()) s.set_from_prefix(u32());
    if (sometimes()) s.set_keep_prefix(u32());
    if (sometimes()) s.set_kept_pages(i32());
    if (sometimes()) s.set_downstream_has(i32());
    if (sometimes()) s.clear_upstream();
    if (sometimes()) s.set_end(i32());
    if (sometimes()) s.set_tokens(0, i32());
    if (sometimes()) s.set_prompt_len_original(u32());
    if (sometimes()) s.set_deadline_ms(u32());
    if (sometimes()) s.mutable_sampling()->set_top_logprobs(i32());
    if (sometimes()) s.mutable_downstream()->set_kv_address(std::string(static_cast<size_t>(rng.next() % 2000), 'x'));
    if (sometimes()) o.set_prompt_len(i32());
    if (sometimes()) o.set_max_new_tokens(u32());
    if (sometimes()) o.set_prompt(0, i32());
    if (sometimes()) o.add_stop_tokens(i32());
    if (sometimes()) o.set_prompt_len_original(u32());
    if (sometimes()) o.set_from_prefix(u32());
    if (sometimes()) o.set_kept_pages(i32());
    if (sometimes()) o.set_beginning_from(i32());
    if (sometimes()) set_hop(o.mutable_beginning(), "first");
    if (sometimes()) o.mutable_sampling()->set_temperature(static_cast<float>(number()));
    if (const auto step = parse_chain_step(chain, kShape, 1s)) {
      ++taken;
      EXPECT_TRUE(step->rank >= 0 && step->rank < step->num_ranks && step->num_ranks <= limits::kWorkersMax);
      EXPECT_TRUE(step->chunk.begin >= 0 && step->chunk.end <= kShape.context_len && !step->chunk.empty());
      EXPECT_EQ(std::ssize(step->tokens), step->chunk.size());
      EXPECT_TRUE(step->prefix.pages >= 0 && step->prefix.pages <= step->prefix_pages());
      EXPECT_TRUE(step->downstream_has >= 0 && step->downstream_has < step->chunk.end_page());
      EXPECT_LE(step->downstream.address.size(), limits::kPeerAddressBytesMax);
      EXPECT_LE(step->deadline, 1s + limits::kDeadlineMax);
    }
    if (const auto order = parse_decode_order(decode, kShape, 1s)) {
      ++taken;
      EXPECT_TRUE(order->prompt_len >= 1 && order->max_new_tokens >= 1);
      EXPECT_LE(order->prompt_len + order->max_new_tokens, kShape.context_len);
      EXPECT_LE(order->prompt_len_original, order->prompt_len);
      EXPECT_TRUE(order->prefix.pages >= 0 && order->prefix.pages * kPageTokens < order->prompt_len);
      for (const TokenId token : order->stop_tokens) EXPECT_TRUE(token >= 0 && token < kShape.vocab_size);
    }
  }
  EXPECT_GT(taken, 1000);
}

}  // namespace
}  // namespace runahead::test
