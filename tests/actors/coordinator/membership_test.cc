// Who may be a worker of the cluster, and until when.
#include <gmock/gmock.h>

#include "core_driver.h"

namespace runahead::test {
namespace {

using Kind = proto::Envelope::BodyCase;

TEST(Membership, AWorkerThatFitsIsWelcome) {
  CoreDriver driver;
  driver.join(1, true);
  const proto::Envelope* welcome = driver.last(1, Kind::kWelcome);
  ASSERT_NE(welcome, nullptr);
  EXPECT_EQ(welcome->epoch(), CoreDriver::kEpoch);
  EXPECT_EQ(welcome->welcome().worker(), 1u);
  EXPECT_FALSE(driver.core.view(driver.now).ready()) << "without a decode worker";
  driver.join(2, false);
  EXPECT_TRUE(driver.core.view(driver.now).ready());
}

TEST(Membership, AWorkerOfAnotherModelModeVersionOrTransportIsRefusedWithTheReason) {
  const std::vector<std::pair<std::string, std::function<void(proto::Hello&)>>> cases = {
      {"version", [](proto::Hello& h) { h.set_protocol_version(99); }},
      {"model-b", [](proto::Hello& h) { h.set_fingerprint("model-b"); }},
      {"layout", [](proto::Hello& h) { h.set_page_bytes(128); }},
      {"layout", [](proto::Hello& h) { h.set_num_layers(3); }},
      {"layout", [](proto::Hello& h) { h.set_context_len(1 << 30); }},
      {"incarnation", [](proto::Hello& h) { h.set_incarnation(0); }},
      {"ucx", [](proto::Hello& h) { h.set_kv_transport("ucx"); }},
      {"0 pages", [](proto::Hello& h) { h.set_pages_total(0); }},
      {"--advertise", [](proto::Hello& h) { h.set_kv_address("tcp://127.0.0.1:7071#1"); }},
  };
  for (const auto& [word, change] : cases) {
    CoreDriver driver;
    driver.join(1, true);
    driver.join(9, false);  // with whom the first one agrees
    proto::Envelope message = CoreDriver::hello(true, 2);
    change(*message.mutable_hello());
    driver.join(2, message);
    const proto::Envelope* refused = driver.last(2, Kind::kRefused);
    ASSERT_NE(refused, nullptr) << word;
    EXPECT_EQ(refused->refused().failure().code(), static_cast<uint32_t>(ErrorCode::kIncompatible)) << word;
    EXPECT_NE(refused->refused().failure().message().find(word), std::string::npos)
        << refused->refused().failure().message();
    EXPECT_EQ(driver.core.view(driver.now).workers.size(), 2u);
  }
}

TEST(Membership, TheFirstWorkerBindsNobody) {
  const auto with = [](bool is_prefill, uint64_t incarnation, const std::string& fingerprint, uint64_t page_bytes) {
    proto::Envelope message = CoreDriver::hello(is_prefill, incarnation);
    message.mutable_hello()->set_fingerprint(fingerprint);
    message.mutable_hello()->set_page_bytes(page_bytes);
    return message;
  };
  CoreDriver driver;
  driver.join(1, with(true, 1, "model-a/fp32", 64));  // its --compute is wrong
  driver.join(2, with(true, 2, "model-a/int8", 64));
  EXPECT_NE(driver.last(2, Kind::kWelcome), nullptr);
  EXPECT_EQ(driver.submit(10, 1).error().code, ErrorCode::kUnavailable);
  driver.join(9, with(false, 9, "model-a/int8", 64));  // two say the same: that is what the cluster runs
  EXPECT_NE(driver.last(9, Kind::kWelcome), nullptr);
  ASSERT_NE(driver.last(1, Kind::kRefused), nullptr);
  EXPECT_NE(driver.last(1, Kind::kRefused)->refused().failure().message().find("model-a/int8"), std::string::npos);
  EXPECT_EQ(driver.core.view(driver.now).workers.size(), 2u);
  EXPECT_TRUE(driver.core.view(driver.now).ready());
  EXPECT_TRUE(driver.submit(10, 1));
}

TEST(Membership, WorkersThatDoNotFitTogetherAreSaid) {
  CoreDriver driver;
  const auto with_transport = [](bool is_prefill, uint64_t incarnation, const std::string& transport) {
    proto::Envelope message = CoreDriver::hello(is_prefill, incarnation);
    message.mutable_hello()->set_compute("int8");
    message.mutable_hello()->set_kv_transport(transport);
    return message;
  };
  driver.join(1, with_transport(true, 1, "ucx"));
  EXPECT_EQ(driver.core.view(driver.now).disagreement, "") << "a decode worker is missing, and that is said elsewhere";
  driver.join(9, with_transport(false, 9, "tcp"));
  EXPECT_EQ(
      driver.core.view(driver.now).disagreement,
      "no prefill worker (int8 over ucx) runs what a decode worker runs (int8 over tcp); start them with the same "
      "--compute and --transport");
  driver.join(2, with_transport(true, 2, "tcp"));
  EXPECT_EQ(driver.core.view(driver.now).disagreement, "");
  EXPECT_TRUE(driver.core.view(driver.now).ready());
}

TEST(Membership, NothingIsRememberedOfWhoHasGone) {
  Three driver;
  for (const PeerId peer : {PeerId{1}, PeerId{2}, PeerId{9}}) driver.core.on_disconnected(peer, driver.now);
  for (const bool is_prefill : {true, false}) {
    proto::Envelope message = CoreDriver::hello(is_prefill, is_prefill ? 11 : 19);
    message.mutable_hello()->set_fingerprint("model-b");
    message.mutable_hello()->set_page_bytes(128);
    message.mutable_hello()->set_kv_transport("tcp");
    driver.join(is_prefill ? 11 : 19, message);
  }
  EXPECT_TRUE(driver.core.view(driver.now).ready());
  EXPECT_EQ(driver.core.view(driver.now).fingerprint, "model-b");
}

TEST(Membership, TheCoordinatorsOwnModelDecides) {
  CoreDriver driver({}, "model-a/");
  proto::Envelope foreign = CoreDriver::hello(true, 1);
  foreign.mutable_hello()->set_fingerprint("model-b/int8");
  driver.join(1, foreign);
  ASSERT_NE(driver.last(1, Kind::kRefused), nullptr) << "though it is the first";
  proto::Envelope own = CoreDriver::hello(true, 2);
  own.mutable_hello()->set_fingerprint("model-a/int8");
  driver.join(2, own);
  EXPECT_NE(driver.last(2, Kind::kWelcome), nullptr);
}

TEST(Membership, ASilentWorkerIsSuspectAfterASecondAndLostAfterItsLease) {
  Three driver;
  driver.pass(1s, {2, 9});
  EXPECT_EQ(driver.core.view(driver.now).workers[0].state, "suspect");
  EXPECT_EQ(driver.core.view(driver.now).workers.size(), 3u);
  driver.pass(1s, {2, 9});
  EXPECT_EQ(driver.core.view(driver.now).workers.size(), 2u);
  EXPECT_EQ(driver.dropped, std::vector<PeerId>{1});
}

// A frozen worker's lease is twice as long as the silence that gives it away.
TEST(Membership, WhatASuspectHoldsIsBegunAnewWithoutItIfSomebodyElseIsThere) {
  Three driver;
  const RequestId id = driver.start();
  ASSERT_NE(driver.last(1, Kind::kRunChainStep), nullptr);
  driver.pass(750ms, {2, 9});
  EXPECT_EQ(driver.last(2, Kind::kEndAttempt), nullptr) << "three heartbeats late are none lost";
  driver.pass(250ms, {2, 9});
  for (const PeerId peer : {1, 2, 9}) {
    ASSERT_NE(driver.last(peer, Kind::kEndAttempt), nullptr) << peer;
    EXPECT_EQ(driver.last(peer, Kind::kEndAttempt)->attempt(), 1u);
  }
  const proto::Envelope* anew = driver.last(2, Kind::kRunChainStep);
  EXPECT_EQ(anew->attempt(), 2u);
  EXPECT_EQ(anew->run_chain_step().num_ranks(), 1u) << "without the silent one";
  EXPECT_EQ(driver.core.view(driver.now).workers.size(), 3u) << "which has its lease still";
  driver.from(1, CoreDriver::ended(id, 1));  // it is back
  driver.from(2, CoreDriver::first_token(id, 2, 11));
  driver.from(2, CoreDriver::rank_done(id, 2, 0));
  driver.from(9, CoreDriver::tokens(id, 2, 1, {12, 13}));
  EXPECT_EQ(driver.answer(id), (std::vector<TokenId>{11, 12, 13}));
  EXPECT_EQ(driver.finished.at(id).report.attempts, 2u);
}

TEST(Membership, ASuspectIsLeftOnceARequestAndNotForNobody) {
  Three driver;
  const RequestId alone = driver.start();
  driver.pass(1500ms, {1, 2});  // the only decode worker is silent
  EXPECT_EQ(driver.last(2, Kind::kEndAttempt), nullptr);
  driver.pass(250ms, {1, 2, 9});  // and back
  driver.finish(alone, 1, {11, 12, 13});
  EXPECT_EQ(driver.finished.at(alone).report.attempts, 1u);

  const RequestId id = driver.start();
  driver.pass(1250ms, {2, 9});  // the first prefill worker, and its part is begun anew by the second
  ASSERT_EQ(driver.last(2, Kind::kRunChainStep)->attempt(), 2u);
  driver.pass(1250ms, {1, 9});  // who is late as well: this machine is busy, and the lease decides
  EXPECT_EQ(driver.last(2, Kind::kEndAttempt)->attempt(), 1u);
  EXPECT_EQ(driver.core.view(driver.now).workers.size(), 3u);
  driver.pass(1000ms, {1, 9});
  EXPECT_EQ(driver.core.view(driver.now).workers.size(), 2u) << "lost";
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), id);
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->attempt(), 3u);
}

