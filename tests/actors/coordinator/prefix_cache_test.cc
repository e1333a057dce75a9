// Prompts that begin alike: who begins behind what, and when everything is computed anew.
#include "core_driver.h"

namespace runahead::test {
namespace {

using Kind = proto::Envelope::BodyCase;

// A document of 640 tokens, and a question about it.
InferenceRequest about_document(TokenId question, int32_t question_len = 70) {
  InferenceRequest request{.external_id = "r", .max_new_tokens = 1};
  for (int32_t i = 0; i < 640; ++i) request.prompt.push_back(i % 90);
  request.prompt.insert(request.prompt.end(), static_cast<size_t>(question_len), question);
  return request;
}

struct Cached : CoreDriver {
  explicit Cached(int32_t workers = 1, int64_t pages = 4096, bool prefix_cache = true)
      : CoreDriver({}, {}, {}, prefix_cache) {
    for (int32_t peer = 1; peer <= workers; ++peer) join(static_cast<PeerId>(peer), true, pages);
    join(9, false);
  }
  const proto::RunChainStep& step(PeerId peer = 1) const { return last(peer, Kind::kRunChainStep)->run_chain_step(); }
  const proto::RunDecode& order() const { return last(9, Kind::kRunDecode)->run_decode(); }
  // A chain of these workers does what it was told; the decode worker keeps as much as it says.
  void complete(RequestId id, std::vector<PeerId> chain = {1}, bool kept = true, uint32_t attempt = 1,
                int32_t decode_keeps = 0) {
    for (uint32_t rank = 0; rank + 1 < chain.size(); ++rank) from(chain[rank], rank_done(id, attempt, rank));
    from(chain.back(), first_token(id, attempt, 5));
    int32_t pages = 0;
    for (const proto::Envelope& told : inbox[chain.back()])
      if (kept && told.has_run_chain_step() && told.request() == id) pages = told.run_chain_step().end() / kPageTokens;
    from(chain.back(), rank_done(id, attempt, static_cast<uint32_t>(chain.size()) - 1, pages));
    from(9, decode_done(id, attempt, decode_keeps));
  }
  void ask_and_complete(TokenId question) { complete(*submit(about_document(question))); }
};

TEST(PrefixCache, APromptBeginsBehindWhatItsWorkerHasKept) {
  Cached driver;
  const RequestId first = *driver.submit(about_document(1));
  EXPECT_EQ(driver.step().begin(), 0);
  EXPECT_EQ(driver.step().from_prefix(), 0u);
  const uint64_t kept = driver.step().keep_prefix();
  EXPECT_NE(kept, 0u);
  driver.complete(first);
  EXPECT_EQ(driver.finished.at(first).report.cached_tokens, 0);
  EXPECT_EQ(driver.finished.at(first).report.cache_write_tokens, 704);

  const RequestId second = *driver.submit(about_document(2));
  EXPECT_EQ(driver.step().begin(), 640);
  EXPECT_EQ(driver.step().end(), 710);
  EXPECT_EQ(driver.step().tokens_size(), 70);
  EXPECT_EQ(driver.step().from_prefix(), kept);
  EXPECT_NE(driver.step().keep_prefix(), kept);
  EXPECT_NE(driver.step().keep_prefix(), 0u);
  driver.complete(second);
  EXPECT_EQ(driver.finished.at(second).report.cached_tokens, 640);
  EXPECT_EQ(driver.finished.at(second).report.cache_write_tokens, 64);
  InferenceRequest cold = about_document(3);
  cold.cache_salt = "other";
  const RequestId third = *driver.submit(cold);
  driver.complete(third);
  EXPECT_LT(driver.finished.at(second).report.predicted_ttft_seconds,
            driver.finished.at(third).report.predicted_ttft_seconds / 3);
}

TEST(PrefixCache, TheLastTokenIsAlwaysComputedAndWhatIsThereIsNotKeptAgain) {
  Cached driver;
  InferenceRequest whole = about_document(1, 0);  // ten pages, and nothing else
  driver.complete(*driver.submit(whole));
  const RequestId again = *driver.submit(whole);
  EXPECT_EQ(driver.step().begin(), 576);
  driver.complete(again);
  EXPECT_TRUE(driver.step().drop_prefixes().empty());
  const RequestId longer = *driver.submit(about_document(3, 1));
  EXPECT_EQ(driver.step().begin(), 640);
  EXPECT_EQ(driver.step().keep_prefix(), 0u) << "the one token is no page";
  ASSERT_EQ(driver.step().drop_prefixes_size(), 1) << "the second of the same";
  driver.complete(longer, {1}, false);
}

TEST(PrefixCache, NothingIsSharedThatWasNotKeptOrNotWanted) {
  Cached off(1, 4096, /*prefix_cache=*/false);
  off.ask_and_complete(1);
  EXPECT_EQ(off.step().keep_prefix(), 0u);
  (void)off.submit(about_document(2));
  EXPECT_EQ(off.step().begin(), 0);

  Cached driver;
  driver.complete(*driver.submit(about_document(1)), {1}, /*kept=*/false);
  driver.complete(*driver.submit(about_document(2)));
  EXPECT_EQ(driver.step().begin(), 0) << "the first was not kept";
  std::vector<InferenceRequest> others(3, about_document(3));
  others[0].cache_salt = "another tenant";
  others[1].strategy = Strategy::kByHand;
  others[2].prompt_logprobs = 0;
  for (size_t i = 0; i < others.size(); ++i) {
    const RequestId id = *driver.submit(others[i]);
    EXPECT_EQ(driver.step().begin(), 0) << i;
    EXPECT_EQ(driver.step().from_prefix(), 0u);
    driver.core.cancel(id, driver.now);
    driver.settle();
    driver.from(1, CoreDriver::ended(id, 1));
    driver.from(9, CoreDriver::ended(id, 1));
  }
  InferenceRequest salted = about_document(4);
  salted.cache_salt = "another tenant";
  driver.complete(*driver.submit(salted));
  driver.complete(*driver.submit(salted));
  EXPECT_EQ(driver.step().begin(), 704) << "one salt, one tenant";
}

TEST(PrefixCache, AttemptsThatNeedThePagesGetThem) {
  Cached driver(1, 44);  // 22 pages a layer
  driver.ask_and_complete(1);  // keeps 11
  const uint64_t kept = driver.step().keep_prefix();
  InferenceRequest other{.prompt = std::vector<TokenId>(700, 3), .max_new_tokens = 1};
  driver.complete(*driver.submit(other));  // 11 beside them
  EXPECT_TRUE(driver.step().drop_prefixes().empty());
  other.prompt.assign(900, 4);
  const RequestId third = *driver.submit(other);  // 15: the older of the two goes
  ASSERT_EQ(driver.step().drop_prefixes_size(), 2);
  EXPECT_EQ(driver.step().drop_prefixes(0), kept);
  driver.complete(third);
  driver.ask_and_complete(2);
  EXPECT_EQ(driver.step().begin(), 0);
}

// What an attempt reads is not given to another one: that waits.
TEST(PrefixCache, PagesInUseAreNotGivenAway) {
  Cached driver(1, 44);
  driver.ask_and_complete(1);
  const RequestId second = *driver.submit(about_document(2));
  EXPECT_EQ(driver.step().begin(), 640);  // 10 that it reads, and 2 of its own
  const RequestId third = *driver.submit({.prompt = std::vector<TokenId>(700, 3), .max_new_tokens = 1});
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), second) << "11 more are not there";
  driver.complete(second);
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), third);
  EXPECT_GE(driver.step().drop_prefixes_size(), 1);
}

