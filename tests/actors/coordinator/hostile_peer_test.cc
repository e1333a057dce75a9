// Whatever a worker says, the coordinator neither ends nor passes it on: it is refused or dropped, and requests go on.
#include <cmath>
#include <limits>

#include "actors/coordinator/peer_checks.h"
#include "core_driver.h"

namespace runahead::test {
namespace {

using Kind = proto::Envelope::BodyCase;
using Tokens = std::vector<TokenId>;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// An honest pair: peer 2 prefills, 9 decodes.
struct Pair : CoreDriver {
  Pair() {
    join(2, true);
    join(9, false);
  }
  // A request of one rank, from start to end, on whoever is asked; fails the test if it does not end well.
  void serve_one() {
    const Result<RequestId> id = submit(100, 3);
    ASSERT_TRUE(id) << id.error().message;
    for (int attempt = 1; attempt <= limits::kAttemptsMax && !finished.contains(*id) && !errors.contains(*id);
         ++attempt) {
      const auto number = static_cast<uint32_t>(attempt);
      for (const auto& [peer, messages] : std::map(inbox)) {
        const proto::Envelope* step = last(peer, Kind::kRunChainStep);
        if (step == nullptr || step->request() != *id || step->attempt() != number) continue;
        if (peer != 2) {
          core.on_disconnected(peer, now);  // the odd one: of no use
          settle();
        } else {
          from(2, first_token(*id, number, 5));
          from(2, rank_done(*id, number, 0));
          from(9, tokens(*id, number, 1, {6, 7}));
          from(9, decode_done(*id, number));
        }
        break;
      }
    }
    ASSERT_TRUE(finished.contains(*id)) << (errors.contains(*id) ? errors.at(*id).message : "it hangs");
    EXPECT_EQ(answer(*id), (Tokens{5, 6, 7}));
  }
};

TEST(HostileHello, OddNumbersAndTextAreRefusedAndRequestsGoOn) {
  using Change = std::function<void(proto::Hello&)>;
  const std::vector<std::pair<const char*, Change>> cases = {
      {"seconds a token inf", [](auto& h) { h.set_seconds_per_token(kInf); }},
      {"seconds a token nan", [](auto& h) { h.set_seconds_per_token(kNan); }},
      {"seconds a token denormal", [](auto& h) { h.set_seconds_per_token(5e-324); }},
      {"seconds a token huge", [](auto& h) { h.set_seconds_per_token(1e308); }},
      {"seconds a token negative", [](auto& h) { h.set_seconds_per_token(-1); }},
      {"seconds a pair inf", [](auto& h) { h.set_seconds_per_token(1e-4), h.set_seconds_per_pair(kInf); }},
      {"seconds a pair nan", [](auto& h) { h.set_seconds_per_token(1e-4), h.set_seconds_per_pair(kNan); }},
      {"seconds a pair denormal", [](auto& h) { h.set_seconds_per_token(1e-4), h.set_seconds_per_pair(5e-324); }},
      {"seconds a pair huge", [](auto& h) { h.set_seconds_per_token(1e-4), h.set_seconds_per_pair(1e308); }},
      {"seconds a pair alone", [](auto& h) { h.set_seconds_per_pair(1e-9); }},
      {"pages 0", [](auto& h) { h.set_pages_total(0); }},
      {"pages negative", [](auto& h) { h.set_pages_total(INT64_MIN); }},
      {"pages huge", [](auto& h) { h.set_pages_total(INT64_MAX); }},
      {"page bytes 0", [](auto& h) { h.set_page_bytes(0); }},
      {"page bytes huge", [](auto& h) { h.set_page_bytes(UINT64_MAX); }},
      {"attempts 0", [](auto& h) { h.set_attempts_max(0); }},
      {"attempts huge", [](auto& h) { h.set_attempts_max(UINT32_MAX); }},
      {"role", [](auto& h) { h.set_role(static_cast<proto::Hello::Role>(7)); }},
      {"layers", [](auto& h) { h.set_num_layers(-1); }},
      {"name of 4 MB", [](auto& h) { h.set_name(std::string(4 << 20, 'x')); }},
      {"name of two lines", [](auto& h) { h.set_name("a\nERROR all is lost"); }},
      {"device with escapes", [](auto& h) { h.set_device("\x1b[2J"); }},
      {"no address", [](auto& h) { h.set_kv_address(""); }},
      {"address of 1 MB", [](auto& h) { h.set_kv_address(std::string(1 << 20, 'x')); }},
      {"address with zeros", [](auto& h) { h.set_kv_address(std::string(3, '\0')); }},
      {"fingerprint of 1 MB", [](auto& h) { h.set_fingerprint(std::string(1 << 20, 'x')); }},
  };
  for (const auto& [what, change] : cases) {
    SCOPED_TRACE(what);
    Pair driver;
    proto::Envelope message = CoreDriver::hello(true, 1);
    change(*message.mutable_hello());
    driver.join(1, message);
    ASSERT_NE(driver.last(1, Kind::kRefused), nullptr);
    EXPECT_LT(driver.last(1, Kind::kRefused)->refused().failure().message().size(), 700u);
    EXPECT_EQ(driver.dropped, std::vector<PeerId>{1});
    driver.serve_one();
  }
}

TEST(HostileHello, TheEdgesOfWhatIsAllowedAreServed) {
  for (const double a : {limits::kSecondsPerTokenMin, 1e-4, limits::kSecondsPerTokenMax})
    for (const double b : {0.0, limits::kSecondsPerPairMin, limits::kSecondsPerPairMax}) {
      Pair driver;
      proto::Envelope message = CoreDriver::hello(true, 1, limits::kPeerPagesMax);
      message.mutable_hello()->set_seconds_per_token(a);
      message.mutable_hello()->set_seconds_per_pair(b);
      driver.join(1, message);
      ASSERT_NE(driver.last(1, Kind::kWelcome), nullptr) << a << " " << b;
      driver.serve_one();
    }
}

// What peers 2 (rank 0) and 9 (decode) could say of a running attempt.
using Make = std::function<proto::Envelope(RequestId)>;
struct Report {
  const char* what;
  Make make;
};

Report with_token(const char* what, std::function<void(proto::Token&)> change) {
  return {what, [=](RequestId id) {
            proto::Envelope message = CoreDriver::about(id, 1);
            change(*message.mutable_first_token()->mutable_token());
            return message;
          }};
}
Report with_time(const char* what, double seconds) {
  return {what, [=](RequestId id) {
            proto::Envelope message = CoreDriver::about(id, 1);
            message.mutable_rank_done()->mutable_timing()->set_compute_seconds(seconds);
            return message;
          }};
}
Report with_progress(const char* what, uint32_t rank, uint32_t done, uint32_t total) {
  return {what, [=](RequestId id) {
            proto::Envelope message = CoreDriver::about(id, 1);
            message.mutable_rank_progress()->set_rank(rank);
            message.mutable_rank_progress()->set_layers_done(done);
            message.mutable_rank_progress()->set_layers_total(total);
            return message;
          }};
}

Report with_scores(const char* what, uint32_t rank, int32_t begin, int32_t count) {
  return {what, [=](RequestId id) {
            proto::Envelope message = CoreDriver::about(id, 1);
            message.mutable_prompt_scores()->set_rank(rank);
            message.mutable_prompt_scores()->set_begin(begin);
            for (int32_t i = 0; i < count; ++i) message.mutable_prompt_scores()->add_tokens()->set_id(7);
            return message;
          }};
}
Report with_score(const char* what, std::function<void(proto::Token&)> change) {
  return {what, [=](RequestId id) {
            proto::Envelope message = CoreDriver::about(id, 1);
            message.mutable_prompt_scores()->set_begin(1);
            change(*message.mutable_prompt_scores()->add_tokens());
            return message;
          }};
}

std::vector<Report> odd_tokens() {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  return {
      with_token("token -5", [](auto& t) { t.set_id(-5); }),
      with_token("token 2^31-1", [](auto& t) { t.set_id(INT32_MAX); }),
      with_token("token = vocabulary", [](auto& t) { t.set_id(CoreDriver::kVocab); }),
      with_token("logprob inf", [=](auto& t) { t.set_logprob(inf); }),
      with_token("logprob -inf", [=](auto& t) { t.set_logprob(-inf); }),
      with_token("logprob nan", [=](auto& t) { t.set_logprob(nan); }),
      with_token("logprob positive", [](auto& t) { t.set_logprob(3); }),
      with_token("alternative outside", [](auto& t) { t.add_top()->set_token(-1); }),
      with_token("alternative nan", [=](auto& t) { t.add_top()->set_logprob(nan); }),
      with_token("21 alternatives",
                 [](auto& t) {
                   for (int i = 0; i <= limits::kTopLogprobsMax; ++i) t.add_top();
                 }),
      with_scores("log-probabilities of rank 99", 99, 1, 1),
      with_scores("more than a message holds", 0, 1, limits::kScoredRowsMax + 1),
      with_scores("of the first token", 0, 0, 1),
      with_scores("before the prompt", 0, INT32_MIN, 1),
      with_scores("behind the context", 0, CoreDriver::kContext, 1),
      with_scores("far behind the context", 0, INT32_MAX, 5),
      with_score("a score of a token outside", [](auto& t) { t.set_id(-1); }),
      with_score("a score nan", [=](auto& t) { t.set_logprob(nan); }),
      with_score("a score's alternative inf", [=](auto& t) { t.add_top()->set_logprob(inf); }),
  };
}

std::vector<Report> odd_reports() {
  std::vector<Report> reports = odd_tokens();
  const std::vector<Report> others = {
      with_time("time inf", kInf),
      with_time("time nan", kNan),
      with_time("time negative", -1),
      with_time("time 1e308", 1e308),
      with_progress("rank 99", 99, 1, CoreDriver::kLayers),
      with_progress("layers of another model", 0, 1, 77),
      with_progress("more layers than there are", 0, 3, CoreDriver::kLayers),
      {"a digest of 4 MB",
       [](RequestId id) {
         proto::Envelope message = CoreDriver::first_token(id, 1, 5);
         message.mutable_first_token()->set_logits_sha256(std::string(4 << 20, 'x'));
         return message;
       }},
      {"an index beyond the context", [](RequestId id) { return CoreDriver::tokens(id, 1, UINT32_MAX, {1}); }},
      {"a batch with -5", [](RequestId id) { return CoreDriver::tokens(id, 1, 1, {-5}); }},
      {"handoff nan",
       [](RequestId id) {
         proto::Envelope message = CoreDriver::about(id, 1);
         message.mutable_decode_done()->set_handoff_seconds(kNan);
         return message;
       }},
      {"given in negative time",
       [](RequestId id) {
         proto::Envelope message = CoreDriver::decode_done(id, 1);
         message.mutable_decode_done()->set_kv_given_seconds(-1);
         return message;
       }},
      {"a prefix beyond the context", [](RequestId id) { return CoreDriver::decode_done(id, 1, 65); }},
      {"a prompt beyond the context", [](RequestId id) { return CoreDriver::prompt_kept(id, 1, 65); }},
      {"an answer of -1 pages", [](RequestId id) { return CoreDriver::ended(id, 1, -1); }},
      {"a prefix of -1 pages", [](RequestId id) { return CoreDriver::rank_done(id, 1, 0, -1); }},
      {"pages -1",
       [](RequestId) {
         proto::Envelope message = envelope({.epoch = CoreDriver::kEpoch});
         message.mutable_heartbeat()->set_pages_free(-1);
         return message;
       }},
  };
  reports.insert(reports.end(), others.begin(), others.end());
  return reports;
}

TEST(HostileReport, OddValuesEndTheirWorkerNotTheCoordinator) {
  for (const PeerId liar : {PeerId{2}, PeerId{9}})
    for (const Report& report : odd_reports()) {
      SCOPED_TRACE(report.what);
      Pair driver;
      const RequestId id = *driver.submit(100, 3);
      ASSERT_NE(driver.last(2, Kind::kRunChainStep), nullptr);
      driver.from(liar, report.make(id));
      EXPECT_EQ(driver.dropped, std::vector<PeerId>{liar});
      EXPECT_TRUE(driver.answer(id).empty()) << "nothing of it reaches the client";
      EXPECT_FALSE(driver.errors.contains(id)) << "the request waits for a better worker";
      driver.join(liar, liar == 2);  // one that is honest
      driver.from(2, CoreDriver::first_token(id, 2, 5));
      driver.from(2, CoreDriver::rank_done(id, 2, 0));
      driver.from(9, CoreDriver::tokens(id, 2, 1, {6, 7}));
      EXPECT_EQ(driver.answer(id), (Tokens{5, 6, 7}));
      for (const RankRecord& rank : driver.sink.ranks) EXPECT_TRUE(std::isfinite(rank.compute_seconds));
      for (const TtftReport& ttft : driver.sink.ttft) EXPECT_TRUE(std::isfinite(ttft.ttft_seconds));
    }
}

TEST(HostileReport, ATimeThatWasNotMeasuredTeachesNothing) {
  for (const double seconds : {0.0, 5e-324, 1e-300, 1e-10}) {
    Pair driver;
    const RequestId id = *driver.submit(100, 3);
    proto::Envelope done = CoreDriver::about(id, 1);
    done.mutable_rank_done()->mutable_timing()->set_compute_seconds(seconds);
    driver.from(2, done);
    EXPECT_TRUE(driver.dropped.empty()) << seconds;
    for (const WorkerView& worker : driver.core.view(driver.now).workers) EXPECT_LT(worker.tokens_per_second, 1e9);
    driver.from(9, CoreDriver::failed(id, 1, ErrorCode::kCorrupt));
    EXPECT_NE(driver.last(2, Kind::kRunChainStep), nullptr);
    EXPECT_EQ(driver.last(2, Kind::kRunChainStep)->attempt(), 2u) << "and the next plan is made";
  }
}

TEST(HostileReport, EverybodySpeaksOfItsOwnPartOnly) {
  Pair driver;
  const RequestId id = *driver.submit(100, 3);
  driver.from(9, CoreDriver::first_token(id, 1, 50));
  driver.from(9, CoreDriver::rank_done(id, 1, 0));
  driver.from(2, CoreDriver::tokens(id, 1, 0, {51, 52, 53}));
  driver.from(2, CoreDriver::decode_done(id, 1));
  EXPECT_TRUE(driver.answer(id).empty());
  EXPECT_FALSE(driver.errors.contains(id));
  driver.from(2, CoreDriver::rank_done(id, 1, 0));
  driver.from(2, CoreDriver::rank_done(id, 1, 0));
  EXPECT_EQ(driver.sink.ranks.size(), 1u) << "once";
}

TEST(HostileReport, AWorkersWordDoesNotEndARequestNorBlameOthers) {
  Pair driver;
  driver.join(1, true);
  const RequestId id = *driver.submit(100, 3);
  const PeerId rank = driver.last(1, Kind::kRunChainStep) != nullptr ? 1 : 2;
  driver.from(rank, CoreDriver::failed(id, 1, ErrorCode::kInvalidArgument, 77));
  EXPECT_FALSE(driver.errors.contains(id));
  proto::Envelope failed = CoreDriver::failed(id, 2, ErrorCode::kInternal);
  failed.mutable_attempt_failed()->mutable_failure()->set_message(std::string(4 << 20, 'x'));
  for (uint32_t attempt = 2; attempt <= limits::kAttemptsMax; ++attempt) {
    failed.set_attempt(attempt);
    for (const PeerId peer : {PeerId{1}, PeerId{2}}) driver.from(peer, failed);
  }
  ASSERT_TRUE(driver.errors.contains(id));
  EXPECT_LT(driver.errors.at(id).message.size(), 1200u);
}

TEST(HostileStranger, WhoDoesNotIntroduceItselfIsDropped) {
  Pair driver;
  driver.core.on_connected(5, driver.now);
  driver.from(5, CoreDriver::first_token(1, 1, 5));
  EXPECT_EQ(driver.dropped, std::vector<PeerId>{5});
}

TEST(HostileStranger, AnUnfitHelloWithAMembersIncarnationTakesNobodysPlace) {
  Pair driver;
  proto::Envelope message = CoreDriver::hello(true, 2);
  message.mutable_hello()->set_num_layers(77);
  driver.join(31, message);
  EXPECT_NE(driver.last(31, Kind::kRefused), nullptr);
  EXPECT_EQ(driver.core.view(driver.now).workers.size(), 2u);
  driver.serve_one();
}

// Draws any message with any numbers.
class Rubbish {
 public:
  explicit Rubbish(uint64_t seed) : rng_(seed) {}
  uint64_t below(uint64_t n) { return rng_.next() % n; }