// Nobody knows yet whether it works, and it is the least busy one: it would get all that comes.
TEST(Membership, AFreshOrHealedWorkerIsLoadedSlowly) {
  CoreDriver driver;
  proto::Envelope prefill = CoreDriver::hello(true, 1), decode = CoreDriver::hello(false, 9);
  prefill.mutable_hello()->set_attempts_max(64);
  decode.mutable_hello()->set_attempts_max(64);
  driver.join(1, prefill);
  driver.join(9, decode);
  std::vector<RequestId> ids;
  for (int i = 0; i < 15; ++i) ids.push_back(*driver.submit(64, 100));
  EXPECT_EQ(driver.held(1), 4) << "fresh";
  EXPECT_EQ(driver.held(9), 4);
  const auto prefilled = [&](RequestId id, uint32_t attempt) {
    driver.from(1, CoreDriver::first_token(id, attempt, 11));
    driver.from(1, CoreDriver::rank_done(id, attempt, 0));
  };
  prefilled(ids[0], 1);
  EXPECT_EQ(driver.held(1), 3) << "the decode worker has shown nothing yet";
  driver.from(9, CoreDriver::tokens(ids[0], 1, 1, {12}));
  EXPECT_EQ(driver.held(1), 7);
  EXPECT_EQ(driver.held(9), 8) << "twice as many after a success";
  driver.from(9, CoreDriver::failed(ids[1], 1, ErrorCode::kInternal));
  driver.from(9, CoreDriver::ended(ids[1], 1));
  EXPECT_EQ(driver.held(9), 7) << "and two after a failure: nothing more until the others have left, or one goes well";
  driver.from(9, CoreDriver::failed(ids[2], 1, ErrorCode::kOverloaded));
  driver.from(9, CoreDriver::ended(ids[2], 1));
  driver.pass(500ms, {1, 9});
  EXPECT_EQ(driver.held(9), 6);
  for (uint32_t i = 0; i < 3; ++i) driver.from(9, CoreDriver::tokens(ids[0], 1, 2 + i, {13}));
  EXPECT_GT(driver.held(9), 6) << "it gives tokens: trusted again";
}

