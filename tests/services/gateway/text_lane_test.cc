// Work that grows with a text never holds up the event loop, nor a small text: shown by the order of events. A codec
// that waits stands for one that takes long.
#include "services/gateway/text_lane.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <condition_variable>

#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

constexpr size_t kKiB = 1024, kMiB = 1024 * kKiB;

// Closed until opened, or for at most ten seconds, so that a test that fails does not hang.
class Door {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait_for(lock, 10s, [&] { return open_; });
    --waiting_;
  }
  bool somebody_waits() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 10s, [&] { return waiting_ > 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int waiting_ = 0;
};

TEST(TextTurn, SmallFirstButNotForEver) {
  const Time now = 5s;
  EXPECT_LT(text_turn(now, 20 * kKiB), text_turn(now, kMiB));
  EXPECT_LT(text_turn(now + 100ms, 20 * kKiB), text_turn(now, kMiB)) << "it gives way to what comes within its time";
  EXPECT_LT(text_turn(now, 16 * kMiB), text_turn(now + 5s, 20 * kKiB)) << "and not to what comes later";
}

class TextLaneTest : public ::testing::Test {
 protected:
  // Runs a piece of work of this size that waits at the door, then says its name.
  void start(const std::string& name, size_t bytes, Door* door = nullptr) {
    asio::co_spawn(io_, work(name, bytes, door), asio::detached);
  }
  asio::awaitable<void> work(std::string name, size_t bytes, Door* door) {
    const Result<std::string> done = co_await lane_.run(bytes, [&]() -> Result<std::string> {
      if (door != nullptr) door->pass();
      const std::lock_guard lock(mutex_);
      order_.push_back(name);
      return name;
    });
    if (!done) refused_.push_back(done.error().code);
  }

  std::mutex mutex_;
  std::vector<std::string> order_;
  std::vector<ErrorCode> refused_;
  asio::io_context io_;
  AsioClock clock_;
  TextLane lane_{clock_};
};

TEST_F(TextLaneTest, LittleIsDoneAtOnce) {
  start("inline", limits::kInlineTextBytesMax);
  io_.run();
  EXPECT_EQ(order_, std::vector<std::string>{"inline"});
}

TEST_F(TextLaneTest, WhatWaitsGoesSmallestFirst) {
  Door large, small;
  start("large under way", 16 * kMiB, &large);
  io_.poll();
  ASSERT_TRUE(large.somebody_waits());
  start("small under way", 100 * kKiB, &small);
  io_.poll();
  ASSERT_TRUE(small.somebody_waits());
  start("8 MiB", 8 * kMiB);
  start("4 MiB", 4 * kMiB);
  start("200 KiB", 200 * kKiB);
  start("20 KiB", 20 * kKiB);
  io_.poll();
  small.open();
  EXPECT_EQ(io_.run_one(), 1u);  // the loop turns while the large one is in work
  EXPECT_TRUE([&] {
    for (int i = 0; i < 1000; ++i) {
      io_.run_one_for(10ms);
      const std::lock_guard lock(mutex_);
      if (order_.size() == 3) return true;
    }
    return false;
  }());
  large.open();
  io_.run();
  EXPECT_EQ(order_,
            (std::vector<std::string>{"small under way", "20 KiB", "200 KiB", "large under way", "4 MiB", "8 MiB"}));
}

TEST_F(TextLaneTest, AFullQueueRefusesWithoutHoldingBackTheSmall) {
  Door door;
  start("under way", 16 * kMiB, &door);
  io_.poll();
  ASSERT_TRUE(door.somebody_waits());
  for (int i = 0; i < 5; ++i) start("waits", 16 * kMiB);
  start("inline", 100);
  io_.poll();
  EXPECT_EQ(refused_, std::vector<ErrorCode>{ErrorCode::kOverloaded}) << "the queue holds 64 MiB";
  EXPECT_EQ(order_, std::vector<std::string>{"inline"});
  door.open();
  io_.run();
  EXPECT_EQ(order_.size(), 6u);
}

// Every codec call that is large waits at the door.
class WaitingCodec final : public TextCodec {
 public:
  static constexpr TokenId kSlow = 'Z';  // only log-probabilities show it

  Result<std::vector<TokenId>> encode(std::string_view text, bool special, bool parse) const override {
    if (text.size() > kMiB) door->pass();
    return toy_.encode(text, special, parse);
  }
  std::string token_bytes(TokenId token) const override {
    if (token == kSlow) door->pass();
    return toy_.token_bytes(token);
  }
  std::string decode(std::span<const TokenId> tokens) const override {
    if (tokens.size() >= 4096) door->pass();
    return toy_.decode(tokens);
  }
  Result<std::string> render_chat(const nlohmann::ordered_json& messages, bool prompt,
                                  const nlohmann::ordered_json& tools) const override {
    auto text = toy_.render_chat(messages, prompt, tools);
    if (text->size() > kMiB) door->pass();
    return text;
  }
  Result<std::vector<TokenId>> encode_chat(const nlohmann::ordered_json& messages, bool prompt,
                                           const nlohmann::ordered_json& tools) const override {
    return encode(TRY(render_chat(messages, prompt, tools)), false, true);
  }
  int32_t vocab_size() const override { return toy_.vocab_size(); }
  std::vector<TokenId> end_tokens() const override { return toy_.end_tokens(); }