  proto::Envelope message(RequestId request) {
    proto::Envelope m = CoreDriver::about(request, 1 + static_cast<uint32_t>(below(4)));
    switch (below(11)) {
      case 0:
        return hello();
      case 1:
        m.mutable_heartbeat()->set_pages_free(number());
        break;
      case 2:
        timing(*m.mutable_rank_done()->mutable_timing());
        m.mutable_rank_done()->set_rank(u32());
        break;
      case 3:
        token(*m.mutable_first_token()->mutable_token());
        break;
      case 4:
        m.mutable_token_batch()->set_first_index(u32());
        for (uint64_t i = below(5); i > 0; --i) token(*m.mutable_token_batch()->add_tokens());
        break;
      case 5:
        m.mutable_rank_progress()->set_rank(u32());
        m.mutable_rank_progress()->set_layers_total(u32());
        break;
      case 6:
        m.mutable_decode_done()->set_handoff_seconds(real());
        break;
      case 7:
        encode(Failure{{static_cast<ErrorCode>(u32() % 30), "x"}, u32()},
               *m.mutable_attempt_failed()->mutable_failure());
        break;
      case 8:
        m.mutable_attempt_ended();
        break;
      case 9:
        m.mutable_prompt_scores()->set_rank(below(2) == 0 ? 0 : u32());
        m.mutable_prompt_scores()->set_begin(below(2) == 0 ? 1 : static_cast<int32_t>(number()));
        for (uint64_t i = below(70); i > 0; --i) {
          proto::Token& one = *m.mutable_prompt_scores()->add_tokens();
          one.set_id(7);  // of the prompts here
          if (below(100) == 0) token(one);
        }
        break;
      default:
        m.mutable_drain();
    }
    return m;
  }

