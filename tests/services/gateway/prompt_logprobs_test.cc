// Log-probabilities of an echoed prompt as clients see them: their order, null for the first token, offsets into the whole
// text, streams, choices, and what is refused.
#include "services/gateway/echoed_prompt.h"
#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

using nlohmann::json;

class PromptLogprobs : public GatewayTest {
 protected:
  json choices(const json& body) {
    const RawAnswer answer = post("/v1/completions", body.dump());
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.json()["choices"];
  }
};

const json kScored = {{"prompt", "abc"}, {"echo", true}, {"logprobs", 1}, {"max_tokens", 2}, {"temperature", 0}};

json with(json body, const json& more) {
  body.update(more);
  return body;
}

TEST_F(PromptLogprobs, StandBeforeThoseOfTheAnswerAndTheFirstIsNull) {
  const json choice = choices(kScored)[0];
  EXPECT_EQ(choice["text"], "abcHe");
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["logprobs"], json::parse(R"({"tokens":["a","b","c","H","e"],
      "token_logprobs":[null,-1.0,-2.0,-0.5,-0.5], "text_offset":[0,1,2,3,4],
      "top_logprobs":[null,{"b":-1.0,"c":-0.25},{"c":-2.0,"d":-0.25},{"H":-0.5},{"e":-0.5}]})"));
  EXPECT_EQ(inference_.requests().at(0).prompt_logprobs, 1);
  EXPECT_EQ(inference_.first_chunks, 1);
}

TEST_F(PromptLogprobs, NobodyElseMakesTheWorkersScore) {
  choices({{"prompt", "abc"}, {"echo", true}});
  choices({{"prompt", "abc"}, {"logprobs", 1}});
  for (const InferenceRequest& request : inference_.requests()) EXPECT_FALSE(request.prompt_logprobs);
}

TEST_F(PromptLogprobs, OfNoTokensAreThePromptsAlone) {
  const RawAnswer answer = post("/v1/completions", with(kScored, {{"max_tokens", 0}, {"prompt", {97, 98, 99}}}).dump());
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json choice = answer.json()["choices"][0];
  EXPECT_EQ(choice["text"], "abc");
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["logprobs"]["token_logprobs"], json::array({nullptr, -1.0, -2.0}));
  EXPECT_EQ(choice["logprobs"]["text_offset"], json::array({0, 1, 2}));
  EXPECT_EQ(answer.json()["usage"]["completion_tokens"], 0);
  EXPECT_EQ(inference_.requests().at(0).max_new_tokens, 1) << "a chain ends with a token";
}

// lm-evaluation-harness takes token_logprobs[context:-1]: without an entry for the end it would lose one of the prompt's.
TEST_F(PromptLogprobs, AStopTokenHasAnEntryWithoutText) {
  inference_.set({.text = ""});
  const json alone = choices(with(kScored, {{"max_tokens", 1}}))[0];
  EXPECT_EQ(alone["text"], "abc");
  EXPECT_EQ(alone["finish_reason"], "stop");
  EXPECT_EQ(alone["logprobs"]["token_logprobs"], json::array({nullptr, -1.0, -2.0, -0.125}));
  EXPECT_EQ(alone["logprobs"]["text_offset"], json::array({0, 1, 2, 3}));
  inference_.set({.text = "x"});
  EXPECT_EQ(choices(with(kScored, {{"max_tokens", 9}}))[0]["logprobs"]["text_offset"], json::array({0, 1, 2, 3, 4}));
  const RawAnswer zero = post("/v1/completions", with(kScored, {{"max_tokens", 0}}).dump());
  EXPECT_EQ(zero.json()["choices"][0]["logprobs"]["tokens"].size(), 3u);
}

TEST_F(PromptLogprobs, EveryPromptAndEveryChoiceHasItsOwn) {
  const json all = choices(with(kScored, {{"prompt", {"ab", {99, 100, 101}}}, {"n", 2}, {"max_tokens", 1}}));
  ASSERT_EQ(all.size(), 4u);
  for (const size_t i : {0, 1}) EXPECT_EQ(all[i]["logprobs"]["token_logprobs"], json::array({nullptr, -1.0, -0.5}));
  for (const size_t i : {2, 3}) EXPECT_EQ(all[i]["logprobs"]["tokens"], json::array({"c", "d", "e", "H"}));
}

