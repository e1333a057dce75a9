// The events of a response in the background, to its end. Its client may go away and come back.
//   threads  the io_context thread.
#pragma once

#include "actors/jobs/jobs_api.h"
#include "services/gateway/generation_routes.h"
#include "services/gateway/responses/response_stream.h"

namespace runahead {

class BackgroundReader {
 public:
  BackgroundReader(const GatewayContext& context, JobsApi& jobs, Exchange& exchange, JobView job)
      : context_(context),
        jobs_(jobs),
        exchange_(exchange),
        job_(std::move(job)),
        text_(job_text(job_.client_json).empty_answer(context.codec)) {}

  // Answers the exchange, whatever happens. seen: as ResponseEvents.
  Task<void> run(int64_t seen);

 private:
  Task<void> tell(JobEvents& tokens, ResponseEvents& events);
  Task<void> push(const TokensEvent& event, ResponseEvents& events);
  Task<void> finish(ResponseEvents& events);

  const GatewayContext& context_;
  JobsApi& jobs_;
  Exchange& exchange_;
  JobView job_;
  IncrementalDetokenizer text_;
};

}  // namespace runahead