TEST(PrefixCache, AWorkerThatHasItNoMoreIsAskedToComputeEverything) {
  Cached driver;
  driver.ask_and_complete(1);
  const RequestId second = *driver.submit(about_document(2));
  EXPECT_EQ(driver.step().begin(), 640);
  driver.from(1, CoreDriver::failed(second, 1, ErrorCode::kStale));
  driver.from(1, CoreDriver::ended(second, 1));
  driver.from(9, CoreDriver::ended(second, 1));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->attempt(), 2u);
  EXPECT_EQ(driver.step().begin(), 0);
  driver.complete(second, {1}, true, 2);
  EXPECT_EQ(driver.answer(second), std::vector<TokenId>{5});

  driver.core.on_disconnected(1, driver.now);
  driver.settle();
  driver.join(2, true);
  (void)driver.submit(about_document(3));
  EXPECT_EQ(driver.step(2).begin(), 0) << "another process";
}

// Choices of one prompt, questions about one document: the first is computed, the others begin behind it.
TEST(PrefixCache, WhatIsBeingComputedIsWaitedFor) {
  Cached driver;
  const RequestId first = *driver.submit(about_document(1));
  const RequestId second = *driver.submit(about_document(2)), third = *driver.submit(about_document(1));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), first);
  const RequestId other = *driver.submit({.prompt = std::vector<TokenId>(100, 3), .max_new_tokens = 1});
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), other) << "a prompt of another kind passes";
  EXPECT_EQ(driver.sink.queue.waiting, 2);
  driver.complete(first);
  EXPECT_EQ(driver.sink.queue.waiting, 0);
  std::map<RequestId, int32_t> begins;
  for (const proto::Envelope& told : driver.inbox[1])
    if (told.has_run_chain_step()) begins[told.request()] = told.run_chain_step().begin();
  EXPECT_EQ(begins, (std::map<RequestId, int32_t>{{first, 0}, {second, 640}, {third, 704}, {other, 0}}));
}

