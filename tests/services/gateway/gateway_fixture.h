// A Gateway on loopback over a scripted InferenceService and a toy codec (one token a byte), and a raw HTTP client, so
// that tests see exactly what travels.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_future.hpp>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/json_text.h"
#include "services/process/gateway.h"
#include "tests/services/http/raw_client.h"

namespace runahead {

constexpr TokenId kToyEnd = 256;  // the toy model's end of text
constexpr int32_t kToyVocab = 257;

class ToyCodec : public TextCodec {
 public:
  Result<std::vector<TokenId>> encode(std::string_view text, bool, bool) const override {
    std::vector<TokenId> tokens;
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }
  std::string token_bytes(TokenId token) const override {
    return token < 256 ? std::string(1, static_cast<char>(token)) : "";
  }
  std::string decode(std::span<const TokenId> tokens) const override {
    std::string bytes;
    for (const TokenId token : tokens) bytes += token_bytes(token);
    return bytes;
  }
  Result<std::string> render_chat(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                                  const nlohmann::ordered_json& /*tools*/ = {}) const override {
    std::string text;
    for (const auto& message : messages)
      text += "<" + message["role"].get<std::string>() + ">" + message["content"].get<std::string>();
    return text + (add_generation_prompt ? "<assistant>" : "");
  }
  Result<std::vector<TokenId>> encode_chat(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                                           const nlohmann::ordered_json& tools = {}) const override {
    return encode(TRY(render_chat(messages, add_generation_prompt, tools)), false, true);
  }
  int32_t vocab_size() const override { return kToyVocab; }
  std::vector<TokenId> end_tokens() const override { return {kToyEnd}; }
};

// Its template shows tools as text, and its model calls them as Hermes does.
class ToolCodec final : public ToyCodec {
 public:
  Result<std::string> render_chat(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                                  const nlohmann::ordered_json& tools) const override {
    std::string text = tools.empty() ? "" : "<tools>" + to_ordered_text(tools);
    for (const auto& message : messages) {
      text += "<" + message["role"].get<std::string>() + ">" + message["content"].get<std::string>();
      if (message.contains("tool_calls")) text += to_ordered_text(message["tool_calls"]);
      if (message.contains("name")) text += "(" + message["name"].get<std::string>() + ")";
    }
    return text + (add_generation_prompt ? "<assistant>" : "");
  }
  Result<ToolFormat> tool_format() const override { return ToolFormat::kHermes; }
};

// What every request gets. Set it before the request is sent.
struct Script {
  std::string text = "Hello";  // the bytes that are generated, then the end
  size_t tokens_per_event = 1;
  Duration before_first{0}, between{0};
  std::optional<Error> refuse;       // submit() fails
  bool no_memory = false;            // submit() throws std::bad_alloc
  bool odd_json = false;             // submit() throws what a JSON value of another type throws
  std::optional<Error> fail_at_end;  // instead of FinishedEvent
  bool endless = false;              // the text again and again, until it is cancelled
  bool ready = true;                 // workers are there
  bool draining = false;             // and nothing is in work
  bool progress = false;             // one PrefillProgress first
  int32_t context_len = 4096;
};

class FakeInference final : public InferenceService {
 public:
  explicit FakeInference(asio::io_context& io) : io_(io) {}

  Result<std::shared_ptr<TokenStream>> submit(InferenceRequest request) override;
  ClusterView cluster() const override;

  void set(Script script) {
    std::lock_guard lock(mutex_);
    script_ = std::move(script);
  }
  Script script() const {
    std::lock_guard lock(mutex_);
    return script_;
  }
  std::vector<InferenceRequest> requests() const {
    std::lock_guard lock(mutex_);
    return requests_;
  }
  std::atomic<int> cancelled{0}, finished{0}, first_chunks{0}, produced{0};

 private:
  asio::io_context& io_;
  mutable std::mutex mutex_;
  Script script_;
  std::vector<InferenceRequest> requests_;
};

class CountingMetrics final : public GatewayMetrics {
 public:
  void http_request(std::string_view endpoint, RequestStatus status, double) override {
    std::lock_guard lock(mutex_);
    static constexpr const char* kNames[] = {"ok", "client_error", "rejected", "server_error", "cancelled"};
    seen_.push_back(std::string(endpoint) + ":" + kNames[static_cast<int>(status)]);
  }
  void request_rejected(std::string_view reason) override {
    std::lock_guard lock(mutex_);
    rejected_.emplace_back(reason);
  }
  void batches_open(int64_t count) override { open = count; }
  void batch_line(bool completed) override { ++(completed ? lines_completed : lines_failed); }
  std::atomic<int64_t> open{-1};  // batches
  std::atomic<int> lines_completed{0}, lines_failed{0};

  std::string text() override { return "# TYPE runahead_up gauge\nrunahead_up 1\n"; }
  std::vector<std::string> seen() const {
    std::lock_guard lock(mutex_);
    return seen_;
  }
  std::vector<std::string> rejected() const {
    std::lock_guard lock(mutex_);
    return rejected_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> seen_, rejected_;
};

// The events of a stream that have names.
struct NamedEvent {
  std::string name;
  nlohmann::json data;
};
std::vector<NamedEvent> named_events(const std::string& body);

// "GET /v1/models": what services/gateway/openapi.json describes.
std::set<std::string> described_routes();

class GatewayTest : public ::testing::Test {
 protected:
  void SetUp() override { start(); }
  void TearDown() override { stop(); }

  virtual JobsApi* jobs() { return nullptr; }
  virtual const TextCodec& codec() const { return codec_; }
  void start();
  void stop();

  RawClient client() { return RawClient(gateway_->port()); }
  RawAnswer get(const std::string& path, const std::string& headers = "") {
    return client().request("GET " + path + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n");
  }
  RawAnswer post(const std::string& path, const std::string& body, const std::string& headers = "") {
    return client().request(post_bytes(path, body, headers));
  }
  static std::string post_bytes(const std::string& path, const std::string& body, const std::string& headers = "") {
    return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + headers +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  std::set<std::string> answered_routes() const {
    const std::vector<std::string> routes = gateway_->routes();
    EXPECT_EQ(std::set<std::string>(routes.begin(), routes.end()).size(), routes.size()) << "one route, one handler";
    return {routes.begin(), routes.end()};
  }
  // Waits for something that the gateway does on its own time.
  static bool eventually(const std::function<bool()>& condition,
                         std::chrono::milliseconds bound = std::chrono::seconds(5)) {
    const auto end = std::chrono::steady_clock::now() + bound;
    bool met = condition();
    for (; !met && std::chrono::steady_clock::now() < end; met = condition())
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return met;
  }

  GatewayOptions options_{.http = {},
                          .model_name = "toy",
                          .hosts = {"x"},
                          .ping_interval = std::chrono::milliseconds(100),
                          .build = {"1.2.3", "abc"}};
  asio::io_context io_{1};
  AsioClock clock_;
  FakeInference inference_{io_};
  ToyCodec codec_;
  CountingMetrics metrics_;
  std::unique_ptr<Gateway> gateway_;
  std::thread thread_;
};

}  // namespace runahead