 private:
  int64_t number() {
    const int64_t odd[] = {0, 1, 2, 3, 64, 99, 100, 4095, -1, -5, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    return odd[below(std::size(odd))];
  }
  double real() {
    const double odd[] = {0, 1e-4, 0.5, 5e-324, 1e-300, 1e308, -1, kInf, -kInf, kNan};
    return odd[below(std::size(odd))];
  }
  uint32_t u32() { return static_cast<uint32_t>(number()); }

  proto::Envelope hello() {
    proto::Envelope m = CoreDriver::hello(below(2) == 0, below(3) == 0 ? 2 : 50 + below(4));
    proto::Hello& h = *m.mutable_hello();
    if (below(2) == 0) h.set_seconds_per_token(real()), h.set_seconds_per_pair(real());
    if (below(4) == 0) h.set_pages_total(number());
    if (below(4) == 0) h.set_attempts_max(u32());
    if (below(4) == 0) h.set_page_bytes(static_cast<uint64_t>(number()));
    return m;
  }
  void timing(proto::RankTiming& t) {
    t.set_compute_seconds(real()), t.set_total_seconds(real()), t.set_sample_seconds(real());
    t.set_kv_sent_bytes(static_cast<uint64_t>(number()));
    t.set_kv_wire_seconds(real());
  }
  void token(proto::Token& t) {
    t.set_id(static_cast<int32_t>(number()));
    if (below(2) == 0) t.set_logprob(static_cast<float>(real()));
    if (below(4) == 0) t.add_top()->set_token(static_cast<int32_t>(number()));
  }

  SeededRng rng_;
};

// From strangers and members alike, while requests come and go.
TEST(HostileFuzz, NoSequenceOfMessagesEndsTheCoordinator) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Rubbish rubbish(seed);
    Pair driver;
    std::vector<RequestId> ids = {1};
    for (int step = 0; step < 200; ++step) {
      if (rubbish.below(8) == 0) {
        const auto prompt = 1 + static_cast<int32_t>(rubbish.below(300)),
                   wanted = 1 + static_cast<int32_t>(rubbish.below(5));
        InferenceRequest request{
            .external_id = "r", .prompt = Tokens(static_cast<size_t>(prompt), 7), .max_new_tokens = wanted};
        if (rubbish.below(2) == 0) request.prompt_logprobs = static_cast<int32_t>(rubbish.below(3));
        if (const auto id = driver.submit(std::move(request))) ids.push_back(*id);
      }
      const PeerId peer = rubbish.below(4) == 0 ? 20 + rubbish.below(4) : rubbish.below(2) == 0 ? 2 : 9;
      if (rubbish.below(6) == 0) driver.core.on_connected(peer, driver.now);
      driver.from(peer, rubbish.message(ids[rubbish.below(ids.size())]));
      if (rubbish.below(5) == 0) driver.tick(from_seconds(static_cast<double>(rubbish.below(3)) * 0.2));
      for (const auto& [id, answer] : driver.answers)
        for (const TokenId t : answer) ASSERT_TRUE(t >= 0 && t < CoreDriver::kVocab);
      for (const WorkerView& worker : driver.core.view(driver.now).workers) {
        ASSERT_TRUE(std::isfinite(worker.tokens_per_second) && worker.tokens_per_second > 0);
        ASSERT_TRUE(std::isfinite(worker.link_bytes_per_second) && worker.link_bytes_per_second >= 0);
      }
      for (const RankRecord& rank : driver.sink.ranks)
        ASSERT_TRUE(std::isfinite(rank.compute_seconds + rank.total_seconds) && rank.compute_seconds >= 0);
    }
    driver.core.end_all({ErrorCode::kUnavailable, "over"}, driver.now);
  }
}

}  // namespace
}  // namespace runahead::test