// A short prompt that shares a system prompt with a long one: alone it is done long before that.
TEST(PrefixCache, AShortPromptDoesNotWaitForALongOne) {
  Cached driver(2);
  InferenceRequest long_one = about_document(1, 3400);
  long_one.workers_max = 1;
  (void)*driver.submit(long_one);
  driver.now += 1ms;
  const RequestId short_one = *driver.submit(about_document(2, 20));
  EXPECT_EQ(driver.sink.queue.waiting, 0);
  bool started = false;
  for (const PeerId peer : {1, 2})
    if (const auto* told = driver.last(peer, Kind::kRunChainStep)) started |= told->request() == short_one;
  EXPECT_TRUE(started);
}

// A worker that makes the first token and then nothing more keeps nobody for ever.
TEST(PrefixCache, NobodyWaitsForEver) {
  Cached driver;
  (void)*driver.submit(about_document(1));
  const RequestId second = *driver.submit(about_document(2));
  EXPECT_EQ(driver.sink.queue.waiting, 1);
  driver.pass(8s, {1, 9});
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), second);
  EXPECT_EQ(driver.step().begin(), 0);
}

// Nor for its own earlier attempt, whose worker has not said yet that it has ended.
TEST(PrefixCache, WhatFailsIsNotWaitedFor) {
  Cached driver;
  const RequestId first = *driver.submit(about_document(1)), second = *driver.submit(about_document(2));
  EXPECT_EQ(driver.sink.queue.waiting, 1);
  driver.core.cancel(first, driver.now);
  driver.settle();
  driver.from(1, CoreDriver::ended(first, 1));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), second);
  EXPECT_EQ(driver.step().begin(), 0);
  driver.join(2, true);
  driver.from(1, CoreDriver::failed(second, 1, ErrorCode::kInternal, 1));
  ASSERT_NE(driver.last(2, Kind::kRunChainStep), nullptr);
  EXPECT_EQ(driver.last(2, Kind::kRunChainStep)->request(), second);
}

TEST(PrefixCache, AWorkerThatKeepsUnaskedIsNotBelieved) {
  Cached driver(1, 4096, /*prefix_cache=*/false);
  driver.ask_and_complete(1);
  driver.ask_and_complete(2);
  EXPECT_EQ(driver.step().begin(), 0);
}

