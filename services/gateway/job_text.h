// JobText: what the gateway keeps beside a job, so that its tokens can be shown as the answer that was asked for, also after a
// restart (JobSubmission::client_json). Pure; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "actors/jobs/jobs_api.h"
#include "services/gateway/openai_response.h"
#include "services/http/trace_context.h"

namespace runahead {

struct JobText {
  Endpoint endpoint = Endpoint::kCompletions;
  std::string model;
  std::string echo;
  std::vector<std::string> stop;
  int32_t min_tokens = 0;
  bool logprobs = false;
  std::optional<ToolReading> tools;  // how calls are found in it
  TraceContext trace;  // read by trace_of_job()

  IncrementalDetokenizer empty_answer(const TextCodec& codec) const;
};

nlohmann::json to_json(const JobText& text);
// Anything missing has its default; `trace` is not read.
JobText job_text(const std::string& client_json);

// When a job is over by its own stop strings, for JobServiceEnv; empty if it has none.
StopRule job_stop_rule(const TextCodec& codec, const std::string& client_json);

// A job that has ended, as its answer.
struct JobAnswer {
  AnswerChoice choice;  // without a finish_reason if it was cut short
  ChoiceResult result;
};
JobAnswer job_answer(const JobView& job, const JobText& text, const TextCodec& codec);

// About what a job takes as text.
size_t text_bytes(const JobView& job);

}  // namespace runahead
