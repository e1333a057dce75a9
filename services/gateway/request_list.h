// RequestList: the completions, chats and messages in work, and the last that ended, as /v1/requests shows them: names and
// numbers, never a text.
//   threads  the io_context thread; a Row does not change, so that the text lane may write it out.
//   limits   in work as many as there are connections; ended limits::kEndedRequestsMax, then the oldest goes.
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "services/gateway/generation.h"
#include "services/http/trace_context.h"

namespace runahead {

struct RequestEntry {
  std::string id;  // "chatcmpl-...", "msg_...", as its answer carries it
  std::string owner;  // HttpRequest::owner
  const char* endpoint = "";  // "chat", "completions", "messages"
  // "waiting", "prefill", "decode"; ended: "succeeded", "failed", "cancelled".
  const char* status = "waiting";
  bool stream = false;
  int32_t choices = 1;
  int64_t created_unix_s = 0;
  Time received_at{0};
  int64_t received_unix_ns = 0;  // the same by the wall clock
  TraceContext trace;
  int64_t prompt_tokens = 0, completion_tokens = 0;  // of all choices
  PrefillProgress prefill;  // of the first choice
  std::optional<double> first_token_seconds;  // since received_at; as the gateway saw it
  double elapsed_seconds = 0;  // since received_at, to now or to its end
  std::optional<TtftReport> report;  // of the first choice, when it has ended
  std::optional<Error> error;
};

class ListedRequest;

class RequestList {
 public:
  using Row = std::shared_ptr<const RequestEntry>;

  // on_end: called with each that has ended; empty: nobody wants them.
  explicit RequestList(const Clock& clock, std::function<void(const RequestEntry&)> on_end = {})
      : clock_(clock), on_end_(std::move(on_end)) {}

  // Those of one owner, newest first.
  std::vector<Row> of(const std::string& owner) const;
  // kNotFound, also for another owner's.
  Result<Row> find(const std::string& owner, const std::string& id) const;
  // As find(), and ends it everywhere if it is in work.
  Result<Row> cancel(const std::string& owner, const std::string& id);

 private:
  friend class ListedRequest;
  ListedRequest* in_work(const std::string& owner, const std::string& id) const;

  const Clock& clock_;
  std::function<void(const RequestEntry&)> on_end_;
  std::list<ListedRequest*> in_work_;
  std::deque<Row> ended_;  // the last one first
};

// One request in work: it is in the list as long as this lives. Between a Generation and the sink of its answer it notes how
// far the request is.
class ListedRequest final : public ChoiceSink {
 public:
  // The list and the generation outlive this.
  ListedRequest(RequestList& list, RequestEntry entry, Generation& generation);
  ~ListedRequest() override;
  ListedRequest(const ListedRequest&) = delete;
  ListedRequest& operator=(const ListedRequest&) = delete;

  bool is(const std::string& owner, const std::string& id) const { return entry_.id == id && entry_.owner == owner; }
  ChoiceSink& through(ChoiceSink& sink);
  void cancel();
  // The list keeps its entry. Without a call (an exception) it is forgotten.
  void end(const Result<void>& ended);
  RequestEntry entry() const;  // now

  Task<void> prompt(int32_t choice, std::vector<SampledToken> scored) override;
  Task<void> piece(int32_t choice, TextPiece piece) override;
  Task<void> progress(int32_t choice, PrefillProgress progress) override;
  Task<void> finished(int32_t choice, std::string finish_reason) override;

 private:
  RequestList& list_;
  RequestEntry entry_;
  Generation& generation_;
  ChoiceSink* sink_ = nullptr;
  std::list<ListedRequest*>::iterator place_;
};

}  // namespace runahead