// The rest is worth a chain: it begins with the worker that has the document.
TEST(PrefixCache, AChainBeginsWithTheWorkerThatHasTheBeginning) {
  Cached driver(2);
  InferenceRequest document = about_document(1);
  document.workers_max = 1;
  driver.complete(*driver.submit(document));
  EXPECT_EQ(driver.last(2, Kind::kRunChainStep), nullptr);
  const RequestId second = *driver.submit(about_document(2, 3000));
  const proto::RunChainStep &head = driver.step(1), &tail = driver.step(2);
  EXPECT_EQ(head.begin(), 640);
  EXPECT_EQ(head.num_ranks(), 2u);
  EXPECT_EQ(head.keep_prefix(), 0u) << "only the last rank has every page";
  EXPECT_EQ(tail.begin(), head.end());
  EXPECT_EQ(tail.from_prefix(), 0u);
  EXPECT_EQ(tail.end(), 3640);
  EXPECT_GT(tail.end() - tail.begin(), 640);
  driver.complete(second, {1, 2});
  const RequestId third = *driver.submit(about_document(2, 3100));
  EXPECT_EQ(driver.step(2).begin(), 3584) << "now the second worker has more";
  driver.complete(third, {2});
}

// A conversation of 640 tokens that were asked and 130 that were answered; the next turn has both, and 70 more.
struct Conversation : Cached {
  explicit Conversation(int32_t workers = 1) : Cached(workers), next(talk("")) {}
  InferenceRequest talk(const std::string& salt) {
    InferenceRequest request = about_document(1, 0);
    request.max_new_tokens = 130;
    request.workers_max = 1;
    request.cache_salt = salt;
    const RequestId id = *submit(request);
    from(1, first_token(id, 1, 5));
    from(1, rank_done(id, 1, 0, 10));
    from(9, tokens(id, 1, 1, std::vector<TokenId>(129, 6)));
    EXPECT_TRUE(finished.contains(id));
    answer_kept = order().keep_prefix();
    from(9, decode_done(id, 1, 12));  // 769 tokens were inputs
    request.max_new_tokens = 1;
    request.workers_max = 0;
    request.prompt.push_back(5);
    request.prompt.insert(request.prompt.end(), 129, 6);
    request.prompt.insert(request.prompt.end(), 70, 7);
    return request;
  }
  uint64_t answer_kept = 0;
  InferenceRequest next;
};

TEST(PrefixCache, TheNextTurnBeginsBehindTheAnswer) {
  Conversation driver;
  EXPECT_NE(driver.answer_kept, 0u);
  const RequestId id = *driver.submit(driver.next);
  const proto::RunChainStep& step = driver.step();
  EXPECT_EQ(step.begin(), 768);
  EXPECT_EQ(step.kept_pages(), 10) << "the prompt, which the prefill worker keeps";
  EXPECT_NE(step.from_prefix(), 0u);
  EXPECT_EQ(step.downstream_has(), 12);
  const proto::RunDecode& order = driver.order();
  EXPECT_EQ(order.from_prefix(), driver.answer_kept);
  EXPECT_EQ(order.kept_pages(), 12);
  EXPECT_EQ(order.beginning_from(), 10) << "the answer, which only the decode worker has";
  EXPECT_EQ(order.beginning().kv_address(), "kv-1");
  EXPECT_EQ(step.upstream().kv_address(), "kv-9");
  EXPECT_EQ(step.upstream().stream_token(), order.beginning().stream_token());
  EXPECT_EQ(step.downstream().stream_token(), order.upstream().stream_token());
  EXPECT_NE(step.downstream().stream_token(), step.upstream().stream_token());
  driver.complete(id);
  EXPECT_EQ(driver.finished.at(id).report.cached_tokens, 768);
  EXPECT_EQ(driver.finished.at(id).report.cache_write_tokens, 64);
}

// What is given is on its way before anybody computes: how fast that is, chains do not say, and it is learnt.
TEST(PrefixCache, WhatIsSlowToGiveIsComputed) {
  Conversation driver;
  const RequestId id = *driver.submit(driver.next);
  ASSERT_TRUE(driver.order().has_beginning());
  driver.from(1, CoreDriver::first_token(id, 1, 5));
  driver.from(1, CoreDriver::rank_done(id, 1, 0, 13));
  proto::Envelope done = CoreDriver::decode_done(id, 1);
  done.mutable_decode_done()->set_kv_given_bytes(2 * CoreDriver::kLayers * CoreDriver::kPageBytes);
  done.mutable_decode_done()->set_kv_given_seconds(20);
  done.mutable_decode_done()->set_given_to(driver.order().beginning().worker());
  driver.from(9, done);
  (void)*driver.submit(driver.talk("another"));
  EXPECT_EQ(driver.step().begin(), 640) << "behind what the prefill worker keeps";
  EXPECT_FALSE(driver.order().has_beginning());
  EXPECT_EQ(driver.order().kept_pages(), 12) << "but the decode worker is sent no page twice";
}

