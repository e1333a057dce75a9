// Requests as OpenTelemetry's traces in OTLP's JSON form (ExportTraceServiceRequest): one span for the request, whose parent is
// the caller's, and one for each stage and rank. Attributes of the request by the conventions for generative AI (gen_ai.*). Pure.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "base/rng.h"
#include "services/tracing/timeline.h"

namespace runahead {

struct OtlpResource {
  std::string service_name = "runahead";
  std::string version;
  std::string instance;  // of this process among those of one name
};

struct OtlpBatch {
  nlohmann::json body;
  int64_t spans = 0;
};

OtlpBatch otlp_batch(const OtlpResource& resource, std::span<const std::shared_ptr<const TracedRequest>> requests,
                     Rng& span_ids);

}  // namespace runahead