  std::unique_ptr<Door> door = std::make_unique<Door>();

 private:
  ToyCodec toy_;
};

class LargeBodiesTest : public GatewayTest {
 protected:
  const TextCodec& codec() const override { return waiting_; }
  std::string medium_text() const { return std::string(100 * kKiB, 'm'); }

  // Sends what takes long; while it does, everything else is answered.
  RawAnswer answered_beside_others(const std::string& path, const std::string& body) {
    waiting_.door = std::make_unique<Door>();
    RawClient slow = client();
    slow.send(post_bytes(path, body));
    EXPECT_TRUE(waiting_.door->somebody_waits()) << path << ": it is in work";
    EXPECT_EQ(get("/livez").status, 200) << path << ": the loop turns";
    EXPECT_EQ(post("/tokenize", R"({"prompt":"small"})").json()["count"], 5) << path;
    EXPECT_EQ(post("/tokenize", json({{"prompt", medium_text()}}).dump()).json()["count"], 100 * kKiB)
        << path << ": a text of the lane's waits for no larger one";
    waiting_.door->open();
    return slow.receive();
  }

  using json = nlohmann::json;
  WaitingCodec waiting_;
};

TEST_F(LargeBodiesTest, NoRouteHoldsUpTheLoop) {
  inference_.set({.context_len = 64 << 20});
  const std::string text(2 * kMiB, 'x');
  const json messages = json::array({{{"role", "user"}, {"content", text}}});
  std::string ids = "[1";
  for (int i = 1; i < 100'000; ++i) ids += ",1";
  ids += "]";
  EXPECT_EQ(answered_beside_others("/tokenize", json({{"prompt", text}}).dump()).json()["count"], text.size());
  EXPECT_EQ(answered_beside_others("/tokenize", json({{"messages", messages}}).dump()).status, 200);
  EXPECT_EQ(
      answered_beside_others("/detokenize", "{\"tokens\":" + ids + "}").json()["prompt"].get<std::string>().size(),
      100'000u);
  EXPECT_EQ(answered_beside_others("/apply-template", json({{"messages", messages}}).dump()).status, 200);
  EXPECT_EQ(answered_beside_others("/v1/completions", json({{"prompt", text}}).dump()).status, 200);
  EXPECT_EQ(answered_beside_others("/v1/completions", "{\"echo\":true,\"prompt\":" + ids + "}").status, 200);
  EXPECT_EQ(answered_beside_others("/v1/chat/completions", json({{"messages", messages}}).dump()).status, 200);
}

TEST_F(LargeBodiesTest, NoAnswerWithLogProbabilitiesHoldsUpTheLoop) {
  const std::string text(500, 'Z' - 19);
  inference_.set({.text = text, .tokens_per_event = 500});
  json body = {{"messages", {{{"role", "user"}, {"content", "a"}}}}, {"logprobs", true}, {"top_logprobs", 20}};
  const RawAnswer whole = answered_beside_others("/v1/chat/completions", body.dump());
  EXPECT_EQ(whole.json()["choices"][0]["logprobs"]["content"].size(), 500u);
  body["stream"] = true;
  const RawAnswer streamed = answered_beside_others("/v1/chat/completions", body.dump());
  EXPECT_EQ(json::parse(streamed.events().front().data)["choices"][0]["logprobs"]["content"].size(), 500u);
}

TEST_F(LargeBodiesTest, WhatExpandsTooMuchIsRefusedWithASentence) {
  const auto list = [](const std::string& entry, size_t bytes) {
    std::string text = "{\"tokens\":[" + entry;
    while (text.size() + entry.size() + 3 < bytes) text += "," + entry;
    return text + "]}";
  };
  for (const char* entry : {"1", "{}", "[]", "\"\"", "{\"a\":1}"}) {
    const RawAnswer answer = post("/detokenize", list(entry, 15 * kMiB));
    EXPECT_EQ(answer.status, 413) << entry;
    EXPECT_EQ(answer.error_code(), "too_large") << entry;
  }
  waiting_.door->open();
  const std::string text(5 * kMiB, 'x');
  const json messages = json::array({{{"role", "user"}, {"content", text}}});
  for (const auto& [path, body] : {std::pair("/tokenize", json({{"prompt", text}})),
                                   {"/tokenize", json({{"messages", messages}})},
                                   {"/v1/completions", json({{"prompt", text}})},
                                   {"/v1/chat/completions", json({{"messages", messages}})}})
    EXPECT_EQ(post(path, body.dump()).status, 413) << path << ": a word of 5 MiB takes 200 MiB to tokenize";
  EXPECT_EQ(post("/detokenize", list("101", 8 * kMiB)).status, 200) << "two million ids are fine";
  EXPECT_EQ(post("/detokenize", R"({"tokens":[72,105]})").json(), (json{{"prompt", "Hi"}, {"content", "Hi"}}));
}

}  // namespace
}  // namespace runahead