// The worker that had the prompt has gone; the decode worker has all of it.
TEST(PrefixCache, AnotherWorkerGetsTheWholeBeginningFromTheDecodeWorker) {
  Conversation driver;
  driver.join(2, true);
  driver.core.on_disconnected(1, driver.now);
  driver.settle();
  (void)*driver.submit(driver.next);
  EXPECT_EQ(driver.step(2).begin(), 768);
  EXPECT_EQ(driver.step(2).kept_pages(), 0);
  EXPECT_EQ(driver.order().beginning_from(), 0);
  EXPECT_EQ(driver.order().kept_pages(), 12);
}

// Whoever cuts by hand gets its cuts; the pages that the decode worker has are not sent to it all the same.
TEST(PrefixCache, TheDecodeWorkerIsSentOnlyWhatItHasNot) {
  Conversation driver(2);
  driver.next.strategy = Strategy::kByHand;
  driver.next.cuts = {448};
  (void)*driver.submit(driver.next);
  EXPECT_EQ(driver.step(1).begin(), 0);
  EXPECT_FALSE(driver.step(1).has_upstream());
  EXPECT_EQ(driver.step(1).downstream_has(), 0) << "the next rank needs all";
  EXPECT_EQ(driver.step(2).downstream_has(), 12);
  EXPECT_EQ(driver.order().kept_pages(), 12);
  EXPECT_FALSE(driver.order().has_beginning());
}

TEST(PrefixCache, ADecodeWorkerThatHasItNoMoreIsSentAll) {
  Conversation driver;
  const RequestId id = *driver.submit(driver.next);
  driver.from(9, CoreDriver::failed(id, 1, ErrorCode::kStale));
  driver.from(1, CoreDriver::ended(id, 1));
  driver.from(9, CoreDriver::ended(id, 1));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->attempt(), 2u);
  EXPECT_EQ(driver.step().begin(), 640) << "the prefill worker still has the prompt";
  EXPECT_EQ(driver.step().downstream_has(), 0);
  EXPECT_EQ(driver.order().kept_pages(), 0);
  EXPECT_FALSE(driver.order().has_beginning());
}

// What a decode worker keeps is given up for whoever needs the pages, and it is told so with that order.
TEST(PrefixCache, AnswersGiveWayToOthers) {
  Cached driver(1);
  driver.join(8, false, 44);  // 22 pages a layer
  driver.core.on_disconnected(9, driver.now);
  driver.settle();
  const auto ask = [&](TokenId token, int32_t prompt) {
    InferenceRequest request{.prompt = std::vector<TokenId>(static_cast<size_t>(prompt), token), .max_new_tokens = 1};
    const RequestId id = *driver.submit(request);
    const proto::RunDecode order = driver.last(8, Kind::kRunDecode)->run_decode();
    driver.from(1, CoreDriver::first_token(id, 1, 5));
    driver.from(1, CoreDriver::rank_done(id, 1, 0, 0));
    driver.from(8, CoreDriver::decode_done(id, 1, prompt / kPageTokens));
    return order;
  };
  const uint64_t first = ask(1, 640).keep_prefix();
  EXPECT_TRUE(ask(2, 640).drop_prefixes().empty());
  const proto::RunDecode third = ask(3, 640);
  ASSERT_EQ(third.drop_prefixes_size(), 1);
  EXPECT_EQ(third.drop_prefixes(0), first);
  EXPECT_EQ(ask(2, 700).kept_pages(), 10);
  EXPECT_EQ(ask(1, 700).kept_pages(), 0);
}

