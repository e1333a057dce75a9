// Generation: all choices of one request, from submit to the last token. Each choice is a TokenStream of its own; they
// run side by side, and the first that fails ends the others.
//   threads  the io_context thread.
//   owner    the streams. It must not die before run() has returned.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/inference.h"
#include "services/gateway/answer/incremental_detokenizer.h"
#include "services/gateway/generation_memory.h"
#include "services/gateway/request/openai_request.h"

namespace runahead {

struct ChoiceResult {
  std::string finish_reason;  // "stop", "length"; empty: it still runs
  std::string stop_string;  // that ended it, if one did
  int32_t completion_tokens = 0;
  std::optional<TtftReport> report;
};

// Takes what the choices produce. An Error ends the generation.
class ChoiceSink {
 public:
  virtual ~ChoiceSink() = default;
  // When it returns from a choice's first piece, that piece is on its way to the client. The first may be without text.
  virtual Task<void> piece(int32_t choice, TextPiece piece) = 0;
  // Before the first piece, where log-probabilities of the prompt are asked for: its tokens from the second on.
  virtual Task<void> prompt(int32_t choice, std::vector<SampledToken> scored) = 0;
  virtual Task<void> progress(int32_t /*choice*/, PrefillProgress /*progress*/) { co_return Result<void>{}; }
  virtual Task<void> finished(int32_t /*choice*/, std::string /*finish_reason*/) { co_return Result<void>{}; }
};

class Generation {
 public:
  Generation(asio::any_io_executor executor, Clock& clock, const TextCodec& codec, IncrementalDetokenizer empty_answer);

  // All choices or none: those submitted before a refused one are cancelled. A request for no token is answered here, or,
  // if it asks for log-probabilities of its prompt, by a chain whose token is dropped.
  Result<void> submit(InferenceService& inference, std::vector<InferenceRequest> requests);
  void hold(GenerationMemory::Hold memory) { memory_ = std::move(memory); }  // until this one's end
  Task<void> run(ChoiceSink& sink);
  void cancel(std::string why = "the client went away");  // nothing if every choice has finished

  const std::vector<ChoiceResult>& results() const { return results_; }

 private:
  struct Choice {
    std::shared_ptr<TokenStream> stream;  // shared with the coordinator; null: no token is asked for
    bool only_prompt = false;  // its tokens are dropped
    bool shows_stop_token = false;  // as an entry of the log-probabilities, without text
  };
  asio::awaitable<void> run_choice(int32_t choice, ChoiceSink& sink);
  Task<void> follow(int32_t choice, ChoiceSink& sink);
  Task<void> end_choice(int32_t choice, FinishedEvent finished, IncrementalDetokenizer& text, ChoiceSink& sink);
  Task<bool> take_tokens(int32_t choice, TokensEvent event, IncrementalDetokenizer& text, ChoiceSink& sink);
  void cancel_streams();

  asio::any_io_executor executor_;
  Clock& clock_;
  const TextCodec& codec_;
  IncrementalDetokenizer empty_answer_;  // each choice begins with a copy
  GenerationMemory::Hold memory_;
  std::vector<Choice> choices_;
  std::vector<ChoiceResult> results_;
  std::optional<Error> error_;  // the first one
};

}  // namespace runahead
