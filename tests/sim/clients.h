// Clients: the gateway's part in the simulation. Each request of the scenario is sent by a coroutine in the
// coordinator's process, as an HTTP handler would; its history outlives that process and is what the checks judge.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "sim_cluster.h"

namespace runahead::test {

struct RequestHistory {
  enum class State {
    kWaiting,    // not sent yet, or to be sent again
    kSending,    // a job is being submitted
    kAccepted,   // a job, acknowledged; its end is looked up
    kStreaming,  // a stream is open
    kFinished,   // ended well
    kFailed,     // ended with `error`
    kCancelled,  // the client went away
    kBroken,     // the coordinator's process died under a stream
  };
  State state = State::kWaiting;
  std::string job_id;
  std::vector<TokenId> tokens;
  bool scored = false;       // the log-probabilities of the prompt have come
  FinishReason reason = FinishReason::kAbort;
  Error error;
  int32_t sent = 0;          // submits
  Time next_at{0};           // of the world: when to send or look again
  uint64_t incarnation = 0;  // of the coordinator's process that the coroutine under way runs in
  bool busy = false;         // a coroutine is under way
  uint32_t attempts = 0;     // of what finished
  bool over() const { return state >= State::kFinished; }
};

class Clients {
 public:
  explicit Clients(SimCluster& cluster);

  // Sends what is due; called often.
  void tick();
  bool all_over() const;
  // The first thing that went wrong, if any; "" so far.
  const std::string& violation() const { return violation_; }
  const std::deque<RequestHistory>& histories() const { return histories_; }
  void add(RequestSpec spec);
  const RequestSpec& spec(size_t i) const { return specs_[i]; }
  size_t size() const { return specs_.size(); }

 private:
  struct Call {  // what a coroutine needs
    Clients* clients;
    CoordinatorHost* host;
    size_t index;
  };
  static asio::awaitable<void> stream(Call call);
  static Task<void> read_stream(Call call, std::shared_ptr<TokenStream> stream, std::optional<Time> cancel_at);
  static asio::awaitable<void> submit_job(Call call);
  static asio::awaitable<void> look_up_job(Call call);
  static asio::awaitable<void> watch_job(Call call);
  // The history, or null if the process that asks is dead: then nobody hears it.
  RequestHistory* history(const Call& call);
  void on_prompt(const Call& call, RequestHistory& history, const PromptEvent& event);
  void on_tokens(const Call& call, RequestHistory& history, const TokensEvent& event);
  void on_finished(const Call& call, RequestHistory& history, const FinishedEvent& event);
  void on_error(const Call& call, RequestHistory& history, const Error& error);
  void judge_answer(size_t index, RequestHistory& history);
  void violate(size_t index, const std::string& what);

  SimCluster& cluster_;
  std::deque<RequestSpec> specs_;  // deques: coroutines hold references while requests are added
  std::deque<RequestHistory> histories_;
  std::string violation_;
};

}  // namespace runahead::test
