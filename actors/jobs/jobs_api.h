// JobsApi: requests that outlive their client, as the gateway calls them. JobService (actors/jobs/job_service.h) is the one of
// production.
//   threads  the io_context thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/inference.h"
#include "actors/jobs/job_store.h"

namespace runahead {

struct JobSubmission {
  std::string id;  // as JobHead, and nobody else's; empty: a new one
  InferenceRequest request;
  std::string owner;  // empty: everybody's
  std::string idempotency_key;  // empty: none
  std::string request_digest;  // as JobHead
  std::string kind;  // as JobHead
  std::string client_json;  // as StoredRequest
};

struct JobView {
  JobHead head;  // completion_tokens: so far
  double prefill_fraction = 0;  // 0 to 1
  std::string client_json;  // empty in lists
  std::shared_ptr<const StoredResult> result;  // once it has ended; null in lists
};

// One reader's view of a job's events, from an index on: tokens in order, then FinishedEvent, or the job's error.
class JobEvents {
 public:
  virtual ~JobEvents() = default;
  // As TokenStream::next. After a restart of the coordinator the tokens are made again; the reader sees each index
  // once.
  virtual Task<StreamEvent> next(Deadline deadline) = 0;
};

// Asked about each generated token in order: is the answer over with this one? Text is the gateway's, and so are stop
// strings; a job ends by them as a streamed answer does.
using StopRule = std::function<bool(const SampledToken&)>;

// How a request ended that ran elsewhere.
struct EndedRun {
  int64_t created_unix_ms = 0;
  std::optional<Error> error;  // it failed
  StoredResult result;
};

class JobsApi {
 public:
  virtual ~JobsApi() = default;
  // Returns when the job is durable. The same idempotency key of the same owner returns the first job, and kKeyReused
  // if the request is another one.
  virtual Task<JobView> submit(JobSubmission submission) = 0;
  virtual Task<JobView> find(std::string owner, std::string id) = 0;  // kNotFound
  virtual Task<std::vector<JobView>> list(JobQuery query) = 0;  // newest first; kNotFound: no job JobQuery::after
  virtual Task<JobView> cancel(std::string owner, std::string id) = 0;  // kNotFound; an ended job stays as it is
  // Keeps a request that ran elsewhere, as a job that has ended; durable when it returns.
  virtual Task<JobView> keep(JobSubmission submission, EndedRun run) = 0;
  // Forgets a job that has ended. kNotFound, also for another owner's; kInvalidArgument while it runs.
  virtual Task<void> remove(std::string owner, std::string id) = 0;
  // Events from token `first_index` on.
  virtual Task<std::shared_ptr<JobEvents>> subscribe(std::string owner, std::string id, int32_t first_index) = 0;
};

}  // namespace runahead