TEST(Membership, AWorkerThatComesBackIsANewOne) {
  Three driver;
  const RequestId id = driver.start();
  driver.join(31, CoreDriver::hello(true, 1));  // incarnation 1 over a new connection
  EXPECT_EQ(driver.sink.failures, std::vector{ErrorCode::kWorkerLost}) << "what the old one did is void";
  EXPECT_EQ(driver.last(31, Kind::kWelcome)->welcome().worker(), 4u);
  driver.from(1, CoreDriver::first_token(id, 1, 5));
  EXPECT_TRUE(driver.answer(id).empty()) << "the old connection is not heard any more";
}

TEST(Membership, WhoNeverSaysHelloIsDropped) {
  CoreDriver driver;
  driver.core.on_connected(5, driver.now);
  driver.tick(limits::kConnectTimeout);
  EXPECT_EQ(driver.dropped, std::vector<PeerId>{5});
}

TEST(Membership, AWorkerJoinsAsWhatItsCertificateSays) {
  CoreDriver driver;
  const auto join_as = [&](PeerId peer, bool is_prefill, std::string_view certified) {
    driver.core.on_connected(peer, driver.now, certified);
    driver.core.on_message(peer, CoreDriver::hello(is_prefill, peer), driver.now);
    driver.settle();
    return driver.last(peer, Kind::kWelcome) != nullptr;
  };
  EXPECT_TRUE(join_as(1, true, "prefill"));
  EXPECT_TRUE(join_as(2, false, "decode"));
  EXPECT_TRUE(join_as(3, false, "")) << "without TLS";
  EXPECT_FALSE(join_as(4, true, "decode"));
  EXPECT_FALSE(join_as(5, false, "prefill"));
  EXPECT_THAT(driver.last(5, Kind::kRefused)->refused().failure().message(),
              testing::HasSubstr("certificate is of a prefill"));
}

TEST(Membership, NoMoreWorkersThanTheLimit) {
  CoreDriver driver;
  for (PeerId peer = 1; peer <= static_cast<PeerId>(limits::kWorkersMax) + 1; ++peer) driver.join(peer, true);
  EXPECT_EQ(driver.core.view(driver.now).workers.size(), static_cast<size_t>(limits::kWorkersMax));
  EXPECT_EQ(driver.last(limits::kWorkersMax + 1, Kind::kRefused)->refused().failure().code(),
            static_cast<uint32_t>(ErrorCode::kOverloaded));
}

TEST(Membership, ADrainingWorkerGetsNoNewWork) {
  Three driver;
  proto::Envelope drain = envelope({.epoch = CoreDriver::kEpoch});
  drain.mutable_drain();
  driver.from(1, drain);
  const RequestId id = driver.start();
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep), nullptr);
  EXPECT_EQ(driver.last(2, Kind::kRunChainStep)->request(), id);
}

}  // namespace
}  // namespace runahead::test