// Choices of one prompt: 650 tokens, ten full pages of them, and an answer within the eleventh.
struct Choices : Cached {
  explicit Choices(int64_t decode_pages = 4096) : Cached(1) {
    join(8, false, decode_pages);
    core.on_disconnected(9, now);
    settle();
    for (int i = 0; i < 4; ++i) {
      InferenceRequest request = about_document(1, 10);
      request.max_new_tokens = 54;
      request.sampling = {.temperature = 1, .seed = static_cast<uint64_t>(i)};
      ids.push_back(*submit(request));
    }
  }
  // The first one's prompt is computed, and has come to the decode worker.
  void compute_first() {
    from(1, first_token(ids[0], 1, 5));
    from(1, rank_done(ids[0], 1, 0, 10));
    from(8, prompt_kept(ids[0], 1, 10));
  }
  std::map<RequestId, proto::RunDecode> orders() const {
    std::map<RequestId, proto::RunDecode> all;
    for (const proto::Envelope& told : inbox.at(8))
      if (told.has_run_decode()) all[told.request()] = told.run_decode();
    return all;
  }
  std::vector<RequestId> ids;
};

TEST(PrefixCache, ChoicesShareThePromptAtTheDecodeWorker) {
  Choices driver;
  ASSERT_EQ(driver.orders().size(), 1u);
  const uint64_t number = driver.orders().at(driver.ids[0]).keep_prompt();
  EXPECT_NE(number, 0u);
  EXPECT_NE(number, driver.orders().at(driver.ids[0]).keep_prefix());
  driver.from(1, CoreDriver::first_token(driver.ids[0], 1, 5));
  driver.from(1, CoreDriver::rank_done(driver.ids[0], 1, 0, 10));
  EXPECT_EQ(driver.orders().size(), 1u) << "they wait for the decode worker, too";
  driver.from(8, CoreDriver::prompt_kept(driver.ids[0], 1, 10));
  ASSERT_EQ(driver.orders().size(), 4u);
  for (size_t i = 1; i < 4; ++i) {
    const proto::RunDecode order = driver.orders().at(driver.ids[i]);
    EXPECT_EQ(order.from_prefix(), number) << i;
    EXPECT_EQ(order.kept_pages(), 10) << i;
    EXPECT_EQ(order.keep_prompt(), 0u) << "nothing of it is new";
  }
  EXPECT_EQ(driver.step().downstream_has(), 10);
  EXPECT_EQ(driver.step().begin(), 640);
}

// 22 pages of the prompt and the first answer, and one in each layer for each of the others.
TEST(PrefixCache, ChoicesNeedRoomForOnePromptAndTheirAnswers) {
  for (const int64_t pages : {28, 27}) {
    Choices driver(pages);
    driver.compute_first();
    EXPECT_EQ(driver.orders().size(), pages == 28 ? 4u : 3u);
    driver.from(8, CoreDriver::tokens(driver.ids[0], 1, 1, std::vector<TokenId>(53, 6)));
    driver.from(8, CoreDriver::decode_done(driver.ids[0], 1, 10));
    EXPECT_EQ(driver.orders().size(), 4u) << "its place is free";
  }
}

TEST(PrefixCache, ChoicesGoOnWhenTheFirstIsCancelled) {
  Choices driver(28);
  driver.compute_first();
  driver.core.cancel(driver.ids[0], driver.now);
  driver.settle();
  driver.from(8, CoreDriver::ended(driver.ids[0], 1));
  const RequestId large = *driver.submit({.prompt = std::vector<TokenId>(320, 3), .max_new_tokens = 1});
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_FALSE(driver.orders().contains(large)) << "three read the prompt's pages";
    driver.from(1, CoreDriver::first_token(driver.ids[i], 1, 5));
    driver.from(1, CoreDriver::rank_done(driver.ids[i], 1, 0, 10));
    driver.from(8, CoreDriver::tokens(driver.ids[i], 1, 1, std::vector<TokenId>(53, 6)));
    driver.from(8, CoreDriver::decode_done(driver.ids[i], 1, 10));
    EXPECT_TRUE(driver.finished.contains(driver.ids[i]));
  }
  EXPECT_TRUE(driver.orders().contains(large));
}

TEST(PrefixCache, ChoicesAreTriedAgainWhenTheDecodeWorkerIsLost) {
  Choices driver;
  driver.compute_first();
  driver.join(7, false);
  driver.core.on_disconnected(8, driver.now);
  driver.settle();
  for (size_t i = 1; i < 4; ++i) driver.from(1, CoreDriver::ended(driver.ids[i], 1));
  std::map<RequestId, int32_t> kept;
  for (const proto::Envelope& told : driver.inbox.at(7))
    if (told.has_run_decode()) kept[told.request()] = told.run_decode().kept_pages();
  EXPECT_EQ(kept.size(), 4u);
  for (const auto& [id, pages] : kept) EXPECT_EQ(pages, 0) << id;
  EXPECT_EQ(driver.step().downstream_has(), 0);
}

