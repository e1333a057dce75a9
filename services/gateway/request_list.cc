#include "services/gateway/request_list.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/limits.h"

namespace runahead {
namespace {

std::unexpected<Error> unknown() {
  return fail(ErrorCode::kNotFound, "no such request in work or among the last that ended", "id");
}

const char* ended_status(const Result<void>& ended) {
  if (ended) return "succeeded";
  return ended.error().code == ErrorCode::kCancelled ? "cancelled" : "failed";
}

}  // namespace

std::vector<RequestList::Row> RequestList::of(const std::string& owner) const {
  std::vector<Row> rows;
  for (const ListedRequest* request : in_work_) {
    auto entry = std::make_shared<RequestEntry>(request->entry());
    if (entry->owner == owner) rows.push_back(std::move(entry));
  }
  std::ranges::copy_if(ended_, std::back_inserter(rows), [&](const Row& row) { return row->owner == owner; });
  std::ranges::stable_sort(rows, std::ranges::greater{}, [](const Row& row) { return row->received_at; });
  return rows;
}

ListedRequest* RequestList::in_work(const std::string& owner, const std::string& id) const {
  for (ListedRequest* request : in_work_)
    if (request->is(owner, id)) return request;
  return nullptr;
}

Result<RequestList::Row> RequestList::find(const std::string& owner, const std::string& id) const {
  if (const ListedRequest* request = in_work(owner, id)) return std::make_shared<RequestEntry>(request->entry());
  for (const Row& row : ended_)
    if (row->id == id && row->owner == owner) return row;
  return unknown();
}

Result<RequestList::Row> RequestList::cancel(const std::string& owner, const std::string& id) {
  if (ListedRequest* request = in_work(owner, id)) request->cancel();
  return find(owner, id);
}

ListedRequest::ListedRequest(RequestList& list, RequestEntry entry, Generation& generation)
    : list_(list),
      entry_(std::move(entry)),
      generation_(generation),
      place_(list.in_work_.insert(list.in_work_.end(), this)) {}

ListedRequest::~ListedRequest() { list_.in_work_.erase(place_); }

ChoiceSink& ListedRequest::through(ChoiceSink& sink) {
  sink_ = &sink;
  return *this;
}

void ListedRequest::cancel() {
  if (std::string_view(entry().status) == "succeeded") return;
  entry_.status = "cancelled";
  generation_.cancel("the request was cancelled by DELETE /v1/requests/" + entry_.id);
}

void ListedRequest::end(const Result<void>& ended) {
  auto last = std::make_shared<RequestEntry>(entry());
  last->status = ended_status(ended);
  if (!ended) last->error = ended.error();
  if (list_.on_end_) list_.on_end_(*last);
  list_.ended_.push_front(std::move(last));
  if (list_.ended_.size() > limits::kEndedRequestsMax) list_.ended_.pop_back();
}

RequestEntry ListedRequest::entry() const {
  RequestEntry now = entry_;
  now.elapsed_seconds = seconds(list_.clock_.now() - entry_.received_at);
  const std::vector<ChoiceResult>& results = generation_.results();
  for (const ChoiceResult& result : results) now.completion_tokens += result.completion_tokens;
  if (!results.empty()) now.report = results.front().report;
  if (std::ranges::none_of(results, &std::string::empty, &ChoiceResult::finish_reason)) now.status = "succeeded";
  return now;
}

Task<void> ListedRequest::prompt(int32_t choice, std::vector<SampledToken> scored) {
  return sink_->prompt(choice, std::move(scored));
}

Task<void> ListedRequest::piece(int32_t choice, TextPiece piece) {
  if (!entry_.first_token_seconds) {
    entry_.first_token_seconds = seconds(list_.clock_.now() - entry_.received_at);
    if (std::string_view(entry_.status) != "cancelled") entry_.status = "decode";
  }
  return sink_->piece(choice, std::move(piece));
}

Task<void> ListedRequest::progress(int32_t choice, PrefillProgress progress) {
  if (std::string_view(entry_.status) == "waiting") entry_.status = "prefill";
  if (choice == 0) entry_.prefill = progress;
  return sink_->progress(choice, std::move(progress));
}

Task<void> ListedRequest::finished(int32_t choice, std::string finish_reason) {
  return sink_->finished(choice, std::move(finish_reason));
}

}  // namespace runahead