TEST_F(PromptLogprobs, TheFirstChunkOfAStreamCarriesThem) {
  for (const int max_tokens : {2, 0}) {
    const RawAnswer answer =
        post("/v1/completions", with(kScored, {{"max_tokens", max_tokens}, {"stream", true}}).dump());
    const auto events = answer.events();
    ASSERT_EQ(events.size(), 3u + static_cast<size_t>(max_tokens)) << answer.body;
    const json first = json::parse(events[0].data)["choices"][0];
    EXPECT_EQ(first["text"], "abc");
    EXPECT_EQ(first["finish_reason"], nullptr);
    EXPECT_EQ(first["logprobs"]["token_logprobs"], json::array({nullptr, -1.0, -2.0}));
    if (max_tokens > 0) {
      const json second = json::parse(events[1].data)["choices"][0];
      EXPECT_EQ(second["text"], "H") << "the prompt comes once";
      EXPECT_EQ(second["logprobs"]["text_offset"], json::array({3}));
    }
    EXPECT_EQ(json::parse(events[events.size() - 2].data)["choices"][0]["finish_reason"], "length");
    EXPECT_EQ(events.back().data, "[DONE]");
  }
}

TEST_F(PromptLogprobs, OffsetsCountCharactersOfTheWholeText) {
  inference_.set({.text = "!"});
  const json choice = choices(with(kScored, {{"prompt", "a\u00e9b"}, {"max_tokens", 1}}))[0];
  EXPECT_EQ(choice["logprobs"]["tokens"], json::array({"a", "bytes:\\xc3", "bytes:\\xa9", "b", "!"}));
  EXPECT_EQ(choice["logprobs"]["text_offset"], json::array({0, 1, 1, 2, 3}));
  const json broken = choices(with(kScored, {{"prompt", {97, 0xFF, 98}}, {"max_tokens", 1}}))[0];
  EXPECT_EQ(broken["text"], "a\uFFFDb!");
  EXPECT_EQ(broken["logprobs"]["text_offset"], json::array({0, 1, 2, 3}));
}

TEST_F(PromptLogprobs, MoreThanTheBoundIsRefusedBeforeAnybodyWorks) {
  inference_.set({.context_len = 1 << 20});
  const std::string prompt(limits::kPromptLogprobsMax / 8 + 1, 'x');
  const RawAnswer answer = post("/v1/completions", with(kScored, {{"prompt", prompt}, {"n", 4}}).dump());
  EXPECT_EQ(answer.status, 413) << answer.body.substr(0, 300);
  EXPECT_EQ(answer.json()["error"]["param"], "logprobs");
  EXPECT_TRUE(inference_.requests().empty());
}

TEST_F(PromptLogprobs, APromptThatFillsTheContextLeavesNoRoomForTheChainsToken) {
  inference_.set({.context_len = 3});
  EXPECT_EQ(post("/v1/completions", with(kScored, {{"max_tokens", 0}}).dump()).status, 400);
  EXPECT_EQ(post("/v1/completions", with(kScored, {{"max_tokens", 0}, {"prompt", "ab"}}).dump()).status, 200);
}

// Some models want a begin-of-text token before every text: it is a token of the prompt, and not in the text.
TEST(TokenOffsets, ATokenThatTheTextDoesNotHaveTakesNoRoom) {
  struct Spelling final : ToyCodec {
    std::string decode(std::span<const TokenId> tokens) const override {
      return tokens.size() == 1 && tokens[0] == kToyEnd ? "<s>" : ToyCodec::decode(tokens);
    }
  } codec;
  const std::vector<TokenId> tokens = {kToyEnd, 'a', 'b'};
  EXPECT_EQ(token_offsets("ab", tokens, codec), (std::vector<int64_t>{0, 0, 1}));
  EXPECT_EQ(token_offsets("<s>ab", tokens, codec), (std::vector<int64_t>{0, 3, 4})) << "written by the client";
}

// SentencePiece's tokenizers put a space in front of a text, which is a token's and not the text's.
TEST(TokenOffsets, ASpaceInFrontOfTheTextTakesNoRoom) {
  struct Spaced final : ToyCodec {
    std::string token_bytes(TokenId token) const override {
      return token < 256 ? (token < 'm' ? " " : "") + ToyCodec::token_bytes(token) : "";
    }
  } codec;
  const std::vector<TokenId> tokens = {'a', 'x', 'b'};  // " a", "x", " b"
  EXPECT_EQ(token_offsets("ax b", tokens, codec), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(token_offsets(" ax b", tokens, codec), (std::vector<int64_t>{0, 2, 3}));
}

}  // namespace
}  // namespace runahead