// What it says of pages that nobody asked it to keep, or not so many, or again, changes nothing.
TEST(PrefixCache, ADecodeWorkerThatKeepsAnotherPromptIsNotBelieved) {
  Choices driver(28);
  driver.from(1, CoreDriver::prompt_kept(driver.ids[0], 1, 10));
  driver.from(8, CoreDriver::prompt_kept(driver.ids[1], 1, 10));
  driver.from(8, CoreDriver::prompt_kept(driver.ids[0], 1, 4));
  driver.compute_first();
  EXPECT_EQ(driver.orders().size(), 1u) << "no room for a second prompt";
  driver.from(8, CoreDriver::tokens(driver.ids[0], 1, 1, std::vector<TokenId>(53, 6)));
  driver.from(8, CoreDriver::decode_done(driver.ids[0], 1, 0));
  EXPECT_EQ(driver.orders().at(driver.ids[1]).kept_pages(), 0);
  EXPECT_EQ(driver.orders().at(driver.ids[1]).drop_prefixes_size(), 1);
}

// A stop string, or a client that goes away: the decode worker is told how much of what it made is the answer.
TEST(PrefixCache, AnAnswerThatItsClientEndsIsKeptAsFarAsItHasCome) {
  for (const bool cancelled : {false, true}) {
    Cached driver;
    InferenceRequest request = about_document(1, 0);
    request.max_new_tokens = 130;
    const RequestId id = *driver.submit(request);
    driver.from(1, CoreDriver::first_token(id, 1, 5));
    driver.from(1, CoreDriver::rank_done(id, 1, 0, 10));
    driver.from(9, CoreDriver::prompt_kept(id, 1, 10));
    driver.from(9, CoreDriver::tokens(id, 1, 1, std::vector<TokenId>(70, 6)));
    const uint64_t number = driver.order().keep_prefix();
    if (cancelled) driver.core.cancel(id, driver.now);
    else driver.core.finish(id, driver.now);
    driver.settle();
    EXPECT_EQ(driver.last(9, Kind::kEndAttempt)->end_attempt().tokens(), 71);
    driver.from(9, CoreDriver::tokens(id, 1, 71, {7, 7}));  // it was faster
    driver.from(9, CoreDriver::ended(id, 1, 11));
    request.prompt.push_back(5);
    request.prompt.insert(request.prompt.end(), 70, 6);
    request.prompt.insert(request.prompt.end(), 70, 8);
    (void)*driver.submit(request);
    EXPECT_EQ(driver.order().from_prefix(), number);
    EXPECT_EQ(driver.order().kept_pages(), 11);
    EXPECT_EQ(driver.order().drop_prefixes_size(), 1) << "the prompt alone";
    EXPECT_EQ(driver.step().begin(), 704);
  }
}

// A decode worker that was done before it heard of that has kept what nobody knows.
TEST(PrefixCache, AnAnswerThatIsLongerThanWhatTheClientHasGotIsNotKept) {
  Cached driver;
  InferenceRequest request = about_document(1, 0);
  request.max_new_tokens = 130;
  const RequestId id = *driver.submit(request);
  driver.from(1, CoreDriver::first_token(id, 1, 5));
  driver.from(1, CoreDriver::rank_done(id, 1, 0, 10));
  const uint64_t number = driver.order().keep_prefix();
  driver.core.cancel(id, driver.now);
  driver.settle();
  driver.from(9, CoreDriver::decode_done(id, 1, 11));  // it was done before it heard of that
  (void)*driver.submit(about_document(1, 70));
  EXPECT_EQ(driver.order().kept_pages(), 0);
  ASSERT_EQ(driver.order().drop_prefixes_size(), 1);
  EXPECT_EQ(driver.order().drop_prefixes(0), number);
}

}  // namespace
}  // namespace runahead::test
